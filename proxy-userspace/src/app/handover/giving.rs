//! The running weir's side.

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxy_common::MAX_SIBLINGS;
use tokio::sync::watch;

use super::{Answer, CapturedContainer, Kept, Offer, PATIENCE, PROTOCOL, Released, State, hear, say};
use crate::admin;
use crate::app::sockets::Explicit;
use crate::app::supervisor;
use crate::cache::store::disk::Disk;
use crate::privilege::{self, Assistant, descriptors};
use crate::redirect::Redirect;
use crate::running::{Capture, Phase, Running};

/// How long a weir that failed may take to end by itself, so that its exit code can be told.
const LAST_WORDS: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

/// What is needed to have another weir take this one's place.
pub(in crate::app) struct Giver {
    running: Arc<Running>,
    phase: watch::Sender<Phase>,
    sockets: Mutex<io::Result<Sockets>>,
    /// The one that is being started; nobody has waited for it yet.
    under_way: Mutex<Option<Pid>>,
}

/// Second descriptors of the sockets that go over.
struct Sockets {
    admin: [OwnedFd; 2],
    explicit: Vec<OwnedFd>,
}

/// What is left to this weir when another one has taken its place.
pub(in crate::app) struct Given {
    /// Keeps the records of what was redirected here.
    pub(in crate::app) redirect: Option<Box<Redirect>>,
    pub(in crate::app) pid: u32,
    /// The files of these names are the new one's by now.
    pub(in crate::app) keeps_admin_socket: bool,
    pub(in crate::app) keeps_state_dir: bool,
}

/// Why everything stays as it is.
#[derive(Debug, thiserror::Error)]
pub(in crate::app) enum GiveError {
    #[error("weir's sockets can't be handed over: {0}")]
    Sockets(String),
    #[error("{0} earlier weirs still finish their connections; wait for them, or end one with SIGTERM")]
    TooMany(usize),
    #[error(
        "weir's assistant is gone, and without it the new weir could not enter the network namespaces in which this one \
         captures; stop weir and start it again"
    )]
    Unassisted,
    #[error("can't start {}: {error}", .program.display())]
    Start { program: PathBuf, error: io::Error },
    #[error("the new weir (pid {pid}) did not start: {reason}")]
    Failed { pid: u32, reason: String },
    #[error("the new weir (pid {pid}) {ended} before it had taken over ({error}); its log says more")]
    Lost { pid: u32, ended: String, error: io::Error },
}

impl Giver {
    pub(in crate::app) fn new(
        running: &Arc<Running>,
        phase: watch::Sender<Phase>,
        explicit: &Explicit,
        admin: &admin::Listeners,
    ) -> Self {
        let sockets = Mutex::new(Sockets::of(explicit, admin));
        Self { running: Arc::clone(running), phase, sockets, under_way: Mutex::default() }
    }

    /// Starts a weir and gives it this one's place. Blocks until it has it.
    ///
    /// # Errors
    /// [`GiveError`]: this weir goes on as it was.
    pub(in crate::app) fn give(&self, binary: Option<&Path>) -> Result<Given, GiveError> {
        let predecessors = self.running.predecessors.pids();
        if predecessors.len() + 2 > MAX_SIBLINGS {
            return Err(GiveError::TooMany(predecessors.len()));
        }
        let is_unassisted = privilege::assistant().is_some_and(|assistant| assistant.another().is_err());
        if is_unassisted && !self.running.namespaces.state().is_empty() {
            return Err(GiveError::Unassisted);
        }
        let (stream, its_end) = UnixStream::pair().map_err(|error| GiveError::Sockets(error.to_string()))?;
        let limits = stream.set_read_timeout(Some(PATIENCE)).and(stream.set_write_timeout(Some(PATIENCE)));
        limits.map_err(|error| GiveError::Sockets(error.to_string()))?;
        let mut child = start(binary, its_end)?;
        let pid = child.id();
        *self.under_way() = i32::try_from(pid).ok().map(Pid::from_raw);
        tracing::info!(pid, "a new weir is starting, to take over");
        self.tell_siblings(Some(pid));
        let talked = self.talk(&stream, pid);
        *self.under_way() = None;
        let given = talked.map_err(|error| {
            let ended = end(&mut child);
            self.stay();
            match error {
                Unheard::Failed(reason) => GiveError::Failed { pid, reason },
                Unheard::Lost(error) => GiveError::Lost { pid, ended, error },
            }
        })?;
        // Nobody else can wait for it.
        std::thread::spawn(move || child.wait());
        Ok(given)
    }

    /// Gives up on the weir that is being started, if it has not taken over yet.
    pub(in crate::app) fn cancel(&self) {
        if let Some(pid) = *self.under_way() {
            // It may have ended by itself.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    /// Closes the second descriptors: whoever else has the sockets is alone with them.
    pub(in crate::app) fn close(&self) {
        *self.sockets.lock().unwrap_or_else(PoisonError::into_inner) =
            Err(io::Error::other("weir is stopping"));
    }

    /// Tells all that serve how far weir is.
    pub(in crate::app) fn enter(&self, phase: Phase) {
        // The receivers live in the workers; if all are gone, they have stopped already.
        self.phase.send_replace(phase);
    }

    fn talk(&self, stream: &UnixStream, pid: u32) -> Result<Given, Unheard> {
        // One that has failed already has told why, and takes no offer.
        let offered = self.offer(stream);
        if offered.is_err() {
            stream.set_read_timeout(Some(LAST_WORDS))?;
        }
        let heard = hear(stream).map_err(|error| offered.err().unwrap_or(error))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        match heard {
            Answer::Ready => {}
            Answer::Failed { reason } => return Err(Unheard::Failed(reason)),
            Answer::Taken(_) => return Err(io::Error::other("it took what it had not been given").into()),
        }
        say(stream, &self.state())?;
        let kept = match hear(stream)? {
            Answer::Taken(kept) => kept,
            Answer::Failed { reason } => return Err(Unheard::Failed(reason)),
            Answer::Ready => return Err(io::Error::other("it is ready again and again").into()),
        };
        let given = self.release(pid, kept);
        // If it is gone by now, weir has died.
        let _ = say(stream, &Released {});
        Ok(given)
    }

    fn offer(&self, stream: &UnixStream) -> io::Result<()> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let sockets = sockets.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        let running = &self.running;
        let capture_lock = match &*running.capture() {
            Capture::On(redirect) => Some(redirect.lock_descriptor()?),
            _ => None,
        };
        let disk = running.cache.as_ref().and_then(|cache| cache.disk());
        let cache_lock = disk.map(Disk::lock_descriptor).transpose()?;
        let assistant = privilege::assistant();
        let way = assistant.and_then(|assistant| {
            let way = assistant.another();
            way.inspect_err(|error| tracing::warn!("the new weir has to do without: {error}")).ok()
        });
        let way = way.map(OwnedFd::from);
        let predecessors = running.predecessors.all();
        let admin = &running.config.admin;
        let offer = Offer {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            admin: running.admin,
            admin_socket: admin.socket_path(),
            state_dir: admin.state_dir.clone(),
            captures: capture_lock.is_some(),
            has_cache_lock: cache_lock.is_some(),
            assistant: assistant.filter(|_| way.is_some()).map(Assistant::pid),
            predecessors: predecessors.iter().map(|one| one.pid).collect(),
        };
        let mut descriptors: Vec<BorrowedFd<'_>> = sockets.admin.iter().map(AsFd::as_fd).collect();
        descriptors.extend(capture_lock.iter().chain(&cache_lock).chain(&way).map(AsFd::as_fd));
        descriptors.extend(predecessors.iter().map(|one| one.process.as_fd()));
        descriptors.extend(sockets.explicit.iter().map(AsFd::as_fd));
        descriptors::send(stream, &serde_json::to_vec(&offer)?, &descriptors)
    }

    fn state(&self) -> State {
        let running = &self.running;
        {
            // Whoever changes anything has this lock.
            let _changes = running.capture();
            running.handing_over.store(true, Ordering::Relaxed);
        }
        let targets = running.targets.added().iter().map(ToString::to_string).collect();
        let captured = running.targets.captured().into_iter().filter_map(|captured| {
            let container = captured.container?;
            Some(CapturedContainer {
                cgroup: captured.path,
                selector: captured.selector.to_string(),
                id: container.id.to_string(),
                name: container.name.to_string(),
                image: container.image.to_string(),
            })
        });
        let names = match &*running.capture() {
            Capture::On(redirect) => redirect.names().all(),
            _ => Vec::new(),
        };
        State { targets, captured: captured.collect(), names }
    }

    /// The other one is attached, and knows what was selected: from here on it decides.
    fn release(&self, pid: u32, kept: Kept) -> Given {
        let capture = std::mem::replace(&mut *self.running.capture(), Capture::Detached);
        self.running.handing_over.store(false, Ordering::Relaxed);
        let redirect = match capture {
            Capture::On(mut redirect) => {
                redirect.stop_redirecting();
                Some(redirect)
            }
            _ => None,
        };
        if let Some(disk) = self.running.cache.as_ref().and_then(|cache| cache.disk()) {
            disk.retire();
        }
        self.close();
        self.enter(Phase::Replaced { keeps_door: kept.explicit });
        supervisor::tell_main_process(pid);
        let Kept { admin_socket, state_dir, .. } = kept;
        Given { redirect, pid, keeps_admin_socket: admin_socket, keeps_state_dir: state_dir }
    }

    /// Puts right what the other one may have touched.
    fn stay(&self) {
        self.running.handing_over.store(false, Ordering::Relaxed);
        self.tell_siblings(None);
        if let Capture::On(redirect) = &mut *self.running.capture()
            && let Err(error) = redirect.stay()
        {
            tracing::error!("{error}");
        }
    }

    fn tell_siblings(&self, new: Option<u32>) {
        let mut siblings = self.running.predecessors.pids();
        siblings.extend(new);
        if let Capture::On(redirect) = &*self.running.capture()
            && let Err(error) = redirect.tell_siblings(&siblings)
        {
            tracing::warn!("{error}");
        }
    }

    fn under_way(&self) -> MutexGuard<'_, Option<Pid>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The new weir said why, or nothing any more.
enum Unheard {
    Failed(String),
    Lost(io::Error),
}

impl From<io::Error> for Unheard {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl Sockets {
    fn of(explicit: &Explicit, admin: &admin::Listeners) -> io::Result<Self> {
        let second = |socket: BorrowedFd<'_>| socket.try_clone_to_owned();
        let explicit = explicit.groups.iter().flatten().map(|socket| second(socket.as_fd()));
        let [tcp, unix] = admin.descriptors();
        Ok(Self { admin: [second(tcp)?, second(unix)?], explicit: explicit.collect::<io::Result<_>>()? })
    }
}

/// With this process's own arguments and environment. Its log goes where this one's goes.
fn start(binary: Option<&Path>, stream: UnixStream) -> Result<Child, GiveError> {
    let mut arguments = env::args_os();
    let own = arguments.next().map_or_else(|| "weir".into(), PathBuf::from);
    let program = binary.map_or(own, Path::to_path_buf);
    let arguments = arguments.filter(|argument| argument != TAKE_OVER);
    let mut command = Command::new(&program);
    command.args(arguments).arg(TAKE_OVER).stdin(OwnedFd::from(stream));
    let started = privilege::pass_on(|| command.spawn()).map_err(io::Error::other);
    started.flatten().map_err(|error| GiveError::Start { program, error })
}

/// As `weir serve` knows it.
const TAKE_OVER: &str = "--take-over";

/// Waits for a little while, then ends it. How it ended, for people.
fn end(child: &mut Child) -> String {
    let waited = (0..LAST_WORDS.as_millis() / LOOK.as_millis()).find_map(|_| {
        let status = child.try_wait().ok().flatten();
        if status.is_none() {
            std::thread::sleep(LOOK);
        }
        status
    });
    let shown = |status: ExitStatus| format!("ended with {status}");
    waited.map_or_else(
        || {
            let _ = child.kill();
            let _ = child.wait();
            "was ended".to_owned()
        },
        shown,
    )
}
