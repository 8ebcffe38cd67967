//! The new weir's side.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::dup2_stdin;
use tokio::sync::mpsc;

use super::{Answer, Kept, Offer, PATIENCE, PROTOCOL, Released, State, hear, say};
use crate::admin::{self, Taken};
use crate::capture;
use crate::config;
use crate::containers::Asked;
use crate::netns;
use crate::privilege::{self, descriptors};
use crate::redirect::{RedirectError, Rules};
use crate::running::{Capture, Predecessor, Running};
use crate::target::Container;

/// What a running weir has handed over so far.
#[derive(Debug)]
pub(in crate::app) struct Taking {
    stream: UnixStream,
    offer: Offer,
    admin_tcp: Option<TcpListener>,
    admin_unix: Option<UnixListener>,
    instance_lock: Option<OwnedFd>,
    cache_lock: Option<OwnedFd>,
    predecessors: Vec<Predecessor>,
    explicit: Vec<TcpListener>,
    kept: Kept,
}

/// Why the running weir's place can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error("--take-over is for a running weir to say; `weir upgrade` has it start another ({0})")]
    NotStartedByWeir(io::Error),
    #[error(
        "weir {0} hands over in another way than this one takes ({1}, not {PROTOCOL}); stop it and start this one"
    )]
    Protocol(String, u32),
    #[error("the running weir did not hand over all that it announced")]
    Incomplete,
    #[error("the workers did not begin")]
    NotBegun,
    #[error("{0}")]
    Redirect(#[from] RedirectError),
    #[error("can't go on with taking over: {0}")]
    Io(#[from] io::Error),
}

impl Taking {
    /// Hears what the weir that started this one offers. None: it has died, and there is nothing to take.
    ///
    /// # Errors
    /// [`TakeError`]
    pub(in crate::app) fn begin() -> Result<Option<Self>, TakeError> {
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        stream
            .set_read_timeout(Some(PATIENCE))
            .and(stream.set_write_timeout(Some(PATIENCE)))
            .map_err(TakeError::NotStartedByWeir)?;
        let (offer, descriptors) = match descriptors::receive(&stream) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                tracing::warn!("the running weir has died before it offered anything; this one starts alone");
                return Ok(None);
            }
            received => received?,
        };
        // Once this end is closed, the other one is to see it.
        dup2_stdin(File::open("/dev/null")?).map_err(io::Error::from)?;
        let offer: Offer = serde_json::from_slice(&offer).map_err(io::Error::from)?;
        if offer.protocol != PROTOCOL {
            return Err(TakeError::Protocol(offer.version, offer.protocol));
        }
        privilege::inherit(offer.confinement);
        tracing::info!(pid = offer.pid, version = offer.version, "taking over from a running weir");
        Self::sort(stream, offer, descriptors).ok_or(TakeError::Incomplete)?.map(Some)
    }

    fn sort(stream: UnixStream, offer: Offer, descriptors: Vec<OwnedFd>) -> Option<Result<Self, TakeError>> {
        let mut descriptors = descriptors.into_iter();
        let admin_tcp = Some(descriptors.next()?.into());
        let admin_unix = Some(descriptors.next()?.into());
        let instance_lock = if offer.captures { Some(descriptors.next()?) } else { None };
        let cache_lock = if offer.has_cache_lock { Some(descriptors.next()?) } else { None };
        if let Some(pid) = offer.assistant
            && let Err(error) = privilege::adopt(descriptors.next()?.into(), pid)
        {
            return Some(Err(error.into()));
        }
        let mut predecessors = Vec::new();
        for &pid in &offer.predecessors {
            predecessors.push(Predecessor { pid, process: Arc::new(descriptors.next()?) });
        }
        match netns::open_process(offer.pid) {
            Ok(process) => {
                predecessors.push(Predecessor { pid: offer.pid, process: Arc::new(process) });
            }
            Err(error) => return Some(Err(error.into())),
        }
        let explicit: Vec<TcpListener> = descriptors.map(TcpListener::from).collect();
        let kept = Kept { explicit: false, admin_socket: false, state_dir: false };
        let taking = Self {
            stream,
            offer,
            admin_tcp,
            admin_unix,
            instance_lock,
            cache_lock,
            predecessors,
            explicit,
            kept,
        };
        (taking.is_stopped() || !taking.explicit.is_empty()).then_some(Ok(taking))
    }

    /// Another way to tell of a failure.
    pub(in crate::app) fn voice(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// Whether the explicit proxy does not listen, and is not to.
    pub(in crate::app) fn is_stopped(&self) -> bool {
        self.offer.stopped
    }

    /// The explicit listeners, if the configuration wants weir where they are.
    pub(in crate::app) fn explicit(&mut self, server: &config::Server) -> Option<Vec<TcpListener>> {
        let address = self.explicit.first()?.local_addr().ok()?;
        let port = address.port();
        self.kept.explicit = address.ip() == server.host
            && (server.port == port || server.port == 0 || server.port_range.contains(&port));
        self.kept.explicit.then(|| std::mem::take(&mut self.explicit))
    }

    /// The admin API's listeners, if the configuration wants it where they are.
    pub(in crate::app) fn admin(&mut self, admin: &config::Admin) -> Taken {
        let address = self.offer.admin;
        self.kept.state_dir = self.offer.state_dir == admin.state_dir;
        self.kept.admin_socket = self.offer.admin_socket == admin.socket_path();
        let is_there = address.ip() == admin.host && (admin.port == 0 || admin.port == address.port());
        Taken {
            tcp: if is_there { self.admin_tcp.take() } else { None },
            unix: if self.kept.admin_socket { self.admin_unix.take() } else { None },
        }
    }

    pub(in crate::app) fn captures(&self) -> bool {
        self.offer.captures
    }

    pub(in crate::app) fn instance_lock(&mut self) -> Option<OwnedFd> {
        self.instance_lock.take()
    }

    pub(in crate::app) fn cache_lock(&mut self) -> Option<OwnedFd> {
        self.cache_lock.take()
    }

    pub(in crate::app) fn predecessors(&self) -> Vec<Predecessor> {
        self.predecessors.clone()
    }

    pub(in crate::app) fn siblings(&self) -> Vec<u32> {
        self.predecessors.iter().map(|one| one.pid).collect()
    }

    /// What the running weir has selected and learned. None: it has died meanwhile.
    fn state(&self) -> io::Result<Option<State>> {
        self.unless_died(say(&self.stream, &Answer::Ready).and_then(|()| hear(&self.stream)))
    }

    /// Ready when this one is alone.
    fn release(&self) -> io::Result<()> {
        let released = say(&self.stream, &Answer::Taken(self.kept)).and_then(|()| hear(&self.stream));
        self.unless_died::<Released>(released).map(drop)
    }

    /// A running weir that dies on the way leaves its place to this one. One that breaks off and lives stays.
    fn unless_died<T>(&self, heard: io::Result<T>) -> io::Result<Option<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match heard {
            Ok(heard) => Ok(Some(heard)),
            Err(error) if matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset) => {
                if !self.predecessors.last().is_some_and(|running| running.ends_within(DYING)) {
                    return Err(error);
                }
                tracing::warn!(
                    "the running weir has died before all was handed over; this one goes on alone"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// How long the end of a process may be later than that of its sockets.
const DYING: Duration = Duration::from_secs(5);

/// Tells the running weir why this one ends before it has heard the offer.
pub fn tell_early_failure(reason: &str) {
    if let Ok(stream) = io::stdin().as_fd().try_clone_to_owned() {
        tell_failure(&UnixStream::from(stream), reason);
    }
}

/// Tells the running weir why this one ends.
pub(in crate::app) fn tell_failure(stream: &UnixStream, reason: &str) {
    // It may have died.
    let _ = say(stream, &Answer::Failed { reason: reason.to_owned() });
}

/// Selects what the running weir had selected, and takes its place. Everything else has begun.
pub(in crate::app) async fn succeed(
    taking: &Taking,
    running: &Arc<Running>,
    rules: Option<Rules>,
    asked: mpsc::Receiver<Asked>,
) -> Result<(), TakeError> {
    let state = taking.state()?;
    let has_died = state.is_none();
    let state = state.unwrap_or_default();
    if let Capture::On(redirect) = &*running.capture() {
        redirect.names().adopt(state.names);
        if let Some(rules) = rules {
            redirect.install_rules(rules)?;
        }
    }
    state
        .targets
        .iter()
        .filter_map(|target| target.parse().ok())
        .for_each(|target| running.targets.add(target));
    for (name, target, framework) in state.services {
        // What the configuration names by now is as it says.
        if let Err(error) = running.services.add(&name, &target, framework.as_deref()) {
            tracing::warn!(service = name, "an app that was added is not taken over: {error}");
        }
    }
    for captured in state.captured {
        let Ok(selector) = captured.selector.parse() else { continue };
        let container =
            Container { id: captured.id.into(), name: captured.name.into(), image: captured.image.into() };
        capture::adopt(running, &captured.cgroup, selector, container);
    }
    admin::adopt_captured(running);
    capture::start(running, asked).await;
    hold(running, &running.config().admin.state_dir, has_died)?;
    Ok(taking.release()?)
}

/// The holder comes before the running weir's goes.
fn hold(running: &Running, state_dir: &Path, has_died: bool) -> Result<(), RedirectError> {
    match &mut *running.capture() {
        Capture::On(redirect) if has_died => redirect.take_over(state_dir),
        Capture::On(redirect) => redirect.hold(state_dir),
        _ => Ok(()),
    }
}
