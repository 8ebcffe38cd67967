//! How many requests may be sent once more: a share of all, and some beside that. Without it, a group that is in trouble
//! gets three times the requests for it. (Finagle and Envoy have such budgets, too.)

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::member::now;
use crate::config::Retries;

/// A group's, in thousandths of a retry.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicI64,
    refilled: AtomicU64,
    pub(super) spent: AtomicU64,
    pub(super) denied: AtomicU64,
}

const RETRY: i64 = 1000;

/// What can be saved up: retries of so many seconds, and those of so many requests.
const SECONDS: i64 = 10;
const REQUESTS: i64 = 500;

impl Budget {
    pub(super) fn new(settings: &Retries) -> Self {
        Self {
            left: AtomicI64::new(most(settings)),
            refilled: AtomicU64::new(now()),
            spent: AtomicU64::new(0),
            denied: AtomicU64::new(0),
        }
    }

    /// A request has come.
    pub(super) fn deposit(&self, settings: &Retries) {
        // Mostly it is full, and nothing is written.
        if self.left.load(Relaxed) < most(settings) {
            self.left.fetch_add(share(settings), Relaxed);
        }
    }

    /// Takes one retry, if there is one left.
    pub(super) fn withdraw(&self, settings: &Retries) -> bool {
        let now = now();
        let since = self.refilled.swap(now, Relaxed);
        let refill = i64::try_from(now.saturating_sub(since)).unwrap_or(0).min(SECONDS * 1000)
            * i64::from(settings.per_second);
        let taken = self.left.fetch_update(Relaxed, Relaxed, |left| {
            let left = (left + refill).min(most(settings));
            Some(if left >= RETRY { left - RETRY } else { left })
        });
        let had = taken.is_ok_and(|left| (left + refill).min(most(settings)) >= RETRY);
        if had { &self.spent } else { &self.denied }.fetch_add(1, Relaxed);
        had
    }
}

/// What one request adds.
fn share(settings: &Retries) -> i64 {
    i64::from(settings.budget) * RETRY / 100
}

fn most(settings: &Retries) -> i64 {
    SECONDS * i64::from(settings.per_second) * RETRY + REQUESTS * share(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(budget: u32, per_second: u32) -> Retries {
        Retries { attempts: 2, statuses: 502..=504, budget, per_second, timeout: None, body: 0 }
    }

    #[test]
    fn a_share_of_the_requests() {
        let settings = settings(20, 0);
        let budget = Budget::new(&settings);
        let all = (0..10_000).take_while(|_| budget.withdraw(&settings)).count();
        assert_eq!(all, 100, "what was saved up");
        (0..10).for_each(|_| budget.deposit(&settings));
        let again = (0..10).filter(|_| budget.withdraw(&settings)).count();
        assert_eq!((again, budget.spent.load(Relaxed), budget.denied.load(Relaxed)), (2, 102, 9));
    }

    #[test]
    fn without_a_budget_there_are_none() {
        let settings = settings(0, 0);
        assert!(!Budget::new(&settings).withdraw(&settings));
    }
}
