//! The explicit proxy: clients that know of it and say where they want to go (`curl -x`). What they speak is told by
//! their first byte.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::{TcpListener, TcpStream};

use super::{Inbox, Shared, accept, http1, secure};
use crate::http::authority::Scheme;
use crate::net::deadline::Deadline;
use crate::net::stream::{Admitted, Downstream};
use crate::net::transport::Transport;
use crate::pipeline::Engine;
use crate::pipeline::failure::Failure;
use crate::target::{Client, Front, Target};
use crate::telemetry::metrics;

/// Serves a listener until weir drains.
pub async fn run(listener: TcpListener, shared: Shared) {
    let drained = shared.drained();
    let engine = shared.engine;
    let serve = |stream, peer, admitted| {
        metrics::with(|metrics| metrics.explicit_connections.increment());
        serve(engine.clone(), downstream(stream, peer, admitted))
    };
    accept(listener, shared.admission, drained, serve, |_| {}).await;
}

fn downstream(stream: TcpStream, peer: SocketAddr, admitted: Admitted) -> Downstream {
    let client = Client { address: peer, process: None };
    let stream = Transport::Plain(stream);
    Downstream { stream, inbox: Inbox::default(), client, deadline: Deadline::new(), admitted }
}

async fn serve(engine: Rc<Engine>, mut downstream: Downstream) {
    let base = Target::of(Front::Explicit);
    let Some(acceptance) = &engine.acceptance else {
        return http1::serve(engine, downstream, base).await;
    };
    let timeouts = &engine.config.server.timeouts;
    if !http1::first_bytes(&mut downstream, timeouts).await {
        return downstream.close_idle();
    }
    match downstream.inbox.bytes() {
        [secure::FIRST_BYTE, ..] => {
            // Boxed: a handshake needs memory that the connection does not.
            let accepted = Box::pin(secure::accept(acceptance, downstream, timeouts)).await;
            if let Some(downstream) = accepted {
                let base = Target { scheme: Scheme::Https, ..base };
                http1::serve(Rc::clone(&engine), downstream, base).await;
            }
        }
        _ if acceptance.is_required() => {
            let failure = Failure::BadRequest("this port speaks TLS only: use an https:// URL".into());
            http1::refuse(&engine, downstream, &base, &failure).await;
        }
        _ => http1::serve(Rc::clone(&engine), downstream, base).await,
    }
}
