//! The explicit proxy: clients that know of it and say where they want to go (`curl -x`). What they speak is told by
//! their first byte.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Inbox, Service, Shared, accept, http1, http2, overload, secure, socks5};
use crate::http::authority::Scheme;
use crate::net::admission::{Admitted, Refusal};
use crate::net::deadline::Deadline;
use crate::net::frames::PREFACE;
use crate::net::stream::Downstream;
use crate::net::transport::Transport;
use crate::pipeline::Engine;
use crate::pipeline::failure::Failure;
use crate::running::Phase;
use crate::target::{Client, Front, Target};
use crate::telemetry::metrics;
use crate::tls::alpn;

/// Serves a listener until weir stops, or another weir has taken its place. While this one is still about to take
/// another's, that one accepts. `door`: whether the listener is still wanted.
pub async fn run(listener: TcpListener, shared: Shared, mut door: watch::Receiver<bool>) {
    shared.reached(Phase::Serving).await;
    let replaced = shared.reached(Phase::Replaced { keeps_door: false });
    // Whoever closes the door waits until nobody holds it: until the listener is closed, too.
    let held = door.clone();
    let ended = async move {
        tokio::select! {
            phase = replaced => phase,
            // Nobody else accepts here. An error means that nobody is left who could close it.
            Ok(_) = door.wait_for(|is_open| !is_open) => Phase::Stopping,
        }
    };
    let (engines, admission) = (shared.engines, shared.admission);
    let serve = move |stream, peer, admitted| {
        metrics::with(|metrics| metrics.explicit_connections.increment());
        serve(engines.newest(), downstream(stream, peer, admitted))
    };
    let refuse = |stream, _, refusal: Refusal| overload::turn_away(stream, refusal);
    accept(listener, ended, Service { admission, counts_clients: true, serve, refuse }).await;
    drop(held);
}

async fn serve(engine: Rc<Engine>, mut downstream: Downstream) {
    let base = Target::of(Front::Explicit);
    let timeouts = &engine.config.server.timeouts;
    if !http1::first_bytes(&mut downstream, timeouts).await {
        return downstream.close_idle();
    }
    match (&engine.acceptance, downstream.inbox.bytes()) {
        (Some(acceptance), [secure::FIRST_BYTE, ..]) => {
            // Boxed: a handshake needs memory that the connection does not.
            let accepted = Box::pin(secure::accept(acceptance, downstream, timeouts)).await;
            let Some(downstream) = accepted else { return };
            let base = Target { scheme: Scheme::Https, ..base };
            match downstream.stream.alpn().as_deref() {
                Some(alpn::HTTP2) => Box::pin(http2::serve(Rc::clone(&engine), downstream, base)).await,
                _ => http1::serve(Rc::clone(&engine), downstream, base, None).await,
            }
        }
        (Some(acceptance), _) if acceptance.is_required() => {
            let failure = Failure::BadRequest("this port speaks TLS only: use an https:// URL".into());
            http1::refuse(&engine, downstream, &base, &failure).await;
        }
        (_, [socks5::VERSION, ..]) if engine.config.server.socks5 => {
            Box::pin(socks5::serve(Rc::clone(&engine), downstream, base)).await;
        }
        _ => match first_look(&engine, &mut downstream).await {
            Spoken::Http1 => http1::serve(Rc::clone(&engine), downstream, base, None).await,
            // Boxed: the other kind of connection is not to pay for its size.
            Spoken::Http2 => Box::pin(http2::serve(Rc::clone(&engine), downstream, base)).await,
        },
    }
}

/// What a client speaks.
enum Spoken {
    Http1,
    Http2,
}

/// Tells HTTP/2 with prior knowledge (RFC 9113 §3.3) from all that begins differently. Reads no further than that
/// takes.
async fn first_look(engine: &Engine, downstream: &mut Downstream) -> Spoken {
    downstream.deadline.arm(engine.config.server.timeouts.request_head);
    loop {
        let bytes = downstream.inbox.bytes();
        let common = bytes.len().min(PREFACE.len());
        if bytes[..common] != PREFACE[..common] {
            return Spoken::Http1;
        }
        if common == PREFACE.len() {
            return Spoken::Http2;
        }
        let fill = downstream.inbox.fill(&mut downstream.stream);
        if !matches!(downstream.deadline.race(fill).await, Ok(Ok(1..))) {
            // What a part of a head deserves, is known there.
            return Spoken::Http1;
        }
    }
}

fn downstream(stream: TcpStream, peer: SocketAddr, admitted: Admitted) -> Downstream {
    let client = Client { address: peer, process: None };
    let stream = Transport::Plain(stream);
    Downstream {
        stream,
        inbox: Inbox::default(),
        client,
        deadline: Deadline::new(),
        admitted: Some(admitted),
    }
}
