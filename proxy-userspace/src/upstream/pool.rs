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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Ipv4Addr;

    use super::*;

    const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

    fn key(port: u16) -> Key {
        (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), None)
    }

    /// A connection as weir makes them: dropping it resets it. And the server's end.
    async fn connection() -> (TcpStream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind(ANY).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        (stream, listener.accept().unwrap().0)
    }

    /// Runs a test on a runtime, as connections need one.
    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    /// The server's end has seen a clean end, not a reset.
    #[track_caller]
    fn assert_closed_in_order(mut server: &std::net::TcpStream) {
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    }

    /// Until what the server did has arrived here.
    async fn arrived(stream: &TcpStream) {
        stream.readable().await.unwrap();
        while is_quiet(stream) {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn the_last_one_that_was_used_comes_first() {
        run(async {
            let pool = Pool::new(8, Duration::from_secs(60));
            let (mut locals, mut servers) = (Vec::new(), Vec::new());
            for _ in 0..3 {
                let (stream, server) = connection().await;
                locals.push(stream.local_addr().unwrap());
                servers.push(server);
                pool.keep(key(1), stream);
            }
            for local in locals.into_iter().rev() {
                assert_eq!(pool.take(key(1)).unwrap().local_addr().unwrap(), local);
            }
            assert!(pool.take(key(1)).is_none());
        });
    }

    #[test]
    fn another_address_or_source_has_others() {
        run(async {
            let pool = Pool::new(8, Duration::from_secs(60));
            let (stream, _server) = connection().await;
            pool.keep(key(1), stream);
            let bound: Key = (key(1).0, Some(Ipv4Addr::LOCALHOST.into()));
            assert!(pool.take(key(2)).is_none() && pool.take(bound).is_none());
            assert!(pool.take(key(1)).is_some());
        });
    }

    #[test]
    fn a_connection_that_was_closed_or_speaks_unasked_is_of_no_use() {
        run(async {
            let pool = Pool::new(8, Duration::from_secs(60));
            let (quiet, _quiet_server) = connection().await;
            let local = quiet.local_addr().unwrap();
            pool.keep(key(1), quiet);
            let (closed, server) = connection().await;
            drop(server);
            arrived(&closed).await;
            pool.keep(key(1), closed);
            let (reset, server) = connection().await;
            SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
            drop(server);
            arrived(&reset).await;
            pool.keep(key(1), reset);
            let (speaking, mut server) = connection().await;
            server.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
            arrived(&speaking).await;
            pool.keep(key(1), speaking);
            assert_eq!(pool.take(key(1)).unwrap().local_addr().unwrap(), local);
            assert!(pool.take(key(1)).is_none());
        });
    }

    #[test]
    fn no_more_than_per_origin_are_kept() {
        run(async {
            let pool = Pool::new(2, Duration::from_secs(60));
            let mut servers = Vec::new();
            for _ in 0..3 {
                let (stream, server) = connection().await;
                pool.keep(key(1), stream);
                servers.push(server);
            }
            assert!(pool.take(key(1)).is_some() && pool.take(key(1)).is_some());
            assert!(pool.take(key(1)).is_none());
            let none = Pool::new(0, Duration::from_secs(60));
            let (stream, _server) = connection().await;
            none.keep(key(1), stream);
            assert!(none.take(key(1)).is_none());
        });
    }

    #[test]
    fn a_sweep_closes_what_is_old_in_order() {
        run(async {
            let (patient, impatient) = (Pool::new(8, Duration::from_secs(60)), Pool::new(8, Duration::ZERO));
            let (stream, server) = connection().await;
            impatient.keep(key(1), stream);
            impatient.sweep();
            assert_closed_in_order(&server);
            assert!(impatient.take(key(1)).is_none());
            let (stream, server) = connection().await;
            patient.keep(key(1), stream);
            patient.sweep();
            patient.keep(key(1), patient.take(key(1)).unwrap());
            patient.close_all();
            assert_closed_in_order(&server);
            assert!(patient.take(key(1)).is_none());
        });
    }

    #[test]
    fn what_is_swept_makes_room_for_other_addresses() {
        run(async {
            let pool = Pool::new(1, Duration::ZERO);
            // An address counts as long as its entry is there, even if its connections were taken.
            for port in 0..u16::try_from(MAX_ORIGINS).unwrap() {
                pool.idle.borrow_mut().insert(key(port), Vec::new());
            }
            let (stream, _server) = connection().await;
            pool.keep(key(u16::MAX), stream);
            assert!(pool.take(key(u16::MAX)).is_none(), "the pool is full");
            pool.sweep();
            let (stream, _server) = connection().await;
            pool.keep(key(u16::MAX), stream);
            assert!(pool.take(key(u16::MAX)).is_some());
        });
    }
}
