//! Bytes a second: buckets that connections share, whichever worker serves them, and what waits for them.
//!
//! Bytes are charged once they have moved, so that nothing has to be cut to fit: whoever has moved much waits for longer.
//! Over time it comes out as the rate says.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// What may pass at once after a pause, as a time at full rate.
const BURST: Duration = Duration::from_millis(250);

/// No wait is longer than this: it is looked again whether it is over.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A rate, and how far it is used up.
#[derive(Debug)]
pub struct Rate {
    began: Instant,
    /// When all that has passed would have passed at this rate, in nanoseconds since `began`.
    paid_at: AtomicU64,
    bytes_per_second: u64,
}

impl Rate {
    /// Of which nothing is used.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            paid_at: AtomicU64::new(0),
            bytes_per_second: bytes_per_second.max(1),
        })
    }

    /// How many bytes it lets pass in a second.
    #[must_use]
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn charge(&self, bytes: u64) {
        self.charge_at(self.now(), bytes);
    }

    fn charge_at(&self, now: u64, bytes: u64) {
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let paid = |paid_at: u64| Some(paid_at.max(now).saturating_add(cost));
        // The closure never gives up.
        let _ = self.paid_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid);
    }

    /// How long until more may pass; None: at once.
    fn wait(&self) -> Option<Duration> {
        self.wait_at(self.now())
    }

    fn wait_at(&self, now: u64) -> Option<Duration> {
        let debt = Duration::from_nanos(self.paid_at.load(Ordering::Relaxed).saturating_sub(now));
        debt.checked_sub(BURST).filter(|wait| !wait.is_zero()).map(|wait| wait.min(LONGEST_WAIT))
    }
}

/// What one direction of a connection keeps to: every rate that holds for it.
#[derive(Debug, Clone)]
pub struct Pace(Arc<[Arc<Rate>]>);

impl Pace {
    /// None: nothing bounds it.
    #[must_use]
    pub fn of(rates: Vec<Arc<Rate>>) -> Option<Self> {
        (!rates.is_empty()).then(|| Self(rates.into()))
    }

    /// Notes that so many bytes have passed.
    pub fn charge(&self, bytes: u64) {
        if bytes > 0 {
            self.0.iter().for_each(|rate| rate.charge(bytes));
        }
    }

    /// Whether there is a wait until more may pass.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.wait().is_some()
    }

    fn wait(&self) -> Option<Duration> {
        self.0.iter().filter_map(|rate| rate.wait()).max()
    }

    /// Waits until more may pass.
    pub async fn ready(&self) {
        while let Some(wait) = self.wait() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// The pace of a direction that is polled, and the wait that is under way.
#[derive(Debug)]
pub struct Paced {
    pace: Pace,
    sleep: Option<Pin<Box<Sleep>>>,
    charged: u64,
}

impl Paced {
    /// Nothing has passed yet.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, sleep: None, charged: 0 }
    }

    /// Ready when more may pass. `passed` is what has passed in all.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>, passed: u64) -> Poll<()> {
        self.pace.charge(passed.saturating_sub(self.charged));
        self.charged = passed;
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            match self.pace.wait() {
                None => return Poll::Ready(()),
                Some(wait) => self.sleep = Some(Box::pin(tokio::time::sleep(wait))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn over_time_no_more_passes_than_the_rate_says() {
        let rate = Rate::new(1000);
        let (mut now, mut passed) = (0, 0_u64);
        while now < 60 * SECOND {
            match rate.wait_at(now) {
                None => {
                    rate.charge_at(now, 777);
                    passed += 777;
                }
                Some(wait) => now += u64::try_from(wait.as_nanos()).unwrap(),
            }
        }
        // A burst, and a piece that began in time.
        assert!((60_000..=60_000 + 250 + 777).contains(&passed), "{passed}");
    }

    #[test]
    fn what_was_not_used_is_no_credit_but_for_a_burst() {
        let rate = Rate::new(1000);
        let now = 3600 * SECOND;
        rate.charge_at(now, 250);
        assert_eq!(rate.wait_at(now), None);
        rate.charge_at(now, 500);
        assert_eq!(rate.wait_at(now), Some(Duration::from_millis(500)));
        rate.charge_at(now, 1 << 40);
        assert_eq!(rate.wait_at(now), Some(LONGEST_WAIT));
    }
}
