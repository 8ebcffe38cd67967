//! What is known of a member's fitness: what checks say, how its requests end, and until when it is left alone for that.
//! Every request tells; what is told is a few atomic numbers, which are only written if they change.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::member::{millis, now};
use crate::config::{Breaker, Check, Outliers};

/// A member's.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Checks have failed, often enough.
    is_down: AtomicBool,
    /// Checks in a row that said something else than `is_down`.
    contradictions: AtomicU32,
    /// What the last check has found, if that was not that all is well.
    complaint: Mutex<Option<Box<str>>>,
    /// Requests in a row that failed.
    streak: AtomicU32,
    /// Until when it is ejected, by [`now`].
    ejected_until: AtomicU64,
    /// How often in a row.
    ejected_in_a_row: AtomicU32,
    /// Until when its breaker is open, by [`now`]; 0: it is closed.
    open_until: AtomicU64,
    /// The one request by which an open breaker is tried is under way.
    on_trial: AtomicBool,
    /// The breaker's window: when it began, and what was in it.
    window_began: AtomicU64,
    window_requests: AtomicU32,
    window_failures: AtomicU32,
    pub(super) failures: AtomicU64,
    pub(super) ejections: AtomicU64,
    pub(super) opened: AtomicU64,
}

/// The longest that ejections in a row make one another, in `outliers.ejection`s.
const MAX_IN_A_ROW: u32 = 10;

/// Whether it is fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fitness {
    Fit,
    Down,
    Ejected,
    Open,
    /// It may be tried with one request.
    OnTrial,
}

impl Health {
    pub(super) fn fitness(&self) -> Fitness {
        if self.is_down.load(Relaxed) {
            return Fitness::Down;
        }
        let (ejected_until, open_until) = (self.ejected_until.load(Relaxed), self.open_until.load(Relaxed));
        if ejected_until == 0 && open_until == 0 {
            return Fitness::Fit;
        }
        let now = now();
        if now < ejected_until {
            Fitness::Ejected
        } else if open_until == 0 {
            Fitness::Fit
        } else if now < open_until || self.on_trial.load(Relaxed) {
            Fitness::Open
        } else {
            Fitness::OnTrial
        }
    }

    /// When it was or will be let in again, by [`now`]; 0 if it was never kept out.
    pub(super) fn out_until(&self) -> u64 {
        self.ejected_until.load(Relaxed).max(self.open_until.load(Relaxed))
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected_until.load(Relaxed) > now()
    }

    /// Takes the one place of an open breaker's trial.
    pub(super) fn begin_trial(&self) -> bool {
        !self.on_trial.swap(true, Relaxed)
    }

    /// A trial of which nothing was learned.
    pub(super) fn end_trial(&self) {
        self.on_trial.store(false, Relaxed);
    }

    /// A request has gone well. Whether a breaker has closed by that.
    pub(super) fn succeeded(&self, breaker: &Breaker, on_trial: bool) -> bool {
        if self.streak.load(Relaxed) != 0 {
            self.streak.store(0, Relaxed);
        }
        if self.ejected_in_a_row.load(Relaxed) != 0 && !self.is_ejected() {
            self.ejected_in_a_row.store(0, Relaxed);
            self.ejected_until.store(0, Relaxed);
        }
        self.count(breaker, false);
        if on_trial {
            self.open_until.store(0, Relaxed);
            self.end_trial();
        }
        on_trial
    }

    /// A request has failed. `may_eject` says whether the group can do without the member. What it has come to.
    pub(super) fn failed(
        &self,
        (outliers, breaker): (&Outliers, &Breaker),
        on_trial: bool,
        may_eject: impl FnOnce() -> bool,
    ) -> Fitness {
        self.failures.fetch_add(1, Relaxed);
        let streak = self.streak.fetch_add(1, Relaxed).saturating_add(1);
        if on_trial || self.count(breaker, true) {
            self.open_until.store(now() + millis(breaker.open).max(1), Relaxed);
            self.opened.fetch_add(1, Relaxed);
            if on_trial {
                self.end_trial();
            }
            return Fitness::Open;
        }
        if outliers.failures > 0 && streak >= outliers.failures && !self.is_ejected() && may_eject() {
            let before = self.ejected_in_a_row.fetch_add(1, Relaxed).min(MAX_IN_A_ROW - 1);
            let time = millis(outliers.ejection).saturating_mul(u64::from(before) + 1);
            self.ejected_until.store(now() + time.max(1), Relaxed);
            self.ejections.fetch_add(1, Relaxed);
            // On probation afterwards: one more failure will do.
            self.streak.store(outliers.failures - 1, Relaxed);
            return Fitness::Ejected;
        }
        Fitness::Fit
    }

    /// Whether the breaker is to open. Workers that begin a window at one time may lose a count or two: it is a share.
    fn count(&self, breaker: &Breaker, failed: bool) -> bool {
        if breaker.share == 0 {
            return false;
        }
        let now = now();
        if now.saturating_sub(self.window_began.load(Relaxed)) >= millis(breaker.window) {
            self.window_began.store(now, Relaxed);
            self.window_requests.store(0, Relaxed);
            self.window_failures.store(0, Relaxed);
        }
        let requests = self.window_requests.fetch_add(1, Relaxed).saturating_add(1);
        let failures = self.window_failures.fetch_add(u32::from(failed), Relaxed) + u32::from(failed);
        let is_too_much = u64::from(failures) * 100 >= u64::from(requests) * u64::from(breaker.share);
        let opens = failed && requests >= breaker.requests && is_too_much;
        if opens {
            // What comes after the trial is judged anew.
            self.window_began.store(0, Relaxed);
        }
        opens
    }

    /// What a check has found: nothing, if all is well. Whether the member is up or down by that, if that is news.
    pub(super) fn checked(&self, check: &Check, complaint: Option<Box<str>>) -> Option<bool> {
        let (is_down, is_well) = (self.is_down.load(Relaxed), complaint.is_none());
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = complaint;
        if is_down != is_well {
            self.contradictions.store(0, Relaxed);
            return None;
        }
        let enough = if is_down { check.rise } else { check.fall };
        if self.contradictions.fetch_add(1, Relaxed) + 1 < enough {
            return None;
        }
        self.contradictions.store(0, Relaxed);
        self.is_down.store(!is_down, Relaxed);
        Some(is_down)
    }

    /// Nobody checks any more.
    pub(super) fn unchecked(&self) {
        self.is_down.store(false, Relaxed);
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn complaint(&self) -> Option<Box<str>> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::CheckKind;

    const HOUR: Duration = Duration::from_secs(3600);
    const NEVER: Outliers = Outliers { failures: 0, statuses: 500..=599, ejection: HOUR, max_share: 100 };
    const CLOSED: Breaker = Breaker { share: 0, requests: 4, window: HOUR, open: HOUR };

    #[test]
    fn failures_in_a_row_eject() {
        let (health, outliers) = (Health::default(), Outliers { failures: 3, ..NEVER });
        let fail = |may| health.failed((&outliers, &CLOSED), false, || may);
        assert_eq!((fail(true), fail(true)), (Fitness::Fit, Fitness::Fit));
        health.succeeded(&CLOSED, false);
        assert_eq!((fail(true), fail(true)), (Fitness::Fit, Fitness::Fit), "not in a row");
        assert_eq!(fail(false), Fitness::Fit, "the group can't do without it");
        assert_eq!((fail(true), health.fitness()), (Fitness::Ejected, Fitness::Ejected));
        assert_eq!(fail(true), Fitness::Fit, "what it had under way ejects it no further");
        assert_eq!(health.ejections.load(Relaxed), 1);
    }

    #[test]
    fn one_that_comes_back_is_on_probation() {
        let (health, outliers) =
            (Health::default(), Outliers { failures: 2, ejection: Duration::from_millis(1), ..NEVER });
        let fail = || health.failed((&outliers, &CLOSED), false, || true);
        assert_eq!((fail(), fail()), (Fitness::Fit, Fitness::Ejected));
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(health.fitness(), Fitness::Fit);
        assert_eq!(fail(), Fitness::Ejected);
        std::thread::sleep(Duration::from_millis(10));
        health.succeeded(&CLOSED, false);
        assert_eq!((fail(), fail()), (Fitness::Fit, Fitness::Ejected), "all is forgiven");
    }

    #[test]
    fn a_breaker_opens_by_share_and_closes_by_trial() {
        let breaker = Breaker { share: 50, open: Duration::from_millis(1), ..CLOSED };
        let health = Health::default();
        let fail = |on_trial| health.failed((&NEVER, &breaker), on_trial, || true);
        health.succeeded(&breaker, false);
        health.succeeded(&breaker, false);
        assert_eq!(fail(false), Fitness::Fit, "one of three");
        assert_eq!(fail(false), Fitness::Open, "two of four");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(health.fitness(), Fitness::OnTrial);
        assert!(health.begin_trial());
        assert_eq!((health.fitness(), health.begin_trial()), (Fitness::Open, false), "one at a time");
        assert_eq!(fail(true), Fitness::Open);
        std::thread::sleep(Duration::from_millis(5));
        assert!(health.begin_trial() && health.succeeded(&breaker, true));
        assert_eq!(health.fitness(), Fitness::Fit);
    }

    #[test]
    fn checks_rise_and_fall() {
        let check = Check {
            kind: CheckKind::Tcp,
            path: "/".into(),
            host: None,
            statuses: 200..=399,
            interval: HOUR,
            timeout: HOUR,
            rise: 2,
            fall: 3,
        };
        let health = Health::default();
        let checked = |is_well: bool| health.checked(&check, (!is_well).then(|| "no".into()));
        let told: Vec<_> =
            [false, false, true, false, false, false, true, false, true, true].map(checked).into();
        let none = None;
        assert_eq!(told, [none, none, none, none, none, Some(false), none, none, none, Some(true)]);
        assert_eq!(health.fitness(), Fitness::Fit);
    }
}
