//! Keeps what compression makes of a stored body, for the next who takes it so.

use std::sync::Arc;

use crate::cache::Cache;
use crate::http::coding::Coding;
use crate::relay::body::{BodyError, Trailers};
use crate::relay::stage::Stage;

/// The stage behind the one that compresses.
pub(super) struct Keep {
    cache: Arc<Cache>,
    number: u64,
    coding: Coding,
    /// None: it is not worth keeping.
    form: Option<Vec<u8>>,
    /// A form that is no smaller than this is not kept.
    most: usize,
}

impl Keep {
    pub(super) fn new(cache: &Arc<Cache>, number: u64, coding: Coding, length: u64) -> Self {
        let most = usize::try_from(length).unwrap_or(usize::MAX);
        Self { cache: Arc::clone(cache), number, coding, form: Some(Vec::new()), most }
    }
}

impl Stage for Keep {
    fn content<'a>(&'a mut self, content: &'a [u8]) -> Result<&'a [u8], BodyError> {
        self.form = self.form.take().filter(|form| form.len() + content.len() < self.most);
        if let Some(form) = &mut self.form {
            form.extend_from_slice(content);
        }
        Ok(content)
    }

    fn end(&mut self, _trailers: &Trailers) -> Result<&[u8], BodyError> {
        if let Some(form) = self.form.take() {
            self.cache.coded().keep(self.number, self.coding, form);
        }
        Ok(&[])
    }
}
