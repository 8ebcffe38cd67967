//! Kept HTTP/1 connections to upstreams: one pool a worker, so none is ever waited for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::TcpStream;

/// What makes two connections interchangeable: the address, and where from.
pub type Key = (SocketAddr, Option<IpAddr>);

/// Addresses a pool keeps connections to; beyond that it keeps none for new ones.
const MAX_ORIGINS: usize = 4096;

/// A worker's idle upstream connections.
#[derive(Debug)]
pub struct Pool {
    per_origin: usize,
    idle_timeout: Duration,
    idle: RefCell<HashMap<Key, Vec<(TcpStream, Instant)>>>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(per_origin: usize, idle_timeout: Duration) -> Self {
        Self { per_origin, idle_timeout, idle: RefCell::default() }
    }

    /// The connection to `key` that was used last, if it is still quiet: one that the server closed, or spoke
    /// on unasked, is of no use.
    pub fn take(&self, key: Key) -> Option<TcpStream> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&key)?;
        let (stream, _) = std::iter::from_fn(|| connections.pop()).find(|(stream, _)| is_quiet(stream))?;
        Some(stream)
    }

    /// Keeps a connection whose last response has ended.
    pub fn keep(&self, key: Key, stream: TcpStream) {
        let mut idle = self.idle.borrow_mut();
        let full = idle.len() >= MAX_ORIGINS && !idle.contains_key(&key);
        if !full {
            let connections = idle.entry(key).or_default();
            if connections.len() < self.per_origin {
                connections.push((stream, Instant::now()));
            }
        }
    }

    /// Closes what has been idle for too long. Called by the worker's tick.
    pub fn sweep(&self) {
        self.close_older_than(self.idle_timeout);
    }

    /// Closes all.
    pub fn close_all(&self) {
        self.close_older_than(Duration::ZERO);
    }

    fn close_older_than(&self, limit: Duration) {
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain(|(stream, since)| {
                let keep = since.elapsed() < limit;
                if !keep {
                    // Nothing is under way on it: a FIN will do, the server need not log a reset.
                    let _ = SockRef::from(stream).set_linger(None);
                }
                keep
            });
            !connections.is_empty()
        });
    }
}

/// A connection between two requests has nothing to read: neither bytes nor an end.
fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
