//! The assistant's own side: what it does when it is asked, one request after the other. It has no other thread, so it can
//! enter a network namespace and come back.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use caps::Capability;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::unistd::setsid;
use socket2::Socket;

use super::assistant::{Answer, Duties, Request};
use super::{capabilities, descriptors, processes};

/// What it keeps: entering namespaces, seeing them, raw sockets for ICMP, and making a folder that is weir's user's.
const KEPT: [Capability; 5] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_NET_RAW,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_CHOWN,
];

/// Ways to ask that may be open at one time: each weir that takes over has one.
const MOST_CLIENTS: usize = 16;

/// How long a message may take to come to its end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Below the attach cgroup; see `redirect::ExecCgroup`.
const EXEC_FOLDER: &str = "weir";

/// The process `weir assist`: ends with the last weir that asks.
///
/// # Errors
/// It was not started by weir, or has not the privileges.
pub fn assist() -> io::Result<()> {
    // A signal to weir's process group passes it by: it ends when weir has.
    setsid()?;
    // For ps; nothing depends on it.
    let _ = fs::write("/proc/self/comm", "weir-assist");
    let first = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (duties, _) = descriptors::receive(&first)?;
    let duties: Duties = serde_json::from_slice(&duties)?;
    capabilities::keep_only(&KEPT).map_err(io::Error::other)?;
    let home = File::open("/proc/self/ns/net")?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    let mut at_work = AtWork { duties, home, clients: vec![first], open: 1 };
    while !at_work.clients.is_empty() {
        at_work.turn()?;
    }
    if let Some(folder) = at_work.exec_folder() {
        // Not empty while programs live in it: those of another weir's user, then.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

/// What is answered.
enum Given {
    Nothing,
    Descriptor(OwnedFd),
    Sockets(Vec<u64>),
}

impl From<File> for Given {
    fn from(file: File) -> Self {
        Self::Descriptor(file.into())
    }
}

struct AtWork {
    duties: Duties,
    /// Its own network namespace.
    home: File,
    clients: Vec<UnixStream>,
    /// Ways to ask that were open when this turn began.
    open: usize,
}

impl AtWork {
    /// Waits for requests, and answers them.
    fn turn(&mut self) -> io::Result<()> {
        let ready: Vec<bool> = {
            let mut watched: Vec<PollFd<'_>> = self.clients.iter().map(watched_of).collect();
            match poll(&mut watched, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => return Ok(()),
                polled => {
                    polled?;
                }
            }
            watched.iter().map(|client| client.any() == Some(true)).collect()
        };
        let mut clients = std::mem::take(&mut self.clients);
        self.open = clients.len();
        let mut ready = ready.into_iter();
        // One that is gone, or does not speak as weir does, is left.
        clients.retain(|client| !ready.next().unwrap_or_default() || self.answer(client).is_ok());
        clients.append(&mut self.clients);
        self.clients = clients;
        Ok(())
    }

    fn answer(&mut self, client: &UnixStream) -> io::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        client.set_write_timeout(Some(PATIENCE))?;
        let (request, with) = descriptors::receive(client)?;
        let done = self.serve(serde_json::from_slice(&request)?, with.first());
        let (answer, descriptor) = match done {
            Ok(Given::Nothing) => (Answer::default(), None),
            Ok(Given::Descriptor(descriptor)) => (Answer::default(), Some(descriptor)),
            Ok(Given::Sockets(sockets)) => (Answer { sockets, ..Answer::default() }, None),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EPERM);
                (Answer { error: Some(errno), ..Answer::default() }, None)
            }
        };
        let descriptor = descriptor.as_ref().map(AsFd::as_fd);
        descriptors::send(client, &serde_json::to_vec(&answer)?, descriptor.as_slice())
    }

    fn serve(&mut self, request: Request, with: Option<&OwnedFd>) -> io::Result<Given> {
        match request {
            Request::NetworkNamespace { pid } => File::open(format!("/proc/{pid}/ns/net")).map(Given::from),
            Request::Executable { pid } => processes::open_executable(pid).map(Given::from),
            Request::Sockets { pid } => {
                processes::open_sockets(pid).map(|sockets| Given::Sockets(sockets.into_iter().collect()))
            }
            Request::Socket { domain, kind, protocol } => {
                let namespace = with.ok_or(io::ErrorKind::InvalidInput)?;
                self.socket_in(namespace, (domain, kind, protocol)).map(Given::Descriptor)
            }
            Request::ExecFolder => self.make_exec_folder().map(|()| Given::Nothing),
            Request::Open { path } if self.duties.files.contains(&path) => {
                // A FIFO would block.
                let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
                Ok(file.into())
            }
            Request::Open { .. } => Err(io::Error::from_raw_os_error(libc::EACCES)),
            Request::Another if self.open + self.clients.len() < MOST_CLIENTS => {
                let (ours, theirs) = UnixStream::pair()?;
                self.clients.push(ours);
                Ok(Given::Descriptor(theirs.into()))
            }
            Request::Another => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        }
    }

    /// TCP, UDP, ICMP, and netlink for sockets that are to be ended; nothing else is asked for.
    fn socket_in(
        &self,
        namespace: &OwnedFd,
        (domain, kind, protocol): (i32, i32, i32),
    ) -> io::Result<OwnedFd> {
        let plain = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        let is_known = match (domain, plain) {
            (libc::AF_NETLINK, libc::SOCK_DGRAM) => protocol == libc::NETLINK_SOCK_DIAG,
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) => matches!(protocol, 0 | libc::IPPROTO_TCP),
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM) => matches!(protocol, 0 | libc::IPPROTO_UDP),
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_RAW) => {
                matches!(protocol, libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6)
            }
            _ => false,
        };
        if !is_known {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let made = Socket::new(domain.into(), kind.into(), Some(protocol.into()));
        if setns(&self.home, CloneFlags::CLONE_NEWNET).is_err() {
            // Whatever it did from here on would be done in the wrong place.
            std::process::abort();
        }
        made.map(OwnedFd::from)
    }

    fn make_exec_folder(&self) -> io::Result<()> {
        let folder = self.exec_folder().ok_or(io::ErrorKind::Unsupported)?;
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        chown(folder, Some(self.duties.user), Some(self.duties.group))
    }

    fn exec_folder(&self) -> Option<PathBuf> {
        self.duties.cgroup.as_ref().map(|cgroup| cgroup.join(EXEC_FOLDER))
    }
}

fn watched_of(client: &UnixStream) -> PollFd<'_> {
    PollFd::new(client.as_fd(), PollFlags::POLLIN)
}
