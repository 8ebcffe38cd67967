//! Network namespaces, from the first captured process in one to the last process of any kind.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::time::Instant;

use crate::containers::EnterError;
use crate::netns::{Namespace, NetnsId, open_process};
use crate::redirect::Redirect;
use crate::running::{Capture, Running};

/// How often it is looked whether a process inside, and later the last connections, have ended.
const LOOK: Duration = Duration::from_millis(100);

/// Sees to it that what the process connects to can be captured: weir then listens in its network namespace, too, as
/// long as anybody lives there. To be called on the control plane's runtime.
///
/// # Errors
/// [`EnterError`]
pub fn enter(running: &Arc<Running>, redirect: &Redirect, pid: u32) -> Result<(), EnterError> {
    // Open before it is entered: if the process ends meanwhile, that is seen.
    let process = open_process(pid).map_err(|source| EnterError::Unseen { pid, source })?;
    let Some(namespace) = running.namespaces.enter(redirect, pid)? else { return Ok(()) };
    tracing::debug!(pid, inode = namespace.id().inode(), "listening in a network namespace");
    tokio::spawn(leave_when_empty(namespace, process, Arc::clone(running)));
    Ok(())
}

async fn leave_when_empty(namespace: Arc<Namespace>, process: OwnedFd, running: Arc<Running>) {
    let mut inhabitant = Some(process);
    while let Some(process) = inhabitant {
        while !has_ended(&process) {
            tokio::time::sleep(LOOK).await;
        }
        inhabitant = inhabitant_of(namespace.id());
    }
    if let Capture::On(redirect) = &*running.capture() {
        running.namespaces.leave(redirect, &namespace);
    }
    // What the last process wrote may still be on its way, and arrives if the namespace is kept by others, too.
    let deadline = Instant::now() + running.config().server.timeouts.drain;
    while namespace.waiting() > 0 && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
    namespace.end();
    tracing::debug!(inode = namespace.id().inode(), "left a network namespace");
}

/// pidfd_open(2): readable when the process has ended.
fn has_ended(process: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    // An error is a signal's: it is looked again.
    poll(&mut watched, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// A process that lives there. Read from /proc, where weir's own thread inside does not show: it is no process.
fn inhabitant_of(id: NetnsId) -> Option<OwnedFd> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find_map(|pid| {
        let process = open_process(pid).ok()?;
        (NetnsId::of_process(pid).ok()? == id).then_some(process)
    })
}
