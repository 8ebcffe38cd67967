//! The process of a weir that is to take over: how it is started, and ended if it does not.

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::privilege;

/// As `weir serve` knows it.
const TAKE_OVER: &str = "--take-over";

/// How long a weir that failed may take to end by itself, so that its exit code can be told.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

/// It leads a process group of its own: whatever it has started ends with it if it fails. When it has taken over, that is
/// a daemon's place: what a terminal sends to the job that the old weir is (Ctrl-C) is for the old one, and a supervisor
/// goes by unit or pid.
pub(super) struct Starting {
    child: Child,
    pid: Pid,
}

impl Starting {
    /// With this process's own arguments and environment. Its log goes where this one's goes.
    ///
    /// # Errors
    /// The program that can't be started, and why.
    pub(super) fn start(binary: Option<&Path>, stream: UnixStream) -> Result<Self, (PathBuf, io::Error)> {
        let mut arguments = env::args_os();
        let own = arguments.next().map_or_else(|| "weir".into(), PathBuf::from);
        let program = binary.map_or(own, Path::to_path_buf);
        let arguments = arguments.filter(|argument| argument != TAKE_OVER);
        let mut command = Command::new(&program);
        command.args(arguments).arg(TAKE_OVER).stdin(OwnedFd::from(stream)).process_group(0);
        let started = privilege::pass_on(|| command.spawn()).map_err(io::Error::other);
        let starting = started.flatten().and_then(|child| {
            let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
            Ok(Self { child, pid: Pid::from_raw(pid) })
        });
        starting.map_err(|error| (program, error))
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Kills the one of that pid, for which nobody has waited yet, with all that it has started.
    pub(super) fn kill(pid: Pid) {
        // It may have ended by itself, and have left nobody.
        let _ = killpg(pid, Signal::SIGKILL);
    }

    /// It has taken over: nobody else can wait for its end.
    pub(super) fn leave(mut self) {
        std::thread::spawn(move || self.child.wait());
    }

    /// Waits for a little while, then ends it and what it has started. How it ended, for people.
    pub(super) fn end(mut self) -> String {
        let deadline = Instant::now() + LAST_WORDS;
        // Waited for, its number would be free for others.
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let ended_itself = loop {
            if !matches!(waitid(Id::Pid(self.pid), look), Ok(WaitStatus::StillAlive)) {
                break true;
            }
            if Instant::now() >= deadline {
                break false;
            }
            std::thread::sleep(LOOK);
        };
        Self::kill(self.pid);
        match self.child.wait() {
            Ok(status) if ended_itself => format!("ended with {status}"),
            _ => "was ended".to_owned(),
        }
    }
}
