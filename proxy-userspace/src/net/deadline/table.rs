//! The table of one thread's deadlines. It knows ticks only, and wakes nobody itself.

use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use super::{Expired, SWEEP_PERIOD, TICK};

/// Below this many deadlines, every tick looks at all of them.
const SMALL_TABLE: usize = 1024;

/// How far a thread is from its end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    #[default]
    Serving,
    Retired,
    Draining,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) slots: Slab<Slot>,
    /// Ticks since the thread began.
    pub(super) now: u64,
    /// Where the next partial sweep goes on.
    cursor: usize,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) waker: Option<Waker>,
    /// The tick in which it fires; the last one of all if it was never armed.
    pub(super) due: u64,
    /// The same if weir drains, where that is earlier.
    pub(super) due_in_drain: u64,
    /// That holds in retirement, too.
    pub(super) retires: bool,
    pub(super) expired: Option<Expired>,
}

impl Default for Slot {
    fn default() -> Self {
        Self { waker: None, due: u64::MAX, due_in_drain: u64::MAX, retires: false, expired: None }
    }
}

impl Slot {
    pub(super) fn ends_in(&self, stage: Stage) -> bool {
        stage == Stage::Draining || stage == Stage::Retired && self.retires
    }

    pub(super) fn drain(&mut self, now: u64) {
        self.due = self.due.min(self.due_in_drain);
        if self.due_in_drain <= now {
            self.expired.get_or_insert(Expired::Drained);
        }
    }
}

impl Table {
    /// The tick by which `after` has passed: one more, as the current tick has begun already.
    pub(super) fn due(&self, after: Duration) -> u64 {
        let ticks = u64::try_from(after.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX);
        self.now.saturating_add(ticks).saturating_add(1)
    }

    pub(super) fn sweep(&mut self) -> Vec<Waker> {
        self.now += 1;
        let end = self.slots.capacity();
        let per_period = usize::try_from(SWEEP_PERIOD.as_millis() / TICK.as_millis()).unwrap_or(1);
        let span = SMALL_TABLE.max(end.div_ceil(per_period));
        let start = if self.cursor >= end { 0 } else { self.cursor };
        self.cursor = start + span;
        let now = self.now;
        let mut fired = Vec::new();
        for index in start..(start + span).min(end) {
            if let Some(slot) = self.slots.get_mut(index)
                && slot.due <= now
                && slot.expired.is_none()
            {
                slot.expired = Some(Expired::TimedOut);
                fired.extend(slot.waker.take());
            }
        }
        fired
    }

    pub(super) fn end_longest_idle(&mut self) -> Option<Waker> {
        let is_idle =
            |slot: &Slot| slot.due_in_drain != u64::MAX && slot.expired.is_none() && slot.waker.is_some();
        let idle = self.slots.iter_mut().map(|(_, slot)| slot).filter(|slot| is_idle(slot));
        let longest = idle.min_by_key(|slot| slot.due)?;
        longest.expired = Some(Expired::Drained);
        longest.waker.take()
    }

    pub(super) fn enter(&mut self, stage: Stage) -> Vec<Waker> {
        self.stage = stage;
        let now = self.now;
        let mut fired = Vec::new();
        for (_, slot) in &mut self.slots {
            if slot.expired.is_none() && slot.ends_in(stage) {
                slot.drain(now);
                fired.extend(slot.expired.and_then(|_| slot.waker.take()));
            }
        }
        fired
    }
}
