//! What runs: the state that the control plane shows, and that starting and stopping change.

mod live;
mod predecessors;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast, mpsc, oneshot};

use crate::cache::Cache;
use crate::config::{Config, Sources};
use crate::containers::{Namespaces, Targets};
use crate::execute::Executor;
use crate::net::admission::Admission;
use crate::policy::Policy;
use crate::policy::auth::Auth;
use crate::policy::current::Shared;
use crate::redirect::{Decision, Heartbeat, Redirect, RedirectError, monotonic_ns};
use crate::services::Services;
use crate::telemetry::flows::Flows;

pub use live::{Live, NotReloaded, NotStarted, Reloaded, Reloads, Wish};
pub use predecessors::{Predecessor, Predecessors};

/// A running weir.
pub struct Running {
    /// Replaced by the one task that changes what runs.
    pub live: Arc<Shared<Live>>,
    /// Where the configuration came from: to read it again.
    pub sources: Sources,
    /// Held while it is read again: two at a time would overtake one another.
    pub reloading: tokio::sync::Mutex<()>,
    pub reloads: Mutex<Reloads>,
    /// Where to ask for what changes what runs.
    pub wishes: mpsc::Sender<Wish>,
    /// Where the admin API listens for TCP.
    pub admin: SocketAddr,
    pub started: Instant,
    pub admission: Arc<Admission>,
    pub flows: Arc<Flows>,
    pub beats: Arc<Beats>,
    /// Replaced when the configuration is read again.
    pub policy: Arc<Shared<Policy>>,
    pub auth: Arc<Auth>,
    pub capture: Mutex<Capture>,
    /// Who follows the kernel half's decisions.
    pub following: Following,
    pub namespaces: Arc<Namespaces>,
    pub targets: Arc<Targets>,
    /// Apps that the gateway serves.
    pub services: Arc<Services>,
    /// None where nothing is cached.
    pub cache: Option<Arc<Cache>>,
    /// None where no commands are run.
    pub commands: RwLock<Option<Arc<Executor>>>,
    /// Where to ask for another weir in this one's place.
    pub upgrades: mpsc::Sender<Upgrade>,
    /// Another weir has been told what is captured: a change would be known to one of the two only.
    pub handing_over: AtomicBool,
    pub predecessors: Predecessors,
}

/// How far weir has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It is about to take another weir's place.
    Starting,
    Serving,
    /// Another weir has taken its place; what has begun here ends here.
    Replaced {
        /// That one accepts from the same explicit listeners.
        keeps_door: bool,
    },
    Stopping,
}

/// The wish for another weir in this one's place.
#[derive(Debug)]
pub struct Upgrade {
    /// Default: what this one was started as.
    pub binary: Option<PathBuf>,
    /// The new one's process, or why there is none.
    pub answer: oneshot::Sender<Result<u32, NotUpgraded>>,
}

impl Upgrade {
    /// There is one under way.
    pub fn refuse(self) {
        // Who has asked may have gone.
        let _ = self.answer.send(Err(NotUpgraded::UnderWay));
    }
}

/// Why there is no other weir.
#[derive(Debug, thiserror::Error)]
pub enum NotUpgraded {
    #[error("an upgrade is under way already; `weir status` tells which weir serves")]
    UnderWay,
    #[error("{0}")]
    Failed(String),
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

    /// The capture state, locked, in order to change what is captured: not while it is being handed over.
    pub async fn capture_to_change(&self) -> MutexGuard<'_, Capture> {
        loop {
            {
                let capture = self.capture();
                if !self.handing_over.load(Ordering::Relaxed) {
                    return capture;
                }
            }
            tokio::time::sleep(HANDING_OVER_LOOK).await;
        }
    }

    /// What holds now.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        self.live.latest()
    }

    /// The configuration that holds now.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.live().config)
    }

    pub fn set_live(&self, next: impl FnOnce(&Live) -> Live) {
        self.live.replace(next(&self.live()));
    }

    /// What runs commands, if they are run.
    #[must_use]
    pub fn executor(&self) -> Option<Arc<Executor>> {
        self.commands.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Commands are run by another one from now on; those that run go on, and count.
    pub fn replace_executor(&self, next: Option<Executor>) {
        let mut executor = self.commands.write().unwrap_or_else(PoisonError::into_inner);
        *executor = match (executor.take(), next) {
            (Some(last), Some(next)) => Some(Arc::new(next.after(&last))),
            (_, next) => next.map(Arc::new),
        };
    }

    /// Asks the task that changes what runs, and waits for its answer. None: weir is stopping, or has been replaced.
    pub async fn ask<T>(&self, wish: Wish, answer: oneshot::Receiver<T>) -> Option<T> {
        self.wishes.send(wish).await.ok()?;
        answer.await.ok()
    }

    /// How reading the configuration again went so far.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of how it went this time.
    pub fn note_reload(&self, result: &Result<Reloaded, NotReloaded>) {
        let mut reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(reloaded) => {
                reloads.reloads += 1;
                reloads.last_error = None;
                // What was changed before still waits, unless it was changed back.
                reloads.needs_restart.extend(reloaded.needs_restart.iter().cloned());
                reloads.needs_restart.sort();
                reloads.needs_restart.dedup();
            }
            Err(error) => {
                reloads.failures += 1;
                reloads.last_error = Some(error.to_string());
            }
        }
    }
}

/// The followers of the kernel half's decisions.
pub struct Following {
    sender: broadcast::Sender<Arc<Decision>>,
    begun: Notify,
}

impl Following {
    /// Nobody yet.
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::Sender::new(DECISIONS_KEPT), begun: Notify::new() }
    }

    /// One more. Dropped, it is one less.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Decision>> {
        let follower = self.sender.subscribe();
        self.begun.notify_one();
        follower
    }

    /// Ready when somebody has begun to follow.
    pub async fn begun(&self) {
        self.begun.notified().await;
    }

    pub fn is_followed(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Tells all of them.
    pub fn tell(&self, decision: Decision) {
        // An error means that the last one has just gone.
        let _ = self.sender.send(Arc::new(decision));
    }
}

/// Decisions that a follower may be behind.
const DECISIONS_KEPT: usize = 1024;

/// How often it is looked whether another weir has taken over.
const HANDING_OVER_LOOK: Duration = Duration::from_millis(5);

/// How often it is looked whether all have ticked.
const BEGUN_LOOK: Duration = Duration::from_millis(1);

/// The sign of life that the kernel half waits for. Each worker notes the time of its ticks, and tells the kernel
/// the oldest of all workers' last ticks. So a process that is stopped, and one worker that is stuck, both make
/// the beat old, and the kernel stops redirecting.
pub struct Beats {
    ticks: Box<[AtomicU64]>,
    kernel: Option<Heartbeat>,
}

impl Beats {
    /// No worker has ticked yet: until each has, weir is neither ready nor alive to the kernel.
    pub(crate) fn new(workers: usize, kernel: Option<Heartbeat>) -> Arc<Self> {
        Arc::new(Self { ticks: (0..workers).map(|_| AtomicU64::new(0)).collect(), kernel })
    }

    /// Notes that a worker ticks now, and tells the kernel.
    ///
    /// # Errors
    /// The kernel does not take it: it will hold weir for dead.
    pub fn beat(&self, worker: usize) -> io::Result<()> {
        if let Some(tick) = self.ticks.get(worker) {
            tick.store(monotonic_ns()?, Ordering::Relaxed);
        }
        match (&self.kernel, self.oldest()) {
            // Until each has ticked, the beat that was given at the start counts, as long as it may.
            (None, _) | (_, 0) => Ok(()),
            (Some(kernel), oldest) => kernel.beat(oldest),
        }
    }

    /// Ready when each has ticked.
    pub async fn begun(&self) {
        while self.oldest() == 0 {
            tokio::time::sleep(BEGUN_LOOK).await;
        }
    }

    /// The time since the slowest worker's last tick; since the machine's start if it never ticked.
    #[must_use]
    pub fn age(&self) -> Duration {
        monotonic_ns().map_or(Duration::MAX, |now| Duration::from_nanos(now.saturating_sub(self.oldest())))
    }

    fn oldest(&self) -> u64 {
        self.ticks.iter().map(|tick| tick.load(Ordering::Relaxed)).min().unwrap_or(0)
    }
}
