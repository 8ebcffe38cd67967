//! The sign of life that the kernel half waits for. Each worker notes the time of its ticks; a thread of its
//! own tells the kernel the oldest of them. So a process that is stopped, and a worker that is stuck, both
//! make the beat old, and the kernel stops redirecting.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::net::deadline::TICK;
use crate::redirect::Heartbeat;
use crate::running::Beats;

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
