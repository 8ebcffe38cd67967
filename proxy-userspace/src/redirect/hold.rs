//! The holder, `weir hold`: a process that keeps the programs attached when weir has died with `fail: closed`, so that
//! they refuse (their gate finds nobody listening) until a weir starts again. With `fail: open` there is none.
//!
//! It gets the links over a socket pair, its standard input, as SCM_RIGHTS: so they are never open to another child of
//! weir. One byte there means that weir stops orderly, and ends it; the end of the stream means that weir has died.
//! The weir that takes over tells it to end at a Unix socket. It serves nothing, decides nothing, starts no runtime
//! and no thread. A supervisor that kills all of weir's processes ends it, too; then connections go direct.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{close, setsid};

use super::cgroup::CgroupId;
use super::error::RedirectError;
use super::hooks::HOOKS;
use super::state::HolderState;

/// How long weir waits for the holder to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the holder waits for a visitor's wish; it does nothing else meanwhile.
const VISIT: Duration = Duration::from_millis(200);
/// Before it polls again after an error: no memory, or a signal.
const POLL_AGAIN: Duration = Duration::from_millis(10);
/// Longest answer of a holder that can't begin.
const MAX_ANSWER: usize = 512;

/// weir to holder, and the weir that takes over to the holder: end.
const END: u8 = b'e';
/// Holder to weir: I have the links.
const READY: &[u8] = b"ready";
/// Holder to a visitor: my weir lives, my weir is dead.
const LIVES: u8 = b'l';
const DEAD: u8 = b'd';

/// Where the holder of a cgroup listens.
pub(super) fn socket(state_dir: &Path, cgroup: CgroupId) -> PathBuf {
    state_dir.join(format!("{PREFIX}{}{SUFFIX}", cgroup.0))
}

const PREFIX: &str = "hold-";
const SUFFIX: &str = ".sock";

/// The running holder of this weir. Dropping it ends it, with a bound; a panic leaves it to hold: weir has crashed.
#[derive(Debug)]
pub(super) struct Holder {
    child: Mutex<Child>,
    control: UnixStream,
    socket: PathBuf,
}

impl Holder {
    /// Starts one that holds `links`; it does when this returns.
    pub(super) fn start(links: &[OwnedFd], socket: PathBuf) -> io::Result<Self> {
        let (control, its_end) = UnixStream::pair()?;
        control.set_read_timeout(Some(PATIENCE))?;
        // What runs now, even if the file was replaced meanwhile. It keeps no terminal, pipe or folder busy.
        let child = Command::new("/proc/self/exe")
            .arg0("weir")
            .arg("hold")
            .arg(&socket)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(its_end))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let holder = Self { child: Mutex::new(child), control, socket };
        let links: Vec<RawFd> = links.iter().map(OwnedFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&links)];
        // At least one byte must go with them (unix(7)).
        let bytes = [IoSlice::new(&[0])];
        sendmsg::<()>(holder.control.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None)?;
        let mut answer = [0; MAX_ANSWER];
        let length = (&holder.control).read(&mut answer)?;
        match &answer[..length] {
            READY => Ok(holder),
            [] => Err(io::Error::other("it ended at once")),
            reason => Err(io::Error::other(String::from_utf8_lossy(reason).into_owned())),
        }
    }

    pub(super) fn state(&self) -> HolderState {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        HolderState { pid: child.id(), running: matches!(child.try_wait(), Ok(None)) }
    }
}

impl Holder {
    /// Ends it, and leaves its socket's place to the holder of the weir that takes over, if that has one there.
    pub(super) fn end_in_favour_of_another(mut self) {
        let socket = std::mem::take(&mut self.socket);
        drop(self);
        let listens = UnixStream::connect(&socket);
        if listens.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            let _ = fs::remove_file(&socket);
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // It answers with nothing but its end. One that has ended already is as good.
        let _ = self.control.write_all(&[END]);
        let _ = self.control.read(&mut [0]);
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// Ends the holder that a dead weir left, if there is one: after this its programs are detached.
///
/// # Errors
/// `HolderStays` if it does not end in time.
pub(super) fn retire(socket: &Path) -> Result<(), RedirectError> {
    let mut holder = match UnixStream::connect(socket) {
        Ok(holder) => holder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // It was killed, and the file is left.
            let _ = fs::remove_file(socket);
            return Ok(());
        }
        Err(source) => return Err(RedirectError::HolderStays { pid: None, source }),
    };
    let pid = pid(&holder);
    let ended = holder.set_read_timeout(Some(PATIENCE)).and_then(|()| {
        holder.write_all(&[END])?;
        // Its greeting, then the end of the stream.
        holder.read_to_end(&mut Vec::new())
    });
    ended.map_err(|source| RedirectError::HolderStays { pid, source })?;
    // Gone already is as good.
    let _ = fs::remove_file(socket);
    Ok(())
}

/// Told to people who wonder why nothing connects.
#[derive(Debug)]
pub struct LeftBehind {
    pid: i32,
}

impl fmt::Display for LeftBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "A weir died with `capture.fail: closed` (pid {0} holds its programs, which refuse what it captured): \
             start weir again, or end the holder with `kill {0}`",
            self.pid
        )
    }
}

/// The holder at that socket, if its weir is dead.
pub(super) fn of_dead_weir(socket: &Path) -> Option<LeftBehind> {
    let mut holder = UnixStream::connect(socket).ok()?;
    holder.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut greeting = [0];
    holder.read_exact(&mut greeting).ok()?;
    (greeting == [DEAD]).then_some(LeftBehind { pid: pid(&holder)? })
}

/// The first holder of a dead weir whose socket is in that folder.
#[must_use]
pub fn in_folder(state_dir: &Path) -> Option<LeftBehind> {
    let entries = fs::read_dir(state_dir).ok()?.flatten();
    let named = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_bytes().starts_with(PREFIX.as_bytes()) && name.as_bytes().ends_with(SUFFIX.as_bytes())
    });
    named.map(|entry| entry.path()).find_map(|socket| of_dead_weir(&socket))
}

/// The process at the other end, as the kernel saw it when it began to listen.
fn pid(holder: &UnixStream) -> Option<i32> {
    getsockopt(holder, PeerCredentials).ok().map(|credentials| credentials.pid())
}

/// The process `weir hold`: returns when it is told to end.
///
/// # Errors
/// It was not started by weir, or can't listen at `socket`; weir is told the reason.
pub fn run(socket: &Path) -> io::Result<()> {
    // A session of its own: Ctrl-C, the end of the terminal and a signal to weir's process group pass it by.
    setsid()?;
    // For ps; nothing depends on it.
    let _ = fs::write("/proc/self/comm", "weir-hold");
    close_inherited()?;
    let mut control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (links, listener) = match begin(&control, socket) {
        Ok(begun) => begun,
        Err(error) => {
            // weir may have died meanwhile.
            let _ = control.write_all(error.to_string().as_bytes());
            return Err(error);
        }
    };
    control.write_all(READY)?;
    let waiting = wait_for_end(&mut control, &listener);
    // Redirectors first, recorders last; and before the end of the stream tells whoever waits that they are closed.
    for link in links.into_iter().rev() {
        let _ = close(link);
    }
    drop(waiting);
    Ok(())
}

/// Closes what weir itself was started with and never knew of (a supervisor's pipe, say): this process may live on
/// for long. Nothing in it has opened anything yet.
///
/// # Errors
/// /proc can't be read.
pub fn close_inherited() -> io::Result<()> {
    let first = io::stderr().as_raw_fd() + 1;
    let names = fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.file_name());
    let open: Vec<RawFd> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor >= first) {
        // That of the listing itself is closed already.
        let _ = close(descriptor);
    }
    Ok(())
}

/// The links, which stay open until they are closed by number, and the socket to be told at.
fn begin(control: &UnixStream, socket: &Path) -> io::Result<(Vec<RawFd>, UnixListener)> {
    let links = receive(control)?;
    if let Err(error) = fs::remove_file(socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    // For the owner alone.
    umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(socket)
        .map_err(|error| io::Error::other(format!("can't listen on {}: {error}", socket.display())))?;
    Ok((links, listener))
}

fn receive(control: &UnixStream) -> io::Result<Vec<RawFd>> {
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; HOOKS.len()]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(control.as_raw_fd(), &mut bytes, Some(&mut space), flags)?;
    let links = message.cmsgs()?.find_map(|rights| match rights {
        ControlMessageOwned::ScmRights(links) => Some(links),
        _ => None,
    });
    links
        .filter(|links| links.len() == HOOKS.len())
        .ok_or_else(|| io::Error::other("the programs' links did not come"))
}

/// Blocks until weir stops, or a new weir has taken over: then gives the stream on which that one waits.
fn wait_for_end(control: &mut UnixStream, listener: &UnixListener) -> Option<UnixStream> {
    let mut weir_lives = true;
    loop {
        let watched = |socket| PollFd::new(socket, PollFlags::POLLIN);
        let mut sockets = [watched(listener.as_fd()), watched(control.as_fd())];
        let count = if weir_lives { 2 } else { 1 };
        if poll(&mut sockets[..count], PollTimeout::NONE).is_err() {
            std::thread::sleep(POLL_AGAIN);
            continue;
        }
        let [visited, told] = sockets.map(|socket| socket.any() == Some(true));
        if weir_lives && told {
            match control.read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(1..) => return None,
                Ok(0) | Err(_) => weir_lives = false,
            }
        }
        if visited
            && let Ok((visitor, _)) = listener.accept()
            && let Some(waiting) = visitor_who_ends_it(visitor, weir_lives)
        {
            return Some(waiting);
        }
    }
}

/// Tells the visitor how things are; one who only looks goes away after that.
fn visitor_who_ends_it(mut visitor: UnixStream, weir_lives: bool) -> Option<UnixStream> {
    visitor.set_read_timeout(Some(VISIT)).ok()?;
    visitor.set_write_timeout(Some(VISIT)).ok()?;
    // One who has gone again has wished nothing.
    visitor.write_all(&[if weir_lives { LIVES } else { DEAD }]).ok()?;
    let mut wish = [0];
    visitor.read_exact(&mut wish).ok()?;
    (wish == [END]).then_some(visitor)
}
