//! A worker's engine when the configuration is read again: another one takes its place. What has begun goes on with the
//! one that it began with; what comes next is served by the newest, on connections that there are as well.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use super::Engine;

/// The place of a worker's engine.
#[derive(Debug)]
pub struct Engines {
    newest: RefCell<Rc<Engine>>,
}

impl Engines {
    /// With its first engine.
    #[must_use]
    pub fn new(first: impl FnOnce(Weak<Self>) -> Engine) -> Rc<Self> {
        Rc::new_cyclic(|place| Self { newest: RefCell::new(Rc::new(first(place.clone()))) })
    }

    #[must_use]
    pub fn newest(&self) -> Rc<Engine> {
        Rc::clone(&self.newest.borrow())
    }

    /// Puts another engine into the place.
    pub fn replace(self: &Rc<Self>, next: impl FnOnce(Weak<Self>) -> Engine) {
        *self.newest.borrow_mut() = Rc::new(next(Rc::downgrade(self)));
    }
}

impl Engine {
    /// The engine that has this one's place by now; most often itself.
    #[must_use]
    pub fn newest(self: &Rc<Self>) -> Rc<Self> {
        // Without a place the worker is ending.
        self.place.upgrade().map_or_else(|| Rc::clone(self), |place| place.newest())
    }
}
