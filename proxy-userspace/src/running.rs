//! What runs: the state that the control plane shows, and that starting and stopping change.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::net::stream::Admission;
use crate::policy::acl::Acl;
use crate::redirect::{Redirect, RedirectError, monotonic_ns};
use crate::telemetry::flows::Flows;

/// A running weir.
pub struct Running {
    pub config: Arc<Config>,
    /// Where the explicit proxy listens.
    pub proxy: SocketAddr,
    pub started: Instant,
    pub admission: Arc<Admission>,
    pub flows: Arc<Flows>,
    pub beats: Arc<Beats>,
    pub acl: Acl,
    pub capture: Mutex<Capture>,
}

/// Whether and what weir captures.
pub enum Capture {
    /// `capture.mode: off`.
    Off,
    /// It can't, and why.
    Unavailable(RedirectError),
    On(Box<Redirect>),
    /// weir is stopping.
    Detached,
}

impl Running {
    /// The capture state, locked.
    pub fn capture(&self) -> MutexGuard<'_, Capture> {
        self.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When each worker ticked last.
#[derive(Debug)]
pub struct Beats(Box<[AtomicU64]>);

impl Beats {
    pub(crate) fn new(workers: usize) -> io::Result<Arc<Self>> {
        let now = monotonic_ns()?;
        Ok(Arc::new(Self((0..workers).map(|_| AtomicU64::new(now)).collect())))
    }

    /// Notes that a worker ticks now.
    pub fn beat(&self, worker: usize) {
        if let (Some(slot), Ok(now)) = (self.0.get(worker), monotonic_ns()) {
            slot.store(now, Ordering::Relaxed);
        }
    }

    /// The time since the slowest worker's last tick.
    #[must_use]
    pub fn age(&self) -> Duration {
        monotonic_ns().map_or(Duration::MAX, |now| Duration::from_nanos(now.saturating_sub(self.oldest())))
    }

    /// The oldest of the workers' last ticks, CLOCK_MONOTONIC in nanoseconds.
    pub(crate) fn oldest(&self) -> u64 {
        self.0.iter().map(|slot| slot.load(Ordering::Relaxed)).min().unwrap_or(0)
    }
}
