//! Kept HTTP/1 connections to upstreams: one pool for all workers, with a shelf for each. A worker takes from its own
//! shelf, whose lock nobody else wants then. Only where that has nothing to offer it looks at the others', before it opens
//! a connection: what it finds there moves to its own runtime, for two calls of epoll_ctl(2).

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use socket2::SockRef;
use tokio::io::Interest;

use super::{Addresses, Connection, Through};
use crate::config;
use crate::http::authority::Host;
use crate::target::Vantage;
use crate::telemetry::metrics;

/// Which part of a full shelf makes room, the oldest first: finding them costs a look at all, so it is not done for each.
const MAKE_ROOM: usize = 64;

/// The part of the files that the process may open which idle connections may take.
const SHARE_OF_FILES: usize = 4;

/// A connection on which nothing is under way. Dropping it ends it in order, with FIN.
#[derive(Debug)]
pub struct Idle {
    connection: Option<Connection>,
    since: Instant,
}

impl Idle {
    /// The connection, if it is still quiet: one that the server has closed, or spoke on unasked, is of no use.
    #[must_use]
    pub fn wake(self) -> Option<Connection> {
        self.wake_if(is_quiet)
    }

    fn wake_if(mut self, quiet: impl FnOnce(&Connection) -> bool) -> Option<Connection> {
        let quiet = self.connection.as_ref().is_some_and(quiet);
        if quiet { self.connection.take() } else { None }
    }

    /// Whether it leads to one of `addresses`, as a new connection would.
    #[must_use]
    pub fn leads_to(&self, addresses: &Addresses) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            addresses.addresses.contains(&connection.address)
                && (&addresses.vantage, &addresses.tls) == (&connection.vantage, &connection.tls)
                && addresses.through == connection.through
        })
    }
}

impl From<Connection> for Idle {
    fn from(connection: Connection) -> Self {
        Self {
            connection: Some(Connection { connect_us: None, tls_us: None, ..connection }),
            since: Instant::now(),
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.stream.end_in_order();
        }
    }
}

/// What makes two connections interchangeable: where to, where from, and who is at the other end for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) address: SocketAddr,
    pub(super) vantage: Vantage,
    pub(super) tls: Option<Host>,
    pub(super) through: Option<Through>,
    /// The client to which the connection belongs alone, if there is one.
    pub(super) owner: Option<SocketAddr>,
}

impl Hash for Key {
    /// The address alone tells nearly all keys apart; the rest is compared.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
    }
}

fn key(connection: &Connection) -> Key {
    let Connection { address, vantage, tls, through, .. } = connection;
    Key {
        address: *address,
        vantage: vantage.clone(),
        tls: tls.clone(),
        through: through.clone(),
        owner: None,
    }
}

/// The idle connections of all workers.
#[derive(Debug)]
pub(super) struct Pool {
    per_origin: usize,
    most: usize,
    idle_timeout: Duration,
    shelves: Box<[Mutex<Shelf>]>,
    /// On all shelves.
    count: AtomicUsize,
}

/// A worker's part, whose sockets are known to that worker's runtime.
#[derive(Debug, Default)]
struct Shelf {
    /// The one that was used last is at the end.
    by_key: HashMap<Key, VecDeque<Idle>>,
    count: usize,
}

impl Shelf {
    fn pop(&mut self, key: &Key) -> Option<Idle> {
        let idle = self.by_key.get_mut(key)?.pop_back()?;
        self.count -= 1;
        Some(idle)
    }

    /// Takes out a part of the oldest.
    fn oldest(&mut self) -> Vec<Idle> {
        let mut ages: Vec<_> = self.by_key.values().flatten().map(|idle| idle.since).collect();
        if ages.is_empty() {
            return Vec::new();
        }
        let (_, limit, _) = ages.select_nth_unstable(self.count / MAKE_ROOM);
        let limit = *limit;
        let mut taken = Vec::new();
        self.by_key.retain(|_, connections| {
            while let Some(idle) = connections.pop_front_if(|idle| idle.since <= limit) {
                taken.push(idle);
            }
            !connections.is_empty()
        });
        self.count -= taken.len();
        taken
    }
}

impl Pool {
    pub(super) fn new(settings: &config::Upstream, workers: usize) -> Self {
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(usize::MAX, |(soft, _)| clamped(soft));
        Self {
            per_origin: settings.idle_per_origin,
            most: settings.idle.min(files / SHARE_OF_FILES),
            idle_timeout: settings.idle_timeout,
            shelves: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
        }
    }

    /// The connection that was used last, of those that are still quiet. From another worker's shelf if `worker`'s own has
    /// none. `repeats`: what is sent over it could be sent again.
    pub(super) fn take(&self, worker: usize, key: &Key, repeats: bool) -> Option<Connection> {
        let quiet = if repeats { was_quiet } else { is_quiet };
        loop {
            let kept = self.own(worker).pop(key);
            let Some(idle) = kept else { break };
            self.count.fetch_sub(1, Ordering::Relaxed);
            if let Some(connection) = idle.wake_if(quiet) {
                return Some(connection);
            }
        }
        if self.count.load(Ordering::Relaxed) == 0 { None } else { self.take_over(worker, key) }
    }

    fn take_over(&self, worker: usize, key: &Key) -> Option<Connection> {
        let others = self.shelves.iter().cycle().skip(worker + 1).take(self.shelves.len() - 1);
        for shelf in others {
            // Nobody waits for a shelf that is in use just now.
            while let Some(idle) = tried(shelf).and_then(|mut shelf| shelf.pop(key)) {
                self.count.fetch_sub(1, Ordering::Relaxed);
                if let Some(Connection { stream, address, vantage, tls, through, .. }) = idle.wake()
                    && let Ok(stream) = stream.adopted()
                {
                    metrics::with(|metrics| metrics.upstream_moves.increment());
                    return Some(Connection {
                        stream,
                        address,
                        vantage,
                        tls,
                        through,
                        connect_us: None,
                        tls_us: None,
                    });
                }
            }
        }
        None
    }

    /// Keeps a connection that `worker` has used. Those that were not used for longest make room.
    pub(super) fn keep(&self, worker: usize, idle: Idle) {
        let Some(key) = idle.connection.as_ref().map(key) else { return };
        if self.per_origin == 0 || self.most == 0 {
            return;
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.make_room();
        }
        let mut shelf = self.own(worker);
        let connections = shelf.by_key.entry(key).or_default();
        connections.push_back(idle);
        if connections.len() > self.per_origin {
            let oldest = connections.pop_front();
            drop(shelf);
            self.count.fetch_sub(1, Ordering::Relaxed);
            drop(oldest);
        } else {
            shelf.count += 1;
        }
    }

    /// Closes the oldest of whoever has most.
    fn make_room(&self) {
        let fullest = self.shelves.iter().max_by_key(|shelf| tried(shelf).map_or(0, |shelf| shelf.count));
        let Some(closed) = fullest.map(|shelf| lock(shelf).oldest()) else { return };
        self.count.fetch_sub(closed.len(), Ordering::Relaxed);
    }

    /// Closes all.
    pub(super) fn close_all(&self) {
        for shelf in &self.shelves {
            let closed = std::mem::take(&mut *lock(shelf));
            self.count.fetch_sub(closed.count, Ordering::Relaxed);
        }
    }

    /// Closes what `worker` has had idle for too long, and what the server has closed.
    pub(super) fn sweep(&self, worker: usize) {
        let mut shelf = self.own(worker);
        let before = shelf.count;
        shelf.by_key.retain(|_, connections| {
            connections.retain(|idle| {
                let quiet = idle.connection.as_ref().is_some_and(is_quiet);
                quiet && idle.since.elapsed() < self.idle_timeout
            });
            !connections.is_empty()
        });
        shelf.count = shelf.by_key.values().map(VecDeque::len).sum();
        self.count.fetch_sub(before - shelf.count, Ordering::Relaxed);
    }

    fn own(&self, worker: usize) -> MutexGuard<'_, Shelf> {
        lock(&self.shelves[worker])
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tried(shelf: &Mutex<Shelf>) -> Option<MutexGuard<'_, Shelf>> {
    match shelf.try_lock() {
        Ok(shelf) => Some(shelf),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

fn clamped(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// A connection between two requests has nothing to read: neither bytes nor an end. So the kernel says.
fn is_quiet(connection: &Connection) -> bool {
    connection.stream.is_quiet()
}

/// So the runtime says, which has asked for news of all connections when it last waited: some requests ago at most. A
/// system call for each request would not make certain either what arrives before the request has gone out.
fn was_quiet(connection: &Connection) -> bool {
    let socket = connection.stream.socket();
    let peek = || SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]);
    match socket.try_io(Interest::READABLE, peek) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => !connection.stream.has_unread(),
        // News of TLS itself, perhaps.
        _ => is_quiet(connection),
    }
}

#[cfg(test)]
mod tests;
