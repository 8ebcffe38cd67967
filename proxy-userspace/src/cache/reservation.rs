//! Memory that is spoken for while responses are under way, all of them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory set aside for a response under way.
#[derive(Debug)]
pub struct Reservation {
    pub(super) bytes: u64,
    pub(super) total: Arc<AtomicU64>,
    pub(super) most: u64,
}

impl Reservation {
    /// What is set aside.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it larger or smaller. False: there is not so much, and it stays.
    pub fn resize(&mut self, bytes: u64) -> bool {
        let fits = |taken: u64| {
            let total = (taken - self.bytes).checked_add(bytes)?;
            (bytes <= self.bytes || total <= self.most).then_some(total)
        };
        let resized = self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if resized {
            self.bytes = bytes;
        }
        resized
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
