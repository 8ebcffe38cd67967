//! Changes of what is captured, which another weir is told of only once: when it is, none may be under way, and from then
//! on none may begin here.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whether changes may begin.
#[derive(Debug, Default)]
pub struct Changes {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    closed: bool,
}

/// A change that is under way until the last copy of this is dropped.
#[derive(Debug, Clone)]
pub struct Change {
    _ended_when_dropped: Arc<UnderWay>,
}

#[derive(Debug)]
struct UnderWay(Arc<Changes>);

impl Changes {
    /// None: another weir decides by now, or is about to.
    pub fn begin(self: &Arc<Self>) -> Option<Change> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        state.under_way += 1;
        Some(Change { _ended_when_dropped: Arc::new(UnderWay(Arc::clone(self))) })
    }

    /// Lets none begin any more, and blocks until those under way have ended. False if they don't in time; then all is as
    /// it was.
    pub fn close(&self, patience: Duration) -> bool {
        let mut state = self.state();
        state.closed = true;
        let waited = self.ended.wait_timeout_while(state, patience, |state| state.under_way > 0);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        state.closed = !waited.timed_out();
        state.closed
    }

    /// The other weir did not come.
    pub fn reopen(&self) {
        self.state().closed = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_closes_waits_for_what_is_under_way() {
        let changes = Arc::new(Changes::default());
        let change = changes.begin().unwrap();
        let copy = change.clone();
        drop(change);
        assert!(!changes.close(Duration::ZERO), "one is under way");
        drop(changes.begin().unwrap());
        let closing = std::thread::spawn({
            let changes = Arc::clone(&changes);
            move || changes.close(Duration::MAX)
        });
        while changes.begin().is_some() {
            std::thread::yield_now();
        }
        assert!(!closing.is_finished());
        drop(copy);
        assert!(closing.join().unwrap());
        assert!(changes.begin().is_none());
        changes.reopen();
        assert!(changes.begin().is_some());
    }
}
