//! The doors: each accepts connections, finds out where they want to go, and hands that to the pipeline.

pub mod detect;
pub mod explicit;
mod http1;
pub mod transparent;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::net::stream::{Admission, Admitted};

/// How long accepting rests when the process is out of descriptors or memory: trying at once would spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Accepts until `drain` changes, giving each connection a task of `serve`'s.
async fn accept<F>(
    listener: TcpListener,
    admission: Arc<Admission>,
    mut drain: watch::Receiver<bool>,
    serve: impl Fn(TcpStream, SocketAddr, Admitted) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = drain.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Beyond the limit the connection is reset at once: the client learns that it was refused.
                if let Some(admitted) = admission.admit() {
                    tokio::task::spawn_local(serve(stream, peer, admitted));
                }
            }
            Err(error) => rest_after(&error).await,
        }
    }
}

async fn rest_after(error: &io::Error) {
    // accept(2): errors of the connection that was about to be accepted are not ours.
    let of_connection = [libc::ECONNABORTED, libc::EPROTO, libc::EINTR, libc::ENETDOWN, libc::EHOSTUNREACH];
    if !error.raw_os_error().is_some_and(|code| of_connection.contains(&code)) {
        tracing::warn!(%error, "can't accept connections; trying again in {} ms", ACCEPT_REST.as_millis());
        tokio::time::sleep(ACCEPT_REST).await;
    }
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
