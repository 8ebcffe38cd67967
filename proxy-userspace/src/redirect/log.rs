//! Debug output of the kernel half (`capture.kernel_log`): a thread that hands the programs' records to tracing.
//! Not for events people rely on: the ring drops records when it is full.
#![forbid(unsafe_code)]

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use aya_log::EbpfLogger;
use nix::poll::{PollFd, PollFlags, poll};

/// How long the thread may take to notice that it should end, in milliseconds.
const STOP_INTERVAL: u16 = 200;

/// The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct KernelLog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl KernelLog {
    pub(super) fn start(ebpf: &mut aya::Ebpf) -> std::io::Result<Self> {
        let mut logger = EbpfLogger::init_with_logger(ebpf, ToTracing).map_err(std::io::Error::other)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("kernel-log".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A failed poll (EINTR) only means to look now.
                let _ = poll(&mut [PollFd::new(logger.as_fd(), PollFlags::POLLIN)], STOP_INTERVAL);
                logger.flush();
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for KernelLog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It can only have panicked in the subscriber; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

struct ToTracing;

impl ::log::Log for ToTracing {
    fn enabled(&self, _: &::log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &::log::Record<'_>) {
        tracing::debug!(target: "weir::kernel", program = record.target(), "{}", record.args());
    }

    fn flush(&self) {}
}
