//! The explicit proxy: clients that know of it and say where they want to go (`curl -x`).

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::{TcpListener, TcpStream};

use super::{Shared, accept, http1, http2};
use crate::net::buffered::Inbox;
use crate::net::deadline::Deadline;
use crate::net::frames::PREFACE;
use crate::net::stream::{Admitted, Downstream};
use crate::pipeline::Engine;
use crate::target::{Client, Front, Target};
use crate::telemetry::metrics;

/// Serves a listener until weir drains.
pub async fn run(listener: TcpListener, shared: Shared) {
    let engine = shared.engine;
    let serve = |stream, peer, admitted| {
        metrics::with(|metrics| metrics.explicit_connections.increment());
        serve(engine.clone(), downstream(stream, peer, admitted))
    };
    accept(listener, shared.admission, shared.drain, serve, |_| {}).await;
}

async fn serve(engine: Rc<Engine>, mut downstream: Downstream) {
    let base = Target::of(Front::Explicit);
    match first_look(&engine, &mut downstream).await {
        None => downstream.close_idle(),
        Some(Spoken::Http1) => http1::serve(engine, downstream, base).await,
        // Boxed: the other kind of connection is not to pay for its size.
        Some(Spoken::Http2) => Box::pin(http2::serve(engine, downstream, base)).await,
    }
}

/// What a client speaks.
enum Spoken {
    Http1,
    Http2,
}

/// Tells HTTP/2 with prior knowledge (RFC 9113 §3.3) from all that begins differently. Reads no further than that
/// takes. None: the client has ended the connection, or never began.
async fn first_look(engine: &Engine, downstream: &mut Downstream) -> Option<Spoken> {
    let timeouts = &engine.config.server.timeouts;
    if !http1::first_bytes(downstream, timeouts).await {
        return None;
    }
    downstream.deadline.arm(timeouts.request_head);
    loop {
        let bytes = downstream.inbox.bytes();
        let common = bytes.len().min(PREFACE.len());
        if bytes[..common] != PREFACE[..common] {
            return Some(Spoken::Http1);
        }
        if common == PREFACE.len() {
            return Some(Spoken::Http2);
        }
        let fill = downstream.inbox.fill(&mut downstream.stream);
        if !matches!(downstream.deadline.race(fill).await, Ok(Ok(1..))) {
            // What a part of a head deserves, is known there.
            return Some(Spoken::Http1);
        }
    }
}

fn downstream(stream: TcpStream, peer: SocketAddr, admitted: Admitted) -> Downstream {
    let client = Client { address: peer, process: None };
    Downstream { stream, inbox: Inbox::default(), client, deadline: Deadline::new(), admitted }
}
