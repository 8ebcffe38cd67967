//! Captured connections: the kernel half has redirected them here, and knows where they were going.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::detect::{Detected, MAX_LOOK, detect};
use super::{Service, Shared, accept, http1, http2, intercept};
use crate::containers::Names;
use crate::filters;
use crate::http::authority::{Authority, Host};
use crate::net::admission::{Admitted, Refusal};
use crate::net::buffered::Inbox;
use crate::net::deadline::Deadline;
use crate::net::stream::Downstream;
use crate::net::transport::Transport;
use crate::netns::Namespace;
use crate::pipeline::failure::Failure;
use crate::pipeline::{Engine, Engines, dns, tunnel};
use crate::redirect::{self, OriginalDestinations};
use crate::running::Phase;
use crate::target::{Client, Front, Process, Target, Vantage};
use crate::telemetry::flow::Protocol;
use crate::telemetry::metrics;

/// Where DNS is spoken (RFC 7766).
const DNS_PORT: u16 = 53;

/// What captured connections are served with.
struct Source {
    engines: Rc<Engines>,
    originals: OriginalDestinations,
    /// Where they were accepted.
    port: u16,
    names: Rc<Names>,
    /// Where they were made, if that is not weir's own network namespace.
    namespace: Option<Arc<Namespace>>,
}

/// Serves a listener until weir stops: what was redirected here arrives here, whoever redirects by then.
pub async fn run(listener: TcpListener, shared: Shared, originals: OriginalDestinations) {
    let stopping = shared.reached(Phase::Stopping);
    let Shared { engines, names, admission, .. } = shared;
    let source = Rc::new(Source { engines, originals, port: port(&listener), names, namespace: None });
    let refuse = forget(&source);
    let serve = move |stream, peer, admitted| serve(Rc::clone(&source), stream, peer, admitted);
    accept(listener, stopping, Service { admission, counts_clients: false, serve, refuse }).await;
}

/// Serves a listener inside another network namespace, until weir stops or nobody lives there any more. Its connections
/// are cut off when they are all that keeps the namespace from going.
pub async fn run_inside(listener: TcpListener, shared: Shared, door: (OriginalDestinations, Arc<Namespace>)) {
    let (originals, namespace) = door;
    let (stopping, closed) = (shared.reached(Phase::Stopping), namespace.closed());
    let stop = async {
        tokio::select! {
            phase = stopping => phase,
            () = closed => Phase::Stopping,
        }
    };
    let Shared { engines, names, admission, .. } = shared;
    let inside = Some(Arc::clone(&namespace));
    let source = Rc::new(Source { engines, originals, port: port(&listener), names, namespace: inside });
    let refuse = forget(&source);
    let serve = move |stream, peer, admitted| {
        let serving = serve(Rc::clone(&source), stream, peer, admitted);
        let ended = namespace.ended();
        async move {
            tokio::select! {
                () = serving => {}
                () = ended => {}
            }
        }
    };
    accept(listener, stop, Service { admission, counts_clients: false, serve, refuse }).await;
}

/// 0, for which there are no records, if the kernel doesn't tell.
fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().map_or(0, |address| address.port())
}

/// Resets a captured connection for which there is no place. Its record must not wait for whoever connects from the same
/// port next.
fn forget(source: &Rc<Source>) -> impl Fn(TcpStream, SocketAddr, Refusal) -> std::future::Ready<()> + use<> {
    let source = Rc::clone(source);
    move |_, peer, _| {
        drop(source.originals.claim(peer, source.port));
        std::future::ready(())
    }
}

async fn serve(source: Rc<Source>, stream: TcpStream, peer: SocketAddr, admitted: Admitted) {
    metrics::with(|metrics| metrics.captured_connections.increment());
    let captured = match source.originals.claim(peer, source.port) {
        Ok(Some(captured)) => captured,
        lost => {
            // No original destination, no guess: dropping the socket resets it.
            metrics::with(|metrics| metrics.lost_destinations.increment());
            // Anybody on this host can bring this about: the counter tells, the log is not to be flooded.
            return tracing::debug!(%peer, ?lost, "a connection has no original destination; reset");
        }
    };
    let engine = source.engines.newest();
    let container = source.names.of(captured.cgroup);
    let namespace = source.namespace.clone();
    drop(source);
    let original = captured.original;
    let redirect::Captured { pid, uid, cgroup, comm, rule, .. } = captured;
    let process = Process { pid, uid, cgroup, container, comm };
    let client = Client { address: peer, process: Some(Arc::new(process)) };
    let mut downstream = Downstream {
        stream: Transport::Plain(stream),
        inbox: Inbox::default(),
        client,
        deadline: Deadline::new(),
        admitted: Some(admitted),
    };
    // A socket that was bound to an address of its own choice keeps it on the way out.
    let source = Some(peer.ip()).filter(|ip| !ip.is_loopback());
    let vantage = Vantage { source, namespace };
    let base = Target { original_destination: Some(original), vantage, rule, ..Target::of(Front::Captured) };
    if original.port() == DNS_PORT
        && let Some(inspection) = &engine.dns
    {
        return dns::relay(&engine, inspection, downstream, &base).await;
    }
    let Ok(detected) = look(&engine, &mut downstream, original.port()).await else {
        return tunnel::abandon(&downstream.client, &base);
    };
    let (protocol, authority) = match detected {
        Detected::Http1 => return http1::serve(engine, downstream, base, None).await,
        // Boxed: the other kinds of connection are not to pay for its size.
        Detected::Http2 => return Box::pin(http2::serve(engine, downstream, base)).await,
        Detected::Tls(hello) => (Protocol::Tls, hello.server_name.and_then(|name| named(&name, original))),
        Detected::Opaque | Detected::Unknown => (Protocol::Opaque, None),
    };
    let target = Target { authority, ..base };
    if let Some(rule) = &target.rule
        && let Err(denial) = filters::check_name(&**rule, name_of(target.authority.as_ref()))
    {
        // Dropped, the connection is reset.
        return tunnel::refuse(&downstream.client, &target, protocol, &Failure::Filtered(denial));
    }
    match tunnel::open(&engine, &downstream.client, &target, protocol, None).await {
        Ok(opened) => intercept::relay(engine, downstream, opened, target).await,
        Err(refused) => refused.reset(downstream),
    }
}

/// Reads until it is clear what the client speaks, or it has been silent for `capture.detect_timeout`: in
/// many protocols the server speaks first. An error is the client's reset.
async fn look(engine: &Engine, downstream: &mut Downstream, port: u16) -> io::Result<Detected> {
    let capture = &engine.config.capture;
    if capture.server_first_ports.contains(&port) {
        return Ok(Detected::Unknown);
    }
    let limit: Duration = capture.detect_timeout;
    let looking = async {
        loop {
            // The end of the stream is for the relay to pass on. A reset is read once only: past this place,
            // it would look like an end.
            if downstream.inbox.fill(&mut downstream.stream).await? == 0 {
                return Ok(Detected::Opaque);
            }
            match detect(downstream.inbox.bytes()) {
                Detected::Unknown if downstream.inbox.bytes().len() < MAX_LOOK => {}
                detected => return Ok(detected),
            }
        }
    };
    timeout(limit, looking).await.unwrap_or(Ok(Detected::Unknown))
}

fn name_of(authority: Option<&Authority>) -> Option<&str> {
    match &authority?.host {
        Host::Name(name) => Some(name),
        Host::Address(_) => None,
    }
}

fn named(server_name: &str, original: SocketAddr) -> Option<Authority> {
    Host::parse(server_name).ok().map(|host| Authority { host, port: original.port() })
}
