//! The assistant, `weir assist`: a second, small process that keeps the privileges which weir gives up (`server.user`). It
//! opens other processes' network namespaces, makes sockets in them, tells what other users' processes execute and which
//! sockets they have, makes the folder for `weir exec` cgroups, and reads the files that it was told of at its start. It decides nothing, and answers nobody but weir; it ends with it.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::descriptors;

/// How long an answer may take; nothing that it does blocks.
const PATIENCE: Duration = Duration::from_secs(10);

/// weir's way to it.
#[derive(Debug)]
pub struct Assistant {
    stream: Mutex<UnixStream>,
    pid: u32,
}

/// What is asked of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The network namespace of a process.
    NetworkNamespace { pid: u32 },
    /// Which file a process executes.
    Executable { pid: u32 },
    /// Inode numbers of a process's sockets.
    Sockets { pid: u32 },
    /// A socket, as socket(2) takes it, in the namespace that comes with it.
    Socket { domain: i32, kind: i32, protocol: i32 },
    /// The folder for cgroups, which weir's user may then make itself.
    ExecFolder,
    /// A file to read.
    Open { path: PathBuf },
    /// Another way to ask, for the weir that takes over.
    Another,
}

/// A descriptor comes with it where one was asked for, or it says what went wrong: the errno.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) error: Option<i32>,
    pub(super) sockets: Vec<u64>,
}

/// What it is told at its start.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Duties {
    pub(super) user: u32,
    pub(super) group: u32,
    /// The attach cgroup, in which the folder may be made; none: nothing is captured.
    pub(super) cgroup: Option<PathBuf>,
    /// The files that may be read.
    pub(super) files: Vec<PathBuf>,
}

static ASSISTANT: OnceLock<Assistant> = OnceLock::new();

/// The one that runs. None: weir has whatever privilege it was started with.
#[must_use]
pub fn assistant() -> Option<&'static Assistant> {
    ASSISTANT.get()
}

/// Starts it. This process must be privileged still, and have no other thread that asks for anything.
///
/// # Errors
/// It can't be started, or does not answer.
pub(super) fn start(duties: &Duties) -> io::Result<()> {
    let (stream, its_end) = UnixStream::pair()?;
    // It ends when its stream does; weir ends with it being a zombie at most.
    let child = Command::new("/proc/self/exe")
        .arg0("weir")
        .arg("assist")
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(its_end))
        .stdout(Stdio::null())
        .spawn()?;
    descriptors::send(&stream, &serde_json::to_vec(duties)?, &[])?;
    adopt(stream, child.id())
}

/// Uses the one that an earlier weir has started.
///
/// # Errors
/// It does not answer.
pub fn adopt(stream: UnixStream, pid: u32) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let assistant = Assistant { stream: Mutex::new(stream), pid };
    // Whether it answers.
    assistant.another()?;
    ASSISTANT.set(assistant).map_err(|_| io::Error::other("there is one already"))
}

impl Assistant {
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The network namespace of a process, open.
    ///
    /// # Errors
    /// As open(2) of its file in /proc; or the assistant is gone.
    pub fn network_namespace(&self, pid: u32) -> io::Result<File> {
        self.ask(&Request::NetworkNamespace { pid }, None)?.map(File::from).ok_or_else(nothing)
    }

    /// Which file a process executes: a descriptor that can't be read.
    ///
    /// # Errors
    /// As open(2) of its link in /proc; or the assistant is gone.
    pub(super) fn executable(&self, pid: u32) -> io::Result<File> {
        self.ask(&Request::Executable { pid }, None)?.map(File::from).ok_or_else(nothing)
    }

    /// Inode numbers of a process's sockets.
    ///
    /// # Errors
    /// As open(2) of its folder in /proc; or the assistant is gone.
    pub(super) fn sockets(&self, pid: u32) -> io::Result<Vec<u64>> {
        self.exchange(&Request::Sockets { pid }, None).map(|(answer, _)| answer.sockets)
    }

    /// A socket of that namespace; the arguments are those of socket(2).
    ///
    /// # Errors
    /// As setns(2) and socket(2); or the assistant is gone.
    pub fn socket(
        &self,
        namespace: BorrowedFd<'_>,
        (domain, kind, protocol): (i32, i32, i32),
    ) -> io::Result<OwnedFd> {
        self.ask(&Request::Socket { domain, kind, protocol }, Some(namespace))?.ok_or_else(nothing)
    }

    /// Makes the folder for cgroups of `weir exec`, or makes it weir's user's.
    ///
    /// # Errors
    /// As mkdir(2) and chown(2); or the assistant is gone.
    pub fn make_exec_folder(&self) -> io::Result<()> {
        self.ask(&Request::ExecFolder, None).map(drop)
    }

    /// A file that it was told of.
    ///
    /// # Errors
    /// As open(2); `PermissionDenied` for any other file; or the assistant is gone.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        self.ask(&Request::Open { path: path.to_owned() }, None)?.map(File::from).ok_or_else(nothing)
    }

    /// Another way to ask.
    ///
    /// # Errors
    /// Too many are open; or the assistant is gone.
    pub fn another(&self) -> io::Result<UnixStream> {
        self.ask(&Request::Another, None)?.map(UnixStream::from).ok_or_else(nothing)
    }

    fn ask(&self, request: &Request, with: Option<BorrowedFd<'_>>) -> io::Result<Option<OwnedFd>> {
        self.exchange(request, with).map(|(_, descriptor)| descriptor)
    }

    fn exchange(
        &self,
        request: &Request,
        with: Option<BorrowedFd<'_>>,
    ) -> io::Result<(Answer, Option<OwnedFd>)> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |error: io::Error| {
            io::Error::new(error.kind(), format!("weir's assistant (process {}) is gone: {error}", self.pid))
        };
        descriptors::send(&stream, &serde_json::to_vec(request)?, with.as_slice()).map_err(gone)?;
        let (answer, descriptors) = descriptors::receive(&stream).map_err(gone)?;
        match serde_json::from_slice(&answer)? {
            Answer { error: Some(errno), .. } => Err(io::Error::from_raw_os_error(errno)),
            answer => Ok((answer, descriptors.into_iter().next())),
        }
    }
}

fn nothing() -> io::Error {
    io::Error::other("the assistant's answer has no descriptor")
}
