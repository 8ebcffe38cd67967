//! Earlier weirs, whose place this one has taken, and which finish what they had begun.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// One of them.
#[derive(Debug, Clone)]
pub struct Predecessor {
    pub pid: u32,
    /// pidfd_open(2): readable when it has ended. The number alone may come to be somebody else's.
    pub process: Arc<OwnedFd>,
}

/// All of them that haven't ended.
#[derive(Debug, Default)]
pub struct Predecessors(Mutex<Vec<Predecessor>>);

impl Predecessors {
    pub(crate) fn new(all: Vec<Predecessor>) -> Self {
        Self(Mutex::new(all))
    }

    #[must_use]
    pub fn all(&self) -> Vec<Predecessor> {
        self.lock().clone()
    }

    /// Of those that run at this moment.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let all = self.lock();
        all.iter().filter(|one| !one.ends_within(Duration::ZERO)).map(|one| one.pid).collect()
    }

    /// Forgets those that have ended since the last call, and gives their numbers.
    pub fn take_ended(&self) -> Vec<u32> {
        let mut all = self.lock();
        let (ended, running) = all.drain(..).partition(|one| one.ends_within(Duration::ZERO));
        *all = running;
        let ended: Vec<Predecessor> = ended;
        ended.iter().map(|one| one.pid).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Predecessor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Predecessor {
    /// Waits for its end no longer than that; whether it has ended.
    #[must_use]
    pub fn ends_within(&self, limit: Duration) -> bool {
        let mut watched = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
        // An error is a signal's: it is looked again.
        poll(&mut watched, limit).is_ok_and(|ready| ready > 0)
    }
}
