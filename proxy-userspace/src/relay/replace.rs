//! A stage that replaces text. What is replaced, and in which bodies, is not decided here.

use super::body::{BodyError, Trailers};
use super::stage::Stage;
use crate::http::replace::{Replacement, Replacer};
use crate::telemetry::metrics;

/// Replaces one text by another.
#[derive(Debug)]
pub struct Replace(Replacer);

impl Replace {
    #[must_use]
    pub fn new(replacement: Replacement) -> Self {
        Self(Replacer::new(replacement))
    }
}

impl Stage for Replace {
    fn content<'a>(&'a mut self, content: &'a [u8]) -> Result<&'a [u8], BodyError> {
        Ok(self.0.push(content))
    }

    fn end(&mut self, _: &Trailers) -> Result<&[u8], BodyError> {
        metrics::with(|metrics| metrics.body_replacements.add(self.0.replaced()));
        Ok(self.0.end())
    }
}
