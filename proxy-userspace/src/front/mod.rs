//! The doors: each accepts connections, finds out where they want to go, and hands that to the pipeline.

pub mod detect;
pub mod explicit;
mod http1;
mod http2;
pub mod transparent;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::net::listener::BACKLOG;
use crate::net::stream::{Admission, Admitted};

/// How long accepting rests when the process is out of descriptors or memory: trying at once would spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Accepts until `drain` changes, giving each connection a task of `serve`'s. Connections that are established by
/// then, but were not accepted yet, are accepted too: closing their listener would reset them. `refused` is told of
/// those for which there is no place.
async fn accept<F>(
    listener: TcpListener,
    admission: Arc<Admission>,
    mut drain: watch::Receiver<bool>,
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
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = drain.changed() => break,
        };
        match accepted {
            Ok((stream, peer)) => begin(stream, peer),
            Err(error) => rest_after(&error).await,
        }
    }
    if let Err(error) = accept_queued(listener, begin) {
        tracing::warn!(%error, "connections that waited to be accepted are lost");
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
}
