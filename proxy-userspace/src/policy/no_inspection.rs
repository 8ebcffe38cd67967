//! In the place of `inspection` where that is not built in: there is none.

use std::sync::Arc;
use std::time::Duration;

use super::Refusal;
pub use super::verdict::Verdict;
use crate::authority::Host;
use crate::config::{self, Direction};
use crate::http::headers::Headers;

/// There is no value of it.
#[derive(Debug)]
pub enum Inspection {}

/// Nor of this.
#[derive(Debug)]
pub enum Held {}

/// Nor of this.
#[derive(Debug, thiserror::Error)]
#[error("")]
pub enum RulesError {}

impl Held {
    #[must_use]
    pub fn content(&self) -> &[u8] {
        match *self {}
    }
}

impl Inspection {
    /// None.
    ///
    /// # Errors
    /// None.
    pub fn load(_: &config::Inspection) -> Result<Option<Arc<Self>>, RulesError> {
        Ok(None)
    }

    #[must_use]
    pub fn wants(&self, _: Direction, _: Option<&Host>) -> bool {
        match *self {}
    }

    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        match *self {}
    }

    #[must_use]
    pub fn rules(&self) -> usize {
        match *self {}
    }

    #[must_use]
    pub fn asks_clamd(&self) -> bool {
        match *self {}
    }

    #[must_use]
    pub fn is_outdated(&self) -> bool {
        match *self {}
    }

    #[must_use]
    pub fn max_wait(&self) -> Duration {
        match *self {}
    }

    #[must_use]
    pub fn hold(&self, _: Option<u64>) -> Held {
        match *self {}
    }

    pub fn take(&self, _: &mut Held, _: &[u8]) -> bool {
        match *self {}
    }

    pub async fn judge(&self, _: Held, _: bool, _: &Headers) -> (Verdict, Arc<Held>) {
        match *self {}
    }

    /// Nothing.
    ///
    /// # Errors
    /// None.
    pub fn act(&self, _: Verdict, _: bool, _: Direction) -> Result<(), Refusal> {
        match *self {}
    }
}
