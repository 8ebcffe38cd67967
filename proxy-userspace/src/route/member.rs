//! A member of a group, as all workers see it: its settings as they are now, and what it has to do. A few atomic numbers,
//! of which a request writes two.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::balance::{UNIT, random};
use super::health::{Fitness, Health};
use crate::config::{self, Backend};

/// Whether a member is given requests, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Up,
    /// The operator has it finish what it has.
    Draining,
    /// Its weight is 0.
    Weightless,
    /// Its checks fail.
    Down,
    /// Its requests have failed in a row.
    Ejected,
    /// Too many of its requests have failed.
    Open,
    /// The same, and it may be tried with one.
    OnTrial,
}

impl State {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Weightless => "weight 0",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Open => "open",
            Self::OnTrial => "on trial",
        }
    }
}

/// A server of a group.
#[derive(Debug)]
pub struct Member {
    pub name: Arc<str>,
    pub server: Arc<Backend>,
    /// Its name, as a number.
    pub id: u64,
    weight: AtomicU32,
    draining: AtomicBool,
    /// In one order with those who wait (`group::Queue`): whoever finds a member full is seen when that ends.
    active: AtomicUsize,
    served: AtomicU64,
    /// When it came back, by [`now`]; 0: it has been there from the start.
    since: AtomicU64,
    pub(super) health: Health,
    /// When it is checked next, by [`now`].
    next_check: AtomicU64,
}

/// What a member has had to do.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    pub requests: u64,
    pub failures: u64,
    pub ejections: u64,
    /// How often its breaker has opened.
    pub openings: u64,
}

impl Member {
    pub(super) fn new(settings: &config::Member) -> Self {
        Self {
            name: Arc::clone(&settings.name),
            server: Arc::clone(&settings.server),
            id: xxh3_64(settings.name.as_bytes()),
            weight: AtomicU32::new(settings.weight),
            draining: AtomicBool::new(settings.drain),
            active: AtomicUsize::new(0),
            served: AtomicU64::new(0),
            since: AtomicU64::new(0),
            health: Health::default(),
            next_check: AtomicU64::new(0),
        }
    }

    /// Requests and tunnels that it has under way.
    pub fn active(&self) -> usize {
        self.active.load(SeqCst)
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            requests: self.served.load(Relaxed),
            failures: self.health.failures.load(Relaxed),
            ejections: self.health.ejections.load(Relaxed),
            openings: self.health.opened.load(Relaxed),
        }
    }

    /// Whether it is fit to be asked, whatever the operator wants of it.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        matches!(self.health.fitness(), Fitness::Fit | Fitness::OnTrial)
    }

    /// What its last check has found wrong.
    #[must_use]
    pub fn complaint(&self) -> Option<Box<str>> {
        self.health.complaint()
    }

    /// Whether it is to be checked now. Then it is not, until that is done.
    #[must_use]
    pub fn check_is_due(&self) -> bool {
        let is_due = now() >= self.next_check.load(Relaxed);
        if is_due {
            self.next_check.store(u64::MAX, Relaxed);
        }
        is_due
    }

    /// The next check is due then, give or take a tenth: those that were begun together do not stay so.
    pub(super) fn check_in(&self, interval: Duration) {
        let interval = millis(interval);
        let tenth = random() % (interval / 5).max(1);
        self.next_check.store(now() + interval - interval / 10 + tenth, Relaxed);
    }

    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// From the next request on.
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Relaxed);
    }

    /// Gives it no new requests, or gives it some again.
    pub fn drain(&self, drains: bool) {
        if self.draining.swap(drains, Relaxed) && !drains {
            self.come_back();
        }
    }

    /// What is new in its settings holds; what somebody has changed meanwhile stays otherwise.
    pub(super) fn follow(&self, before: &config::Member, now: &config::Member) {
        if before.weight != now.weight {
            self.set_weight(now.weight);
        }
        if before.drain != now.drain {
            self.drain(now.drain);
        }
    }

    /// Whether it may be given requests.
    #[must_use]
    pub fn state(&self) -> State {
        if self.is_draining() {
            State::Draining
        } else if self.weight() == 0 {
            State::Weightless
        } else {
            match self.health.fitness() {
                Fitness::Fit => State::Up,
                Fitness::Down => State::Down,
                Fitness::Ejected => State::Ejected,
                Fitness::Open => State::Open,
                Fitness::OnTrial => State::OnTrial,
            }
        }
    }

    /// Its share grows from now on.
    pub(super) fn come_back(&self) {
        self.since.store(now().max(1), Relaxed);
    }

    /// Its weight in [`UNIT`]s, or a part of it if it has come back less than `slow_start` ago. At least one.
    pub(super) fn share(&self, slow_start: Duration) -> u32 {
        let whole = self.weight().saturating_mul(UNIT);
        // From the future, it is still out; it is not asked then.
        let since = self.since.load(Relaxed).max(self.health.out_until());
        let slow_start = millis(slow_start);
        if slow_start == 0 || since == 0 {
            return whole.max(1);
        }
        let grown = now().saturating_sub(since).min(slow_start);
        u32::try_from(u64::from(whole) * grown / slow_start).unwrap_or(whole).max(1)
    }

    /// Takes one request more, unless it has so many; 0 is no limit.
    pub(super) fn begin(&self, most: usize) -> bool {
        let before = self.active.fetch_add(1, SeqCst);
        if most > 0 && before >= most {
            self.active.fetch_sub(1, SeqCst);
            return false;
        }
        self.served.fetch_add(1, Relaxed);
        true
    }

    pub(super) fn end(&self) {
        self.active.fetch_sub(1, SeqCst);
    }
}

/// Milliseconds on a clock that only goes forward.
pub(super) fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    millis(START.elapsed())
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::group;

    #[test]
    fn a_share_grows_in_its_time() {
        let group = group("members: [{url: 'http://a', weight: 4}]");
        let member = &group.members()[0];
        let whole = 4 * UNIT;
        let hour = Duration::from_secs(3600);
        assert_eq!(member.share(hour), whole, "there from the start");
        member.drain(true);
        member.drain(false);
        assert!((1..UNIT).contains(&member.share(hour)));
        assert_eq!(member.share(Duration::ZERO), whole);
    }

    #[test]
    fn a_bound_is_a_bound() {
        let group = group("members: [{url: 'http://a'}]");
        let member = &group.members()[0];
        assert!(member.begin(2) && member.begin(2) && !member.begin(2) && member.begin(0));
        member.end();
        assert_eq!((member.active(), member.counts().requests), (2, 3));
    }
}
