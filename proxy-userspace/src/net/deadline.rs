//! Coarse deadlines: one table per worker thread, looked through by the worker's tick.
//!
//! A connection sets and moves its deadline for every message it relays; a timer wheel would pay a lock and
//! a re-insertion each time. Here that is one store, and the tick finds what is overdue. The price is
//! precision: a deadline fires up to [`TICK`] (up to [`SWEEP_PERIOD`] with many connections) late.
//! Short waits use tokio's timers instead.

mod table;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;

use table::{Slot, Stage, Table};

/// How often a worker ticks: deadlines advance, and the kernel half hears a heartbeat.
pub const TICK: Duration = Duration::from_millis(100);

/// The longest time between two looks at the same deadline.
pub const SWEEP_PERIOD: Duration = Duration::from_millis(500);

/// Why a wait ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// The time is up.
    TimedOut,
    /// weir drains, and nothing was under way.
    Drained,
}

/// One deadline of one connection. Belongs to the thread that made it.
#[derive(Debug)]
pub struct Deadline {
    slot: usize,
    // Not Send: the slot is an index into this thread's table.
    thread: std::marker::PhantomData<*const ()>,
}

impl Deadline {
    /// A deadline that is not armed.
    #[must_use]
    pub fn new() -> Self {
        let slot = TABLE.with_borrow_mut(|table| table.slots.insert(Slot::default()));
        Self { slot, thread: std::marker::PhantomData }
    }

    /// Fires `after` from now; replaces what was set before.
    pub fn arm(&self, after: Duration) {
        self.set(after, None, false);
    }

    /// As [`Deadline::arm`], for a wait in which nothing is under way: into a drain or a retirement it lasts no longer
    /// than `in_drain` from now.
    pub fn arm_idle(&self, after: Duration, in_drain: Duration) {
        self.set(after, Some(in_drain), true);
    }

    /// Whether it was armed before: a connection whose deadline never was has not asked for anything yet.
    #[must_use]
    pub fn was_armed(&self) -> bool {
        TABLE.with_borrow(|table| table.slots[self.slot].due != u64::MAX)
    }

    /// Ready once the deadline has passed; otherwise wakes the task when it does.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<Expired> {
        TABLE.with_borrow_mut(|table| {
            let slot = &mut table.slots[self.slot];
            if let Some(expired) = slot.expired {
                return Poll::Ready(expired);
            }
            if !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                slot.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    /// `future`, but no longer than `after`.
    ///
    /// # Errors
    /// [`Expired`] if the time was up first.
    pub fn limit<F: Future>(&self, after: Duration, future: F) -> Limited<'_, F> {
        self.arm(after);
        self.race(future)
    }

    /// `future`, a wait in which nothing is under way: no longer than `after`, and into a drain no longer than
    /// `in_drain`. A retirement lets it be: the peer, which can't be told, may be about to ask.
    ///
    /// # Errors
    /// [`Expired`] if the time was up or a drain ended it first.
    pub fn limit_idle<F: Future>(&self, after: Duration, in_drain: Duration, future: F) -> Limited<'_, F> {
        self.set(after, Some(in_drain), false);
        self.race(future)
    }

    /// `future`, until the deadline that was armed before.
    ///
    /// # Errors
    /// [`Expired`] if that passed first.
    pub fn race<F: Future>(&self, future: F) -> Limited<'_, F> {
        Limited { deadline: self, future }
    }

    fn set(&self, after: Duration, in_drain: Option<Duration>, retires: bool) {
        TABLE.with_borrow_mut(|table| {
            let due_in_drain = match in_drain {
                None => u64::MAX,
                Some(Duration::ZERO) => table.now,
                Some(in_drain) => table.due(in_drain),
            };
            let (due, now, stage) = (table.due(after), table.now, table.stage);
            let slot = &mut table.slots[self.slot];
            (slot.due, slot.due_in_drain, slot.retires, slot.expired) = (due, due_in_drain, retires, None);
            if slot.ends_in(stage) {
                slot.drain(now);
            }
        });
    }
}

pin_project! {
    /// A wait with a bound. A struct, since an `async fn` would hold the future that it is given twice: these nest, and the
    /// state of a request is moved in memory for each one.
    #[derive(Debug)]
    #[must_use = "a wait does nothing unless it is awaited"]
    pub struct Limited<'a, F> {
        deadline: &'a Deadline,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Limited<'_, F> {
    type Output = Result<F::Output, Expired>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let wait = self.project();
        if let Poll::Ready(value) = wait.future.poll(cx) {
            return Poll::Ready(Ok(value));
        }
        wait.deadline.poll_expired(cx).map(Err)
    }
}

impl Default for Deadline {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // The thread's table may be gone already while the thread ends; then so is the slot.
        let _ = TABLE.try_with(|table| table.borrow_mut().slots.try_remove(self.slot));
    }
}

/// One tick of this thread: fires what is overdue.
pub fn tick() {
    let fired = TABLE.with_borrow_mut(Table::sweep);
    fired.into_iter().for_each(Waker::wake);
}

/// Ticks of this thread so far: what a clock that asks the kernel for nothing says.
#[must_use]
pub fn ticks() -> u64 {
    TABLE.with_borrow(|table| table.now)
}

/// Ends waits in which nothing is under way on this thread, now and from now on.
pub fn drain() {
    enter(Stage::Draining);
}

/// As [`drain`], but only where the peer can be told, as in HTTP/2. Others are answered once more: see [`is_retired`].
pub fn retire() {
    enter(Stage::Retired);
}

/// Whether no connection of this thread is to be kept after what it is asked now.
pub fn is_retired() -> bool {
    TABLE.with_borrow(|table| table.stage > Stage::Serving)
}

fn enter(stage: Stage) {
    let fired = TABLE.with_borrow_mut(|table| table.enter(stage));
    fired.into_iter().for_each(Waker::wake);
}

/// Ends the wait in which nothing has been under way for longest on this thread, as a drain would. False: there is none.
pub fn end_longest_idle() -> bool {
    match TABLE.with_borrow_mut(Table::end_longest_idle) {
        Some(waker) => {
            waker.wake();
            true
        }
        None => false,
    }
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::new(Table::default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    /// Runs `ticks` ticks, then says how a wait of `after` stands.
    fn check(
        after: Duration,
        in_drain: Option<Duration>,
        ticks: u64,
        drain_first: bool,
        expected: Option<Expired>,
    ) {
        std::thread::spawn(move || {
            let deadline = Deadline::new();
            let wait = async {
                match in_drain {
                    Some(in_drain) => deadline.limit_idle(after, in_drain, pending::<()>()).await,
                    None => deadline.limit(after, pending::<()>()).await,
                }
            };
            let mut wait = std::pin::pin!(wait);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(wait.as_mut().poll(&mut cx).is_pending());
            if drain_first {
                drain();
            }
            (0..ticks).for_each(|_| tick());
            let state = match wait.as_mut().poll(&mut cx) {
                Poll::Ready(Err(expired)) => Some(expired),
                Poll::Ready(Ok(())) => unreachable!("the future never ends"),
                Poll::Pending => None,
            };
            assert_eq!(state, expected);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn fires_after_its_time_and_not_before() {
        check(TICK * 3, None, 3, false, None);
        check(TICK * 3, None, 4, false, Some(Expired::TimedOut));
        // No multiple of a tick: rounded up, or it would fire early.
        check(TICK * 3 / 2, None, 2, false, None);
        check(TICK * 3 / 2, None, 3, false, Some(Expired::TimedOut));
    }

    #[test]
    fn a_drain_shortens_waits_in_which_nothing_is_under_way() {
        let (long, short) = (TICK * 30, TICK * 3);
        check(long, Some(Duration::ZERO), 0, true, Some(Expired::Drained));
        check(long, Some(Duration::ZERO), 30, false, None);
        check(long, Some(short), 3, true, None);
        check(long, Some(short), 4, true, Some(Expired::TimedOut));
        check(short, Some(long), 4, true, Some(Expired::TimedOut));
        check(long, None, 30, true, None);
    }

    #[test]
    fn a_retirement_ends_what_can_tell_its_peer() {
        std::thread::spawn(|| {
            let mut cx = Context::from_waker(Waker::noop());
            let (told, kept) = (Deadline::new(), Deadline::new());
            told.arm_idle(TICK, Duration::ZERO);
            let mut wait = std::pin::pin!(kept.limit_idle(TICK, Duration::ZERO, pending::<()>()));
            assert!(!is_retired());
            retire();
            assert!(is_retired());
            assert_eq!(told.poll_expired(&mut cx), Poll::Ready(Expired::Drained));
            assert!(wait.as_mut().poll(&mut cx).is_pending());
            drain();
            assert!(wait.as_mut().poll(&mut cx).is_ready());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_longest_idle_wait_can_be_ended() {
        std::thread::spawn(|| {
            let mut cx = Context::from_waker(Waker::noop());
            let (busy, older, newer) = (Deadline::new(), Deadline::new(), Deadline::new());
            busy.arm(TICK);
            older.arm_idle(TICK * 3, Duration::ZERO);
            newer.arm_idle(TICK * 4, TICK);
            let mut states =
                || [&busy, &older, &newer].map(|deadline| deadline.poll_expired(&mut cx).is_ready());
            assert_eq!(states(), [false, false, false]);
            assert!(end_longest_idle());
            assert_eq!(states(), [false, true, false]);
            assert!(end_longest_idle() && !end_longest_idle());
            assert_eq!(states(), [false, true, true]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn every_deadline_of_a_large_table_is_seen_within_the_sweep_period() {
        std::thread::spawn(|| {
            let deadlines: Vec<_> = (0..10_000).map(|_| Deadline::new()).collect();
            deadlines.iter().for_each(|deadline| deadline.arm(Duration::ZERO));
            (0..=SWEEP_PERIOD.as_millis() / TICK.as_millis() + 1).for_each(|_| tick());
            let mut cx = Context::from_waker(Waker::noop());
            assert!(deadlines.iter().all(|deadline| deadline.poll_expired(&mut cx).is_ready()));
        })
        .join()
        .unwrap();
    }
}
