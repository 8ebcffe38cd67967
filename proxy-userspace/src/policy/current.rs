//! A value that is replaced as a whole while workers use it: each has its own copy of the reference, and asks one
//! counter, which nobody writes but a reload, whether there is a newer one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The place of the value.
#[derive(Debug)]
pub struct Shared<T> {
    latest: RwLock<Arc<T>>,
    generation: AtomicU64,
}

impl<T> Shared<T> {
    /// With its first value.
    #[must_use]
    pub fn new(value: T) -> Arc<Self> {
        Arc::new(Self { latest: RwLock::new(Arc::new(value)), generation: AtomicU64::new(0) })
    }

    /// Puts another in its place. Who uses the former one goes on with it.
    pub fn replace(&self, value: T) {
        *self.latest.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The value of now.
    #[must_use]
    pub fn latest(&self) -> Arc<T> {
        Arc::clone(&self.latest.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// For one worker.
    #[must_use]
    pub fn follow(self: &Arc<Self>) -> Follower<T> {
        // Read before the value: at worst it is fetched once more.
        let seen = Cell::new(self.generation.load(Ordering::Acquire));
        Follower { held: RefCell::new(Rc::new(self.latest())), seen, shared: Arc::clone(self) }
    }
}

/// The shared reference behind one that costs its worker nothing to copy.
type Held<T> = Rc<Arc<T>>;

/// One worker's reference.
#[derive(Debug)]
pub struct Follower<T> {
    shared: Arc<Shared<T>>,
    seen: Cell<u64>,
    held: RefCell<Held<T>>,
}

impl<T> Follower<T> {
    /// The value of now.
    #[must_use]
    pub fn current(&self) -> Held<T> {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation != self.seen.get() {
            self.seen.set(generation);
            *self.held.borrow_mut() = Rc::new(self.shared.latest());
        }
        Rc::clone(&self.held.borrow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_sees_what_is_replaced() {
        let shared = Shared::new(1);
        let (one, other) = (shared.follow(), shared.follow());
        let held = one.current();
        shared.replace(2);
        assert_eq!((**held, **one.current(), **other.current(), *shared.latest()), (1, 2, 2, 2));
    }
}
