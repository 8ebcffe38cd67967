//! The doors: each accepts connections, finds out where they want to go, and hands that to the pipeline.

pub mod detect;
pub mod explicit;
mod http1;
mod http2;
mod secure;
mod socks5;
pub mod transparent;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::containers::Names;
use crate::net::buffered::Inbox;
use crate::net::listener::{BACKLOG, refuse_handshakes};
use crate::net::stream::{Admission, Admitted};

/// How long accepting rests when the process is out of descriptors or memory: trying at once would spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How long a handshake that has begun may take to end once weir drains: the round trip to any client nearby.
const HANDSHAKES_SETTLE: Duration = Duration::from_millis(50);

/// Accepts until `stop` is ready, giving each connection a task of `serve`'s. Handshakes that have begun by then end,
/// and their connections are accepted too: closing their listener would reset them. `refused` is told of
/// those for which there is no place.
async fn accept<F>(
    listener: TcpListener,
    admission: Arc<Admission>,
    stop: impl Future<Output = ()>,
    serve: impl Fn(TcpStream, SocketAddr, Admitted) -> F,
    refused: impl Fn(SocketAddr),
) where
    F: Future<Output = ()> + 'static,
{
    let begin = |stream, peer| match admission.admit() {
        Some(admitted) => drop(tokio::task::spawn_local(serve(stream, peer, admitted))),
        // Beyond the limit the connection is reset at once: the client learns that it was refused.
        None => refused(peer),
    };
    tokio::select! {
        () = accept_all(&listener, &begin) => {}
        () = stop => {}
    }
    if let Err(error) = refuse_handshakes(&listener) {
        tracing::warn!(%error, "clients in the middle of a handshake may be reset");
    }
    let _ = timeout(HANDSHAKES_SETTLE, accept_all(&listener, &begin)).await;
    if let Err(error) = accept_queued(listener, begin) {
        tracing::warn!(%error, "connections that waited to be accepted are lost");
    }
}

async fn accept_all(listener: &TcpListener, begin: &impl Fn(TcpStream, SocketAddr)) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => begin(stream, peer),
            Err(error) => rest_after(&error).await,
        }
    }
}

/// Accepts what the kernel has queued, and closes the listener.
fn accept_queued(listener: TcpListener, begin: impl Fn(TcpStream, SocketAddr)) -> io::Result<()> {
    // Not through tokio, which asks the kernel only once epoll has told it to.
    let listener = listener.into_std()?;
    // More than fit into the queue have come since: somebody connects as fast as weir accepts.
    for _ in 0..BACKLOG {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                begin(TcpStream::from_std(stream)?, peer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if is_of_connection(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn rest_after(error: &io::Error) {
    if !is_of_connection(error) {
        tracing::warn!(%error, "can't accept connections; trying again in {} ms", ACCEPT_REST.as_millis());
        tokio::time::sleep(ACCEPT_REST).await;
    }
}

/// accept(2): errors of the connection that was about to be accepted are not ours.
fn is_of_connection(error: &io::Error) -> bool {
    let of_connection = [libc::ECONNABORTED, libc::EPROTO, libc::EINTR, libc::ENETDOWN, libc::EHOSTUNREACH];
    error.raw_os_error().is_some_and(|code| of_connection.contains(&code))
}

/// A listener made by [`crate::net::listener`], for use on this worker's runtime.
///
/// # Errors
/// What registering it with epoll says.
pub fn into_async(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    TcpListener::from_std(listener)
}

/// The engine and what else a front's tasks share on their worker.
#[derive(Debug, Clone)]
pub struct Shared {
    pub engine: Rc<crate::pipeline::Engine>,
    pub admission: Arc<Admission>,
    pub drain: watch::Receiver<bool>,
    pub names: Rc<Names>,
}

impl Shared {
    /// Ready when weir drains.
    fn drained(&self) -> impl Future<Output = ()> + use<> {
        let mut drain = self.drain.clone();
        // An error means that weir is gone altogether.
        async move { drop(drain.wait_for(|drain| *drain).await) }
    }
}
