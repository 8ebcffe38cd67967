//! The sign of life that the kernel half waits for. Each worker notes the time of its ticks; a thread of its
//! own tells the kernel the oldest of them. So a process that is stopped, and a worker that is stuck, both
//! make the beat old, and the kernel stops redirecting.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::net::deadline::TICK;
use crate::redirect::{Heartbeat, monotonic_ns};

/// When each worker ticked last.
#[derive(Debug)]
pub struct Beats(Box<[AtomicU64]>);

impl Beats {
    pub(super) fn new(workers: usize) -> io::Result<Arc<Self>> {
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

    fn oldest(&self) -> u64 {
        self.0.iter().map(|slot| slot.load(Ordering::Relaxed)).min().unwrap_or(0)
    }
}

/// The beating thread.
#[derive(Debug)]
pub(super) struct Beating {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

pub(super) fn start(beats: Arc<Beats>, kernel: Option<Heartbeat>) -> io::Result<Beating> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::Builder::new().name("weir-heartbeat".into()).spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            if let Some(kernel) = &kernel
                && let Err(error) = kernel.beat(beats.oldest())
            {
                tracing::error!(%error, "the kernel half does not take the heartbeat");
            }
            std::thread::sleep(TICK);
        }
    })?;
    Ok(Beating { stop, thread })
}

impl Beating {
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic in there was reported by the panic hook.
        let _ = self.thread.join();
    }
}
