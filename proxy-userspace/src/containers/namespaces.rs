//! The network namespaces in which weir listens, beside its own.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::mpsc;

use super::CaptureListeners;
use crate::dns;
use crate::netns::{self, Namespace, NetnsId};
use crate::redirect::{Listeners, OriginalDestinations, Redirect, RedirectError};

/// Listeners that may wait for a worker to take them up.
const MAX_DOORS: usize = 256;

/// Network namespaces of which it is told that they can't be entered.
const MAX_PROBLEMS: usize = 64;

/// A listener inside, for a worker to serve.
#[derive(Debug)]
pub struct Door {
    pub listener: TcpListener,
    pub originals: OriginalDestinations,
    pub namespace: Arc<Namespace>,
}

/// All that are entered.
#[derive(Debug)]
pub struct Namespaces {
    workers: Vec<mpsc::Sender<Door>>,
    /// To whoever takes queries; None where DNS is not captured.
    dns: Option<mpsc::Sender<dns::Door>>,
    /// The worker that gets the next listener.
    turn: AtomicUsize,
    entered: Mutex<HashMap<NetnsId, Entered>>,
    /// Those that should be, by their cookies.
    problems: Mutex<HashMap<u64, Unentered>>,
}

#[derive(Debug)]
struct Entered {
    namespace: Arc<Namespace>,
    addresses: Vec<SocketAddr>,
}

/// One that can't be entered.
#[derive(Debug)]
struct Unentered {
    /// A process that lives there.
    pid: u32,
    problem: String,
}

/// One of them, for status.
#[derive(Debug, Clone, Serialize)]
pub struct NamespaceState {
    /// As `lsns` and `ls -l /proc/PID/ns` show it.
    pub inode: u64,
    pub cookie: u64,
    pub listeners: Vec<SocketAddr>,
}

/// Why connections from a network namespace can't be captured.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    #[error("can't see the network namespace of process {pid}: {source}")]
    Unseen { pid: u32, source: io::Error },
    #[error("can't enter the network namespace of process {pid}: {source}; weir needs CAP_SYS_ADMIN for it")]
    NotEntered { pid: u32, source: io::Error },
    #[error("can't listen in the network namespace of process {pid}: {source}")]
    NotListening { pid: u32, source: io::Error },
    #[error("can't capture in the network namespace of process {pid}: {source}")]
    Kernel { pid: u32, source: RedirectError },
    #[error(
        "can't capture in the network namespace of process {pid}: the workers haven't taken up {MAX_DOORS} others"
    )]
    Busy { pid: u32 },
}

impl EnterError {
    /// Whether the process has simply ended; one that nobody has waited for yet has no namespaces any more, either.
    #[must_use]
    pub fn is_of_the_dead(&self) -> bool {
        let ended = |error: &io::Error| {
            error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
        };
        matches!(self, Self::Unseen { source, .. } if ended(source))
    }
}

impl Namespaces {
    /// None yet, and for each worker what it will be given.
    #[must_use]
    pub fn new(
        workers: usize,
        dns: Option<mpsc::Sender<dns::Door>>,
    ) -> (Arc<Self>, Vec<mpsc::Receiver<Door>>) {
        let (workers, doors) = (0..workers).map(|_| mpsc::channel(MAX_DOORS)).unzip();
        let turn = AtomicUsize::new(0);
        let (entered, problems) = (Mutex::default(), Mutex::default());
        (Arc::new(Self { workers, dns, turn, entered, problems }), doors)
    }

    /// Listens where that process lives, and has its connections sent there. None if that is weir's own network
    /// namespace, or one that is entered already.
    ///
    /// # Errors
    /// [`EnterError`]; nothing is left behind.
    pub fn enter(&self, redirect: &Redirect, pid: u32) -> Result<Option<Arc<Namespace>>, EnterError> {
        let unseen = |source| EnterError::Unseen { pid, source };
        // Open before it is looked at: so it stays the one that was looked at.
        let file = netns::of_process(pid).map_err(unseen)?;
        let id = NetnsId::of_file(&file).map_err(unseen)?;
        if id == NetnsId::own().map_err(unseen)? {
            return Ok(None);
        }
        let mut all = self.lock();
        if all.contains_key(&id) {
            return Ok(None);
        }
        let namespace = Namespace::enter(file).map_err(|source| EnterError::NotEntered { pid, source })?;
        // A socket a port: each port's connections are one worker's.
        let sockets = namespace
            .run(CaptureListeners::open_ahead)
            .flatten()
            .map_err(|source| EnterError::NotListening { pid, source })?;
        let addresses = sockets.addresses();
        let mut listeners = sockets.announced();
        let queries = self.take_queries(&namespace, &mut listeners);
        let dealt_out = queries.and_then(|()| self.deal_out(redirect, &namespace, sockets));
        dealt_out.map_err(|Busy| {
            namespace.end();
            EnterError::Busy { pid }
        })?;
        redirect.serve_namespace(&namespace, &listeners).map_err(|source| {
            namespace.end();
            EnterError::Kernel { pid, source }
        })?;
        all.insert(id, Entered { namespace: Arc::clone(&namespace), addresses });
        Ok(Some(namespace))
    }

    /// Has no more connections sent to the listeners inside, and closes them. What is under way goes on until
    /// [`Namespace::end`].
    pub fn leave(&self, redirect: &Redirect, namespace: &Namespace) {
        redirect.leave_namespace(namespace);
        self.lock().remove(&namespace.id());
        namespace.close();
    }

    /// What is entered now.
    #[must_use]
    pub fn state(&self) -> Vec<NamespaceState> {
        let all = self.lock();
        let mut states: Vec<_> = all.values().map(Entered::state).collect();
        states.sort_by_key(|state| state.cookie);
        states
    }

    /// How many are entered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Notes why one that should be entered can't be, or that it is after all. True if that is new.
    pub fn set_problem(&self, cookie: u64, pid: u32, problem: Option<String>) -> bool {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(problem) = problem else { return problems.remove(&cookie).is_some() };
        if problems.len() >= MAX_PROBLEMS {
            return false;
        }
        problems.insert(cookie, Unentered { pid, problem }).is_none()
    }

    /// What connections weir should take and can't, told to people; as long as a process is there that made one.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.retain(|_, Unentered { pid, .. }| netns::of_process(*pid).is_ok());
        let mut told: Vec<String> = problems
            .values()
            .map(|Unentered { pid, problem }| {
                format!(
                    "connections from the network namespace of process {pid} should be captured, and capture.fail \
                     decides them: {problem}"
                )
            })
            .collect();
        told.sort();
        told
    }

    /// Has DNS over UDP taken there. Without IPv4 inside there is nothing of it to take.
    fn take_queries(&self, namespace: &Arc<Namespace>, listeners: &mut Listeners) -> Result<(), Busy> {
        let Some(dns) = &self.dns else { return Ok(()) };
        match namespace.run(dns::Bound::bind).flatten() {
            Ok(sockets) => {
                sockets.announce(listeners);
                let namespace = Some(Arc::clone(namespace));
                dns.try_send(dns::Door { sockets, namespace }).map_err(|_| Busy)
            }
            Err(error) => {
                let inode = namespace.id().inode();
                tracing::warn!(%error, inode, "DNS in a network namespace is not captured");
                Ok(())
            }
        }
    }

    /// Two namespaces begin with different workers, so that those with little to do are shared out evenly.
    fn deal_out(
        &self,
        redirect: &Redirect,
        namespace: &Arc<Namespace>,
        sockets: CaptureListeners,
    ) -> Result<(), Busy> {
        let originals = redirect.original_destinations().in_namespace(namespace.cookie());
        for listener in sockets.into_sockets() {
            let worker = self.turn.fetch_add(1, Ordering::Relaxed) % self.workers.len();
            let door = Door { listener, originals: originals.clone(), namespace: Arc::clone(namespace) };
            self.workers[worker].try_send(door).map_err(|_| Busy)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NetnsId, Entered>> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker does not take up what it is given.
struct Busy;

impl Entered {
    fn state(&self) -> NamespaceState {
        NamespaceState {
            inode: self.namespace.id().inode(),
            cookie: self.namespace.cookie(),
            listeners: self.addresses.clone(),
        }
    }
}
