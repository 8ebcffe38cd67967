//! The doors: each accepts connections, finds out where they want to go, and hands that to the pipeline.

pub mod detect;
pub mod explicit;
mod http1;
mod http2;
mod inside;
mod intercept;
mod overload;
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
use crate::http::basic::Presented;
use crate::http::framing::{self, Framing};
use crate::http::head::RequestHead;
use crate::http::headers::Name;
use crate::net::admission::{Admission, Admitted, Refusal};
use crate::net::buffered::Inbox;
use crate::net::listener::{BACKLOG, refuse_handshakes};
use crate::pipeline::failure::Failure;
use crate::running::Phase;
use crate::target::{Front, Target};
use crate::telemetry::metrics;
use overload::Waiting;

/// How long accepting rests when the process is out of descriptors or memory: trying at once would spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How long a handshake that has begun may take to end once weir drains: the round trip to any client nearby.
const HANDSHAKES_SETTLE: Duration = Duration::from_millis(50);

/// What becomes of the connections of a listener.
struct Service<S, R> {
    /// A place for one more.
    admission: Arc<Admission>,
    /// Whether clients have a limit of their own.
    counts_clients: bool,
    serve: S,
    /// What becomes of those for which there is no place.
    refuse: R,
}

impl<F, G, S, R> Service<S, R>
where
    F: Future<Output = ()> + 'static,
    G: Future<Output = ()> + 'static,
    S: Fn(TcpStream, SocketAddr, Admitted) -> F + 'static,
    R: Fn(TcpStream, SocketAddr, Refusal) -> G + 'static,
{
    fn admit(&self, peer: SocketAddr) -> Result<Admitted, Refusal> {
        self.admission.admit(self.counts_clients.then(|| peer.ip()))
    }

    /// Gives a connection a task of its own.
    fn begin(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        match self.admit(peer) {
            Ok(admitted) => drop(tokio::task::spawn_local((self.serve)(stream, peer, admitted))),
            Err(refusal) => {
                let waiting = Waiting::begin();
                drop(tokio::task::spawn_local(Rc::clone(self).without_place(stream, peer, refusal, waiting)));
            }
        }
    }

    /// `waiting` is None where too many wait already.
    async fn without_place(
        self: Rc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        mut refusal: Refusal,
        waiting: Option<Waiting>,
    ) {
        if refusal == Refusal::Full && waiting.is_some() {
            match overload::place(|| self.admit(peer)).await {
                Ok(admitted) => {
                    drop(waiting);
                    return Box::pin((self.serve)(stream, peer, admitted)).await;
                }
                Err(found) => refusal = found,
            }
        }
        metrics::with(|metrics| match refusal {
            Refusal::Full => metrics.refused_connections.increment(),
            Refusal::Client => metrics.refused_client_connections.increment(),
        });
        if waiting.is_some() {
            (self.refuse)(stream, peer, refusal).await;
        }
    }
}

/// Accepts until `stop` is ready. Handshakes that have begun by then end, and their connections are accepted too: closing
/// their listener would reset them. Where another weir accepts from it, too, all is left to that one.
async fn accept<F, G, S, R>(listener: TcpListener, stop: impl Future<Output = Phase>, service: Service<S, R>)
where
    F: Future<Output = ()> + 'static,
    G: Future<Output = ()> + 'static,
    S: Fn(TcpStream, SocketAddr, Admitted) -> F + 'static,
    R: Fn(TcpStream, SocketAddr, Refusal) -> G + 'static,
{
    let service = Rc::new(service);
    let begin = |stream, peer| service.begin(stream, peer);
    let phase = tokio::select! {
        () = accept_all(&listener, &begin) => return,
        phase = stop => phase,
    };
    if phase == (Phase::Replaced { keeps_door: true }) {
        return;
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

/// RFC 9110 §9.3.6: a CONNECT has no content, and what follows it is the tunnel's. One that announces content can be read
/// in two ways.
fn check_connect(head: &RequestHead) -> Result<(), Failure> {
    match framing::of_request(head)? {
        // Some old clients say that there is none.
        Framing::None | Framing::Length(0) => Ok(()),
        _ => Err(Failure::BadRequest("a CONNECT has no content, and this one announces some".into())),
    }
}

/// Who a client of the explicit proxy says that it is.
fn presented(head: &RequestHead, base: &Target) -> Option<Arc<Presented>> {
    let mut values = head.headers.all(Name::ProxyAuthorization);
    let first = values.next().filter(|_| base.front == Front::Explicit)?;
    // Of two that differ, neither can be meant.
    let presented = if values.next().is_some() { Presented::Other } else { Presented::parse(first) };
    Some(Arc::new(presented))
}

/// The engine and what else a front's tasks share on their worker.
#[derive(Debug, Clone)]
pub struct Shared {
    pub engines: Rc<crate::pipeline::Engines>,
    pub admission: Arc<Admission>,
    pub phase: watch::Receiver<Phase>,
    pub names: Rc<Names>,
}

impl Shared {
    /// Ready when weir is so far: gives how far it is.
    fn reached(&self, wanted: Phase) -> impl Future<Output = Phase> + use<> {
        let mut phase = self.phase.clone();
        // An error means that weir is gone altogether.
        async move { phase.wait_for(|phase| *phase >= wanted).await.map_or(Phase::Stopping, |phase| *phase) }
    }
}
