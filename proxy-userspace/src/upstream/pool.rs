//! Kept HTTP/1 connections to upstreams: one pool a worker, so none is ever waited for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{Addresses, Connection, Through};
use crate::http::authority::Host;
use crate::target::Vantage;

/// Connections a worker keeps, to all origins together.
const MAX_IDLE: usize = 4096;

/// A connection on which nothing is under way. Dropping it ends it in order, with FIN.
#[derive(Debug)]
pub struct Idle {
    connection: Option<Connection>,
    since: Instant,
}

impl Idle {
    /// The connection, if it is still quiet: one that the server has closed, or spoke on unasked, is of no use.
    #[must_use]
    pub fn wake(mut self) -> Option<Connection> {
        // Asked of the kernel: what the runtime knows of the socket may be a moment old.
        let quiet = self.connection.as_ref().is_some_and(is_quiet);
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

/// A worker's idle connections.
#[derive(Debug)]
pub(super) struct Pool {
    per_origin: usize,
    idle_timeout: Duration,
    idle: RefCell<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_key: HashMap<Key, Vec<Idle>>,
    count: usize,
}

impl Pool {
    pub(super) fn new(per_origin: usize, idle_timeout: Duration) -> Self {
        Self { per_origin, idle_timeout, idle: RefCell::default() }
    }

    /// The connection that was used last, of those that are still quiet.
    pub(super) fn take(&self, key: &Key) -> Option<Connection> {
        let mut kept = self.idle.borrow_mut();
        loop {
            let idle = kept.by_key.get_mut(key)?.pop()?;
            kept.count -= 1;
            if let Some(connection) = idle.wake() {
                return Some(connection);
            }
        }
    }

    pub(super) fn keep(&self, idle: Idle) {
        let mut kept = self.idle.borrow_mut();
        let Some(key) = idle.connection.as_ref().map(key) else { return };
        if kept.count < MAX_IDLE {
            let connections = kept.by_key.entry(key).or_default();
            if connections.len() < self.per_origin {
                connections.push(idle);
                kept.count += 1;
            }
        }
    }

    /// Closes all.
    pub(super) fn close_all(&self) {
        *self.idle.borrow_mut() = Kept::default();
    }

    /// Closes what has been idle for too long, and what the server has closed.
    pub(super) fn sweep(&self) {
        let kept = &mut *self.idle.borrow_mut();
        kept.by_key.retain(|_, connections| {
            connections.retain(|idle| {
                let quiet = idle.connection.as_ref().is_some_and(is_quiet);
                quiet && idle.since.elapsed() < self.idle_timeout
            });
            !connections.is_empty()
        });
        kept.count = kept.by_key.values().map(Vec::len).sum();
    }
}

/// A connection between two requests has nothing to read: neither bytes nor an end.
fn is_quiet(connection: &Connection) -> bool {
    let peeked = SockRef::from(connection.stream.socket()).peek(&mut [MaybeUninit::uninit()]);
    matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        && !connection.stream.has_unread()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::transport::Transport;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream as StdStream};

    /// A connection, and its other end.
    fn connection(listener: &TcpListener) -> (Connection, StdStream) {
        let address = listener.local_addr().unwrap();
        let stream = StdStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let (stream, vantage) = (Transport::Plain(stream), Vantage::default());
        let connection = Connection {
            stream,
            address,
            vantage,
            tls: None,
            through: None,
            connect_us: Some(1),
            tls_us: None,
        };
        (connection, listener.accept().unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_that_is_no_longer_quiet_is_not_used() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let key = Key {
            address: listener.local_addr().unwrap(),
            vantage: Vantage::default(),
            tls: None,
            through: None,
            owner: None,
        };
        let pool = Pool::new(8, Duration::from_secs(60));
        let (quiet, _peer) = connection(&listener);
        let (closed, peer) = connection(&listener);
        let (spoke, mut speaker) = connection(&listener);
        for connection in [quiet, closed, spoke] {
            pool.keep(connection.into());
        }
        drop(peer);
        speaker.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        // No turn of the runtime in between: it has not heard of either.
        assert!(pool.take(&key).is_some());
        assert!(pool.take(&key).is_none());
    }

    #[tokio::test]
    async fn an_origin_has_a_bound_and_old_ones_go() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let key = Key {
            address: listener.local_addr().unwrap(),
            vantage: Vantage::default(),
            tls: None,
            through: None,
            owner: None,
        };
        let pool = Pool::new(2, Duration::ZERO);
        let (connections, _peers): (Vec<_>, Vec<_>) = (0..3).map(|_| connection(&listener)).unzip();
        connections.into_iter().for_each(|connection| pool.keep(connection.into()));
        assert_eq!(pool.idle.borrow().count, 2);
        pool.sweep();
        assert_eq!(pool.idle.borrow().count, 0);
        assert!(pool.take(&key).is_none());
    }
}
