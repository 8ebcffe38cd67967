//! What a store below memory counts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Report;

/// Since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub hits: AtomicU64,
    pub stores: AtomicU64,
    /// Bytes of content read.
    pub read: AtomicU64,
    /// Not stored, for want of room or time.
    pub dropped: AtomicU64,
    pub errors: AtomicU64,
    /// Found not to be what was stored.
    pub damaged: AtomicU64,
}

impl Counts {
    /// The part of the statistics that is the same for all stores.
    pub(super) fn report(&self, store: &'static str, state: &'static str) -> Report {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Report {
            store,
            state,
            keys: None,
            bytes: None,
            max_bytes: None,
            evictions: None,
            opened: None,
            hits: number(&self.hits),
            stores: number(&self.stores),
            bytes_read: number(&self.read),
            dropped: number(&self.dropped),
            errors: number(&self.errors),
            damaged: number(&self.damaged),
        }
    }
}
