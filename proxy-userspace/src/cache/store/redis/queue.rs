//! What Redis is still to be told, in order. What is stored may be dropped; what is removed may not: until the server
//! knows of it, nobody is given what it has for that key.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::purge::Purge;

#[derive(Debug)]
pub(super) enum Order {
    Store {
        key: Key,
        entry: Arc<Entry>,
    },
    /// Several that came one after the other.
    Remove(Vec<Key>),
    Purge {
        purge: Purge,
        done: oneshot::Sender<HashSet<u128>>,
    },
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    orders: VecDeque<Order>,
    /// Of entries that wait.
    bytes: u64,
    /// Keys that are to be removed, and how often.
    owed: HashMap<Key, usize>,
    removals: usize,
    purges: usize,
    /// An order is being carried out; it is a purge.
    busy: bool,
    purging: bool,
}

/// Bytes of entries that may wait.
const MOST_BYTES: u64 = 32 << 20;

/// Removals that may wait. Beyond that, everything is to be removed.
const MOST_REMOVALS: usize = 100_000;
const MOST_PURGES: usize = 64;

/// Removals in one command.
const AT_ONCE: usize = 256;

impl Queue {
    /// Returns whether there was room.
    pub(super) fn store(&self, key: &Key, entry: &Arc<Entry>) -> bool {
        let mut state = self.state();
        let size = entry.weight();
        if state.bytes + size > MOST_BYTES {
            return false;
        }
        state.bytes += size;
        state.orders.push_back(Order::Store { key: key.clone(), entry: Arc::clone(entry) });
        drop(state);
        self.news.notify_one();
        true
    }

    pub(super) fn remove(&self, key: &Key) {
        let mut state = self.state();
        // Where nothing is stored meanwhile, once is enough.
        if state.bytes == 0 && state.owed.contains_key(key) && !state.busy {
            return;
        }
        if state.removals >= MOST_REMOVALS {
            state.forget_all();
        } else {
            state.removals += 1;
            *state.owed.entry(key.clone()).or_default() += 1;
            match state.orders.back_mut() {
                Some(Order::Remove(keys)) if keys.len() < AT_ONCE => keys.push(key.clone()),
                _ => state.orders.push_back(Order::Remove(vec![key.clone()])),
            }
        }
        drop(state);
        self.news.notify_one();
    }

    pub(super) fn purge(&self, purge: &Purge) -> oneshot::Receiver<HashSet<u128>> {
        let (done, result) = oneshot::channel();
        let mut state = self.state();
        if state.purges >= MOST_PURGES {
            state.forget_all();
        } else {
            state.purges += 1;
            state.orders.push_back(Order::Purge { purge: purge.clone(), done });
        }
        drop(state);
        self.news.notify_one();
        result
    }

    /// Whether the server may be believed about a key.
    pub(super) fn owes(&self, key: &Key) -> bool {
        let state = self.state();
        state.purges > 0 || state.owed.contains_key(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        let state = self.state();
        state.orders.is_empty() && !state.busy
    }

    /// The next order. It is to be given to [`Queue::done`] or [`Queue::put_back`].
    pub(super) async fn next(&self) -> Order {
        loop {
            if let Some(order) = self.take() {
                return order;
            }
            self.news.notified().await;
        }
    }

    /// The next order, if there is one.
    pub(super) fn take(&self) -> Option<Order> {
        let mut state = self.state();
        let order = state.orders.pop_front()?;
        if let Order::Store { entry, .. } = &order {
            state.bytes = state.bytes.saturating_sub(entry.weight());
        }
        (state.busy, state.purging) = (true, matches!(order, Order::Purge { .. }));
        Some(order)
    }

    /// An order has been carried out, or is not going to be.
    pub(super) fn done(&self, order: &Order) {
        let mut state = self.state();
        (state.busy, state.purging) = (false, false);
        match order {
            Order::Store { .. } => {}
            Order::Remove(keys) => keys.iter().for_each(|key| state.note_removed(key)),
            Order::Purge { .. } => state.purges = state.purges.saturating_sub(1),
        }
    }

    /// The server is gone: what was to be stored is dropped, the rest waits, and so does this.
    pub(super) fn put_back(&self, order: Order) {
        let mut state = self.state();
        (state.busy, state.purging) = (false, false);
        state.bytes = 0;
        state.orders.push_front(order);
        state.orders.retain(|order| !matches!(order, Order::Store { .. }));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note_removed(&mut self, key: &Key) {
        self.removals = self.removals.saturating_sub(1);
        if let Some(count) = self.owed.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.owed.remove(key);
            }
        }
    }

    /// Too much is owed to keep account of it.
    fn forget_all(&mut self) {
        let (done, _nobody) = oneshot::channel();
        self.orders.clear();
        self.owed.clear();
        (self.bytes, self.removals, self.purges) = (0, 0, 1 + usize::from(self.purging));
        self.orders.push_back(Order::Purge { purge: Purge::All, done });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::store::tests::{entry, key};

    #[tokio::test]
    async fn what_is_owed_is_not_believed_until_it_is_done() {
        let queue = Queue::default();
        assert!(queue.store(&key("/a"), &entry("1", b"x")));
        queue.remove(&key("/a"));
        assert!(queue.store(&key("/a"), &entry("1", b"y")));
        assert!(queue.owes(&key("/a")) && !queue.owes(&key("/b")));
        let first = queue.next().await;
        assert!(matches!(first, Order::Store { .. }));
        queue.done(&first);
        let second = queue.next().await;
        // The server has gone: what was to be stored after it is dropped.
        queue.put_back(second);
        assert!(queue.owes(&key("/a")));
        let again = queue.next().await;
        assert!(matches!(again, Order::Remove(_)));
        queue.done(&again);
        assert!(!queue.owes(&key("/a")) && queue.is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let queue = Queue::default();
        let large = entry("1", &[0; 1 << 20]);
        let stored = (0..100).filter(|_| queue.store(&key("/"), &large)).count();
        assert!((20..=32).contains(&stored), "{stored}");
        for number in 0..=MOST_REMOVALS {
            queue.remove(&key(&format!("/{number}")));
        }
        // Nothing is believed any more, and one order sees to it.
        assert!(queue.owes(&key("/other")));
        let all = queue.take().unwrap();
        assert!(matches!(all, Order::Purge { purge: Purge::All, .. }));
        assert!(queue.take().is_none());
        (0..=MOST_REMOVALS).for_each(|number| queue.remove(&key(&format!("/{number}"))));
        queue.done(&all);
        assert!(queue.owes(&key("/other")), "another one is owed since");
        queue.done(&queue.take().unwrap());
        assert!(!queue.owes(&key("/other")) && queue.is_empty());
    }
}
