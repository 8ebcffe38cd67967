//! Other network namespaces than weir's own: told apart, entered, and used from outside.
//!
//! setns(2) is for a thread. A [`Namespace`] has one that lives inside and does there what can't be done from outside:
//! makes sockets. Where weir has given up the privilege for it (see `privilege`), its assistant makes them instead. A socket belongs to the namespace it was made in for good, and can be used from every thread. Which
//! namespaces are entered, and for how long, is for others to say. Namespaces are never made here.

mod sys;

use std::cell::RefCell;
use std::fs::{File, Metadata};
use std::hash::{Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{oneshot, watch};

use crate::privilege;

pub use sys::{cookie, keep_descriptors, open_process};

/// Sockets kept ready in a namespace, per address family: a burst of connections does not wait for its thread.
const STOCK: usize = 4;

/// Jobs that may wait for a namespace's thread; each takes microseconds.
const MAX_JOBS: usize = 256;

/// Names a network namespace as long as it lives: device and inode of its file in /proc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetnsId {
    device: u64,
    inode: u64,
}

impl NetnsId {
    /// That of the calling thread.
    ///
    /// # Errors
    /// /proc can't be read.
    pub fn own() -> io::Result<Self> {
        Self::at("/proc/thread-self/ns/net")
    }

    /// That of a process.
    ///
    /// # Errors
    /// There is no such process, or it is somebody else's.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        match privilege::assistant() {
            Some(_) => Self::of_file(&of_process(pid)?),
            None => Self::at(&format!("/proc/{pid}/ns/net")),
        }
    }

    /// That of an open namespace file.
    ///
    /// # Errors
    /// fstat(2) fails.
    pub fn of_file(file: &File) -> io::Result<Self> {
        Ok(Self::of(&file.metadata()?))
    }

    fn at(path: &str) -> io::Result<Self> {
        Ok(Self::of(&std::fs::metadata(path)?))
    }

    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// The number that `lsns` and `ls -l /proc/PID/ns` show.
    #[must_use]
    pub fn inode(self) -> u64 {
        self.inode
    }
}

/// A process's network namespace, for [`Namespace::enter`].
///
/// # Errors
/// There is no such process, or it is somebody else's.
pub fn of_process(pid: u32) -> io::Result<File> {
    match (File::open(format!("/proc/{pid}/ns/net")), privilege::assistant()) {
        // That of another user's process.
        (Err(error), Some(assistant)) if error.kind() == io::ErrorKind::PermissionDenied => {
            assistant.network_namespace(pid)
        }
        (opened, _) => opened,
    }
}

/// Whether a socket is of the network namespace that this thread is in. Not before Linux 5.14.
#[must_use]
pub fn is_of_this_thread(socket: BorrowedFd<'_>) -> bool {
    let own = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), None).and_then(|own| cookie(own.as_fd()));
    matches!((own, cookie(socket)), (Ok(own), Ok(its)) if own == its)
}

/// As `Socket::new`, in the network namespace that this thread is in: also where only the assistant could enter it.
///
/// # Errors
/// What socket(2) says; or the assistant is gone.
pub fn socket(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    INSIDE.with_borrow(|inside| match (inside, privilege::assistant()) {
        (Some(namespace), Some(assistant)) => {
            let arguments = (domain.into(), kind.into(), protocol.map_or(0, i32::from));
            assistant.socket(namespace.as_fd(), arguments).map(Socket::from)
        }
        _ => Socket::new(domain, kind, protocol),
    })
}

thread_local! {
    /// The namespace that this thread would be in, if it might enter it.
    static INSIDE: RefCell<Option<File>> = const { RefCell::new(None) };
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace that is entered. It lives, with all that is in it, at least as long as this.
#[derive(Debug)]
pub struct Namespace {
    id: NetnsId,
    cookie: u64,
    jobs: SyncSender<Job>,
    stock: Arc<Stock>,
    stage: watch::Sender<Stage>,
}

/// How long a namespace is made use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Open,
    /// Nothing new begins there.
    Closed,
    /// What is still under way there is given up.
    Ended,
}

/// Sockets that are made and not used yet.
#[derive(Debug, Default)]
struct Stock {
    v4: Mutex<Vec<Socket>>,
    v6: Mutex<Vec<Socket>>,
    /// A job that fills it is on its way.
    filling: AtomicBool,
}

impl Namespace {
    /// Enters the namespace of that file, on a thread made for it.
    ///
    /// # Errors
    /// setns(2): CAP_SYS_ADMIN is missing, or it is no network namespace. `Unsupported`: the kernel has no cookies
    /// (before Linux 5.14), without which its connections can't be told from others'.
    pub fn enter(file: File) -> io::Result<Arc<Self>> {
        let id = NetnsId::of_file(&file)?;
        let (jobs, work) = sync_channel(MAX_JOBS);
        let (entered, result) = sync_channel(1);
        std::thread::Builder::new().name(format!("ns-{}", id.inode)).spawn(move || {
            let inside = go_inside(&file);
            drop(file);
            let may_work = inside.is_ok();
            // Whoever entered is waiting.
            let _ = entered.send(inside);
            if may_work {
                serve(&work);
            }
        })?;
        let cookie = result.recv().map_err(io::Error::other)??;
        let (stage, _) = watch::channel(Stage::Open);
        Ok(Arc::new(Self { id, cookie, jobs, stock: Arc::default(), stage }))
    }

    /// Its identity as long as it lives.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// What the kernel half calls it: unique as long as the machine is up.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Runs `job` inside, and waits for it.
    ///
    /// # Errors
    /// The namespace's thread is gone or has too much to do.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (done, result) = sync_channel(1);
        self.send(Box::new(move || drop(done.send(job()))))?;
        result.recv().map_err(io::Error::other)
    }

    /// A TCP socket that lives inside; non-blocking.
    ///
    /// # Errors
    /// What socket(2) says; or as [`Namespace::run`].
    pub async fn tcp_socket(&self, domain: Domain) -> io::Result<Socket> {
        let kept = self.stock.of(domain).lock().unwrap_or_else(PoisonError::into_inner).pop();
        self.refill();
        if let Some(socket) = kept {
            return Ok(socket);
        }
        self.make(move || new_socket(domain)).await
    }

    /// As [`Namespace::run`], without blocking this thread.
    ///
    /// # Errors
    /// What `job` says; or as [`Namespace::run`].
    pub async fn make<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        // The receiver may have given up.
        self.send(Box::new(move || drop(done.send(job()))))?;
        result.await.map_err(io::Error::other)?
    }

    /// Says that nobody lives in it any more: nothing new is to begin there.
    pub fn close(&self) {
        self.stage.send_replace(Stage::Closed);
    }

    /// Says that what is still under way there is to be given up.
    pub fn end(&self) {
        self.stage.send_replace(Stage::Ended);
    }

    /// Ready when [`Namespace::close`] was called, before or after. Holds nothing of the namespace.
    pub fn closed(&self) -> impl Future<Output = ()> + use<> {
        self.reached(Stage::Closed)
    }

    /// Ready when [`Namespace::end`] was called, before or after. Holds nothing of the namespace.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        self.reached(Stage::Ended)
    }

    /// How many wait for [`Namespace::closed`] or [`Namespace::ended`]: once it is closed, each is a connection.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.stage.receiver_count()
    }

    fn reached(&self, wanted: Stage) -> impl Future<Output = ()> + use<> {
        let mut stage = self.stage.subscribe();
        // An error means that the namespace is gone altogether.
        async move { drop(stage.wait_for(|stage| *stage >= wanted).await) }
    }

    fn refill(&self) {
        if self.stock.filling.swap(true, Ordering::AcqRel) {
            return;
        }
        let stock = Arc::downgrade(&self.stock);
        if self.send(Box::new(move || fill(&stock))).is_err() {
            self.stock.filling.store(false, Ordering::Release);
        }
    }

    fn send(&self, job: Job) -> io::Result<()> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{MAX_JOBS} sockets are being made in network namespace {}", self.id.inode),
            ),
            TrySendError::Disconnected(_) => {
                io::Error::other("the thread in the network namespace has ended")
            }
        })
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        self.cookie == other.cookie
    }
}

impl Eq for Namespace {}

impl Hash for Namespace {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.cookie.hash(state);
    }
}

impl Stock {
    fn of(&self, domain: Domain) -> &Mutex<Vec<Socket>> {
        if domain == Domain::IPV4 { &self.v4 } else { &self.v6 }
    }
}

/// Moves this thread inside for good, and learns the cookie.
fn go_inside(file: &File) -> io::Result<u64> {
    match privilege::assistant() {
        Some(_) => INSIDE.set(Some(file.try_clone()?)),
        None => setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?,
    }
    let socket = socket(Domain::IPV4, Type::DGRAM.cloexec(), None)?;
    cookie(socket.as_fd()).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel can't tell network namespaces apart for weir (it can since Linux 5.14)",
        ),
        _ => error,
    })
}

/// Until the [`Namespace`] is dropped.
fn serve(work: &Receiver<Job>) {
    while let Ok(job) = work.recv() {
        job();
    }
}

fn fill(stock: &Weak<Stock>) {
    let Some(stock) = stock.upgrade() else { return };
    stock.filling.store(false, Ordering::Release);
    for domain in [Domain::IPV4, Domain::IPV6] {
        let kept = || stock.of(domain).lock().unwrap_or_else(PoisonError::into_inner);
        while kept().len() < STOCK {
            // Whoever finds none asks again, and is told why.
            let Ok(socket) = new_socket(domain) else { break };
            kept().push(socket);
        }
    }
}

fn new_socket(domain: Domain) -> io::Result<Socket> {
    socket(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))
}
