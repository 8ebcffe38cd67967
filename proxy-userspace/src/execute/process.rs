//! A command while it runs: its pipes, its time, and its end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::output::{End, Event, Stream, Unfinished};

/// Bytes that are read at one time.
const CHUNK: usize = 16 << 10;

/// Chunks that wait for the caller to take them. What more there is waits in the command's pipes, and then the command
/// itself waits.
const CHUNKS: usize = 4;

/// How long a supervisor may take to end all that is below it.
const LAST_WORK: Duration = Duration::from_secs(10);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(2);

/// How long a pipe may stay open after its command's end: a supervisor that was itself killed leaves others behind.
const LEFT_OPEN: Duration = Duration::from_millis(500);

/// How long a caller may take to fetch what a command that has ended wrote last.
const FETCH: Duration = Duration::from_secs(60);

/// What bounds a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) time: Duration,
    /// In bytes.
    pub(super) output: u64,
}

/// Starts a command, and attends to it in a task of its own.
pub(super) fn start(
    mut command: Command,
    input: Option<Vec<u8>>,
    limits: Limits,
    place: OwnedSemaphorePermit,
) -> io::Result<mpsc::Receiver<Event>> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let supervised = Supervised::of(child, place)?;
    let pipes = Pipes {
        stdin: stdin.map(|pipe| Sender::from_owned_fd(pipe.into())).transpose()?.zip(input),
        stdout: reader(stdout.map(Into::into))?,
        stderr: reader(stderr.map(Into::into))?,
    };
    let (events, receiver) = mpsc::channel(CHUNKS);
    tokio::spawn(attend(supervised, pipes, limits, events));
    Ok(receiver)
}

struct Pipes {
    stdin: Option<(Sender, Vec<u8>)>,
    stdout: Receiver,
    stderr: Receiver,
}

fn reader(pipe: Option<OwnedFd>) -> io::Result<Receiver> {
    Receiver::from_owned_fd(pipe.ok_or(io::ErrorKind::BrokenPipe)?)
}

async fn attend(mut supervised: Supervised, pipes: Pipes, limits: Limits, events: mpsc::Sender<Event>) {
    let (ended, watching) = watch::channel(false);
    let room = Arc::new(Room::new(limits.output));
    let mut readers = JoinSet::new();
    for (stream, pipe) in [(Stream::Stdout, pipes.stdout), (Stream::Stderr, pipes.stderr)] {
        readers.spawn(pass_on(stream, pipe, events.clone(), Arc::clone(&room), watching.clone()));
    }
    if let Some((mut pipe, input)) = pipes.stdin {
        // A command that does not want it may close it: no error of ours.
        readers.spawn(async move { drop(pipe.write_all(&input).await) });
    }
    let end = tokio::select! {
        status = supervised.wait() => match status {
            Ok(status) => end_of(status),
            Err(error) => End::Unknown { error: error.to_string() },
        },
        () = sleep(limits.time) => {
            End::Timeout { timeout_ms: u64::try_from(limits.time.as_millis()).unwrap_or(u64::MAX) }
        }
        () = room.full() => End::OutputLimit { max_output: limits.output },
        () = events.closed() => return,
    };
    // Nobody reads on then, and that may have ended it first.
    let end = if room.is_full() { End::OutputLimit { max_output: limits.output } } else { end };
    drop(supervised);
    let _ = ended.send(true);
    let told = async {
        while readers.join_next().await.is_some() {}
        let _ = events.send(Event::End(end)).await;
    };
    let _ = timeout(FETCH, told).await;
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit { code },
        (None, Some(signal)) => End::Signal { signal },
        (None, None) => End::Unknown { error: "neither exit code nor signal".to_owned() },
    }
}

/// Passes on what comes out of a pipe, until that ends, the command may write no more, or nobody wants it.
async fn pass_on(
    stream: Stream,
    mut pipe: Receiver,
    events: mpsc::Sender<Event>,
    room: Arc<Room>,
    mut ended: watch::Receiver<bool>,
) {
    let mut unfinished = Unfinished::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        let left_open = async {
            // An error means that the command has ended, as well.
            let _ = ended.wait_for(|ended| *ended).await;
            sleep(LEFT_OPEN).await;
        };
        let read = tokio::select! {
            read = pipe.read(&mut buffer) => read.unwrap_or(0),
            () = left_open => 0,
        };
        let taken = room.take(read);
        let part = unfinished.join(buffer.get(..taken).unwrap_or_default());
        if !part.is_empty() && events.send(Event::Output(stream, part)).await.is_err() {
            return;
        }
        if taken == 0 || taken < read {
            break;
        }
    }
    let rest = unfinished.rest();
    if !rest.is_empty() {
        // Nobody wants it: that is noticed elsewhere.
        let _ = events.send(Event::Output(stream, rest)).await;
    }
}

/// How much a command may still write.
struct Room {
    left: AtomicU64,
    was_too_small: AtomicBool,
    full: tokio::sync::Notify,
}

impl Room {
    fn new(bytes: u64) -> Self {
        Self {
            left: AtomicU64::new(bytes),
            was_too_small: AtomicBool::new(false),
            full: tokio::sync::Notify::new(),
        }
    }

    /// How much of `bytes` there is room for.
    fn take(&self, bytes: usize) -> usize {
        let wanted = u64::try_from(bytes).unwrap_or(u64::MAX);
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(wanted)));
        let left = left.unwrap_or_else(|left| left);
        if left < wanted {
            self.was_too_small.store(true, Ordering::Relaxed);
            self.full.notify_one();
        }
        usize::try_from(left.min(wanted)).unwrap_or(bytes)
    }

    fn is_full(&self) -> bool {
        self.was_too_small.load(Ordering::Relaxed)
    }

    async fn full(&self) {
        self.full.notified().await;
    }
}

/// A command's supervisor. Dropped, it is ended, and with it the command and all that this has started.
struct Supervised {
    supervisor: Option<Child>,
    id: Pid,
    /// Free again when nothing is left.
    place: Option<OwnedSemaphorePermit>,
}

impl Supervised {
    fn of(supervisor: Child, place: OwnedSemaphorePermit) -> io::Result<Self> {
        let id = Pid::from_raw(i32::try_from(supervisor.id()).map_err(io::Error::other)?);
        Ok(Self { supervisor: Some(supervisor), id, place: Some(place) })
    }

    /// How it ended. A thread waits, and leaves the zombie as it is: its number can't be another's.
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        let supervisor = Id::Pid(self.id);
        let ended = move || waitid(supervisor, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        tokio::task::spawn_blocking(ended).await.map_err(io::Error::other)??;
        match self.supervisor.take() {
            Some(mut supervisor) => supervisor.wait(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let (Some(mut supervisor), place) = (self.supervisor.take(), self.place.take()) else { return };
        // Nobody has waited for it: its number is still its own.
        let _ = kill(self.id, Signal::SIGTERM);
        // It takes as long as the kernel takes to end them all, which nobody else is to wait for.
        std::thread::spawn(move || {
            let deadline = Instant::now() + LAST_WORK;
            while let (Ok(None), true) = (supervisor.try_wait(), Instant::now() < deadline) {
                std::thread::sleep(LOOK);
            }
            let _ = supervisor.kill();
            let _ = supervisor.wait();
            drop(place);
        });
    }
}
