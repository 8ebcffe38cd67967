//! The running weir's side.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::unistd::Pid;
use proxy_common::MAX_SIBLINGS;
use tokio::sync::watch;

use super::starting::{LAST_WORDS, Starting};
use super::{Answer, CapturedContainer, Kept, Offer, PATIENCE, PROTOCOL, Released, State, hear, say};
use crate::admin;
use crate::app::sockets::Explicit;
use crate::app::supervisor;
use crate::cache::store::disk::Disk;
use crate::privilege::{self, Assistant, descriptors};
use crate::redirect::Redirect;
use crate::running::{Capture, Phase, Running};

/// What is needed to have another weir take this one's place.
pub(in crate::app) struct Giver {
    running: Arc<Running>,
    phase: watch::Sender<Phase>,
    sockets: Mutex<io::Result<Sockets>>,
    under_way: Mutex<UnderWay>,
}

#[derive(Default)]
enum UnderWay {
    #[default]
    Nothing,
    /// The one that is being started; nobody has waited for it yet.
    Starting(Pid),
    /// None is to be started any more.
    Cancelled,
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
    #[error("weir was told to stop, and the new one (pid {pid}) was ended before it had taken over")]
    Cancelled { pid: Pid },
    #[error("the new weir (pid {pid}) was not ready within {} s, and was ended; its log says more", PATIENCE.as_secs())]
    TimedOut { pid: Pid },
    #[error("the new weir (pid {pid}) did not start: {reason}")]
    Failed { pid: Pid, reason: String },
    #[error("the new weir (pid {pid}) {ended} before it had taken over ({error}); its log says more")]
    Lost { pid: Pid, ended: String, error: io::Error },
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
        let starting = Starting::start(binary, its_end);
        let starting = starting.map_err(|(program, error)| GiveError::Start { program, error })?;
        self.begin(&starting);
        let pid = starting.pid();
        tracing::info!(%pid, "a new weir is starting, to take over");
        self.tell_siblings(Some(pid.as_raw().unsigned_abs()));
        match self.talk(&stream, pid) {
            Ok(given) => {
                starting.leave();
                Ok(given)
            }
            Err(unheard) => {
                let was_cancelled = !self.finish();
                let ended = starting.end();
                self.stay();
                Err(match unheard {
                    _ if was_cancelled => GiveError::Cancelled { pid },
                    Unheard::Failed(reason) => GiveError::Failed { pid, reason },
                    Unheard::Lost(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        GiveError::TimedOut { pid }
                    }
                    Unheard::Lost(error) => GiveError::Lost { pid, ended, error },
                })
            }
        }
    }

    fn begin(&self, starting: &Starting) {
        let mut under_way = self.under_way();
        match *under_way {
            UnderWay::Cancelled => Starting::kill(starting.pid()),
            _ => *under_way = UnderWay::Starting(starting.pid()),
        }
    }

    /// From here on it can't be cancelled. False: it was.
    fn finish(&self) -> bool {
        let mut under_way = self.under_way();
        let was_cancelled = matches!(*under_way, UnderWay::Cancelled);
        if !was_cancelled {
            *under_way = UnderWay::Nothing;
        }
        !was_cancelled
    }

    /// Gives up on the weir that is being started, if it has not taken over yet.
    pub(in crate::app) fn cancel(&self) {
        let mut under_way = self.under_way();
        if let UnderWay::Starting(pid) = *under_way {
            Starting::kill(pid);
        }
        *under_way = UnderWay::Cancelled;
    }

    /// Other listeners are those that go over from now on.
    pub(in crate::app) fn set_explicit(&self, explicit: &Explicit) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(present) = &mut *sockets else { return };
        match Sockets::explicit_of(explicit) {
            Ok(explicit) => present.explicit = explicit,
            Err(error) => *sockets = Err(error),
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

    fn talk(&self, stream: &UnixStream, pid: Pid) -> Result<Given, Unheard> {
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
        if !self.finish() {
            return Err(io::Error::from(io::ErrorKind::Interrupted).into());
        }
        let given = self.release(pid.as_raw().unsigned_abs(), kept);
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
        let live = running.live();
        let admin = &live.config.admin;
        let offer = Offer {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            admin: running.admin,
            admin_socket: admin.socket_path(),
            state_dir: admin.state_dir.clone(),
            captures: capture_lock.is_some(),
            has_cache_lock: cache_lock.is_some(),
            stopped: sockets.explicit.is_empty(),
            assistant: assistant.filter(|_| way.is_some()).map(Assistant::pid),
            predecessors: predecessors.iter().map(|one| one.pid).collect(),
            confinement: privilege::confinement(),
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
        State { targets, captured: captured.collect(), names, services: running.services.added() }
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

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
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
        let [tcp, unix] = admin.descriptors();
        let admin = [tcp.try_clone_to_owned()?, unix.try_clone_to_owned()?];
        Ok(Self { admin, explicit: Self::explicit_of(explicit)? })
    }

    fn explicit_of(explicit: &Explicit) -> io::Result<Vec<OwnedFd>> {
        explicit.groups.iter().flatten().map(|socket| socket.as_fd().try_clone_to_owned()).collect()
    }
}
