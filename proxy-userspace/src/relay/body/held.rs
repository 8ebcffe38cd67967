//! A body that is in memory as a whole: an answer of weir's own.

use super::{BodyError, Piece, Source};
use crate::relay::tunnel::Side;

/// Content that is there.
#[derive(Debug)]
pub struct Held<'a> {
    side: Side,
    content: &'a [u8],
}

impl<'a> Held<'a> {
    /// A body in the place of one from `side`.
    #[must_use]
    pub fn new(side: Side, content: &'a [u8]) -> Self {
        Self { side, content }
    }
}

impl Source for Held<'_> {
    fn side(&self) -> Side {
        self.side
    }

    fn next(&mut self) -> Result<Piece<'_>, BodyError> {
        match std::mem::take(&mut self.content) {
            [] => Ok(Piece::End(None)),
            content => Ok(Piece::Content(content)),
        }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        Ok(())
    }
}
