//! What captured cgroups are called, for whoever serves their connections. Each worker has its own copy.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::target::Container;

/// Containers by the id of their cgroup.
pub(super) type ByCgroup = Arc<HashMap<u64, Arc<Container>>>;

/// One worker's copy.
#[derive(Debug)]
pub struct Names {
    source: RefCell<watch::Receiver<ByCgroup>>,
    copy: RefCell<ByCgroup>,
}

impl Names {
    pub(super) fn new(source: watch::Receiver<ByCgroup>) -> Self {
        let copy = RefCell::new(Arc::clone(&source.borrow()));
        Self { source: RefCell::new(source), copy }
    }

    /// The container whose processes live in that cgroup.
    #[must_use]
    pub fn of(&self, cgroup: u64) -> Option<Arc<Container>> {
        let mut source = self.source.borrow_mut();
        // An error means that weir is going: what was known last is still right.
        if source.has_changed().unwrap_or(false) {
            *self.copy.borrow_mut() = Arc::clone(&source.borrow_and_update());
        }
        self.copy.borrow().get(&cgroup).cloned()
    }
}
