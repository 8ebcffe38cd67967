//! Whether the server is worth asking. Open: nobody asks it, and nobody waits for it; the store's own thread tries it
//! from time to time, and closes the breaker when it answers again.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use tokio::sync::Notify;

/// Answers in a row that may be late.
const MOST_LATE: u32 = 3;

#[derive(Debug)]
pub(super) struct Breaker {
    open: AtomicBool,
    late: AtomicU32,
    opened: AtomicU64,
    news: Notify,
}

impl Breaker {
    /// Open: nothing is known of the server yet.
    pub(super) fn new() -> Self {
        Self {
            open: AtomicBool::new(true),
            late: AtomicU32::new(0),
            opened: AtomicU64::new(0),
            news: Notify::new(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// How often it has been opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        self.late.store(0, Ordering::Relaxed);
        self.open.store(false, Ordering::Release);
    }

    pub(super) fn answered(&self) {
        self.late.store(0, Ordering::Relaxed);
    }

    /// An answer did not come in time.
    pub(super) fn late(&self) {
        if self.late.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_LATE {
            self.open();
        }
    }

    /// The server is gone.
    pub(super) fn open(&self) {
        if !self.open.swap(true, Ordering::AcqRel) {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        self.news.notify_waiters();
    }

    /// Waits until it is open.
    pub(super) async fn wait_until_open(&self) {
        loop {
            let news = self.news.notified();
            if self.is_open() {
                return;
            }
            news.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_opens_after_several_late_answers_in_a_row() {
        let breaker = Breaker::new();
        assert!(breaker.is_open());
        breaker.close();
        for _ in 0..10 {
            breaker.late();
            breaker.late();
            breaker.answered();
        }
        assert!(!breaker.is_open());
        (0..MOST_LATE).for_each(|_| breaker.late());
        breaker.wait_until_open().await;
        breaker.open();
        assert_eq!(breaker.opened(), 1);
    }
}
