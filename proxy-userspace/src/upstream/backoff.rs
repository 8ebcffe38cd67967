//! Waits between tries: each twice as long as the one before, and none as long as that of somebody else, so that those
//! who were refused together do not come back together.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The waits of one request.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Waits of which the first is up to `first`.
    #[must_use]
    pub fn new(first: Duration) -> Self {
        Self { next: first }
    }

    /// Waits.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.take()).await;
    }

    /// At least half of what it could be: a wait of nothing would be none.
    fn take(&mut self) -> Duration {
        let half = self.next / 2;
        self.next = self.next.saturating_mul(2);
        half + half.mul_f64(chance())
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    // Keys that differ each time make of it what is needed here; nothing has to be kept from anybody.
    f64::from(u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_differ() {
        let first = Duration::from_millis(64);
        let waits = || {
            let mut backoff = Backoff::new(first);
            [0, 1, 2].map(|_| backoff.take())
        };
        for _ in 0..100 {
            for (wait, most) in waits().into_iter().zip([first, first * 2, first * 4]) {
                assert!((most / 2..=most).contains(&wait), "{wait:?} of {most:?}");
            }
        }
        assert!((0..100).any(|_| waits() != waits()));
    }
}
