//! What is kept, by whom, and for how long.

use super::*;
use crate::net::transport::Transport;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as StdStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A connection, and its other end.
fn connection(listener: &TcpListener) -> (Connection, StdStream) {
    let address = listener.local_addr().unwrap();
    let stream = StdStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let (stream, vantage) = (Transport::Plain(stream), Vantage::default());
    let connection =
        Connection { stream, address, vantage, tls: None, through: None, connect_us: Some(1), tls_us: None };
    (connection, listener.accept().unwrap().0)
}

fn key(listener: &TcpListener) -> Key {
    let address = listener.local_addr().unwrap();
    Key { address, vantage: Vantage::default(), tls: None, through: None, owner: None }
}

fn pool(workers: usize, per_origin: usize, idle: usize, idle_timeout: Duration) -> Pool {
    let settings = config::Upstream { idle_per_origin: per_origin, idle, idle_timeout, ..Default::default() };
    Pool::new(&settings, workers)
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_connection_that_is_no_longer_quiet_is_not_used() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (key, pool) = (key(&listener), pool(1, 8, 8, LONG));
    let (quiet, _peer) = connection(&listener);
    let (closed, peer) = connection(&listener);
    let (spoke, mut speaker) = connection(&listener);
    for connection in [quiet, closed, spoke] {
        pool.keep(0, connection.into());
    }
    drop(peer);
    speaker.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    // No turn of the runtime in between: it has not heard of either.
    assert!(pool.take(0, &key, false).is_some());
    assert!(pool.take(0, &key, false).is_none());
    assert_eq!(pool.count.load(Ordering::Relaxed), 0);
}

/// Where a request could be sent again, what the runtime has heard is enough; and it hears all, sooner or later.
#[tokio::test]
async fn what_the_runtime_has_heard_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let key = key(&listener);
    for last_words in [b"".as_slice(), b"HTTP/1.1 200 OK\r\n\r\n"] {
        let pool = pool(1, 8, 8, LONG);
        let (mut kept, mut peer) = connection(&listener);
        peer.write_all(b"x").unwrap();
        kept.stream.read_exact(&mut [0]).await.unwrap();
        pool.keep(0, kept.into());
        let kept = pool.take(0, &key, true).expect("it is quiet");
        peer.write_all(last_words).unwrap();
        // None where it has said something: that may still be unread.
        let _peer = (!last_words.is_empty()).then_some(peer);
        kept.stream.socket().readable().await.unwrap();
        pool.keep(0, kept.into());
        assert!(pool.take(0, &key, true).is_none(), "{last_words:?}");
    }
}

#[tokio::test]
async fn an_origin_has_a_bound_and_old_ones_go() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (key, pool) = (key(&listener), pool(1, 2, 8, Duration::ZERO));
    let (connections, mut peers): (Vec<_>, Vec<_>) = (0..3).map(|_| connection(&listener)).unzip();
    connections.into_iter().for_each(|connection| pool.keep(0, connection.into()));
    assert_eq!((pool.own(0).count, pool.count.load(Ordering::Relaxed)), (2, 2));
    peers[0].set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(peers[0].read(&mut [0]).unwrap(), 0, "the oldest has ended");
    pool.sweep(0);
    assert_eq!((pool.own(0).count, pool.count.load(Ordering::Relaxed)), (0, 0));
    assert!(pool.take(0, &key, true).is_none());
}

#[tokio::test]
async fn all_have_a_bound_together_and_the_oldest_make_room() {
    let listeners = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let pool = pool(2, 8, 3, LONG);
    let mut peers = Vec::new();
    for (number, listener) in listeners.iter().enumerate() {
        let (connection, peer) = connection(listener);
        peers.push(peer);
        // The last one comes from the worker that has kept nothing yet.
        pool.keep(number / 3, connection.into());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(pool.count.load(Ordering::Relaxed), 3);
    let kept = listeners.each_ref().map(|listener| pool.take(0, &key(listener), false).is_some());
    assert_eq!(kept, [false, true, true, true]);
}

/// What one worker keeps, another one uses: on its own runtime, in whose epoll the socket is then.
#[test]
fn a_worker_takes_over_what_another_has_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (key, pool) = (key(&listener), pool(2, 8, 8, LONG));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let (kept, mut peer) = first.block_on(async { connection(&listener) });
    pool.keep(0, kept.into());
    second.block_on(async {
        let mut moved = pool.take(1, &key, true).expect("there is one");
        // The first one's runtime does nothing any more: nobody but the second can hear of these.
        moved.stream.write_all(b"ask").await.unwrap();
        let mut asked = [0; 3];
        peer.read_exact(&mut asked).unwrap();
        peer.write_all(b"yes").unwrap();
        let mut answer = [0; 3];
        tokio::time::timeout(LONG, moved.stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!((&asked, &answer), (b"ask", b"yes"));
        pool.keep(1, moved.into());
    });
    assert_eq!((pool.own(0).count, pool.own(1).count), (0, 1));
}
