//! The explicit proxy: clients that know of it and say where they want to go (`curl -x`).

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use super::{Shared, accept, http1};
use crate::net::buffered::Inbox;
use crate::net::deadline::Deadline;
use crate::net::stream::{Admitted, Downstream};
use crate::target::{Client, Front, Target};
use crate::telemetry::metrics;

/// Serves a listener until weir drains.
pub async fn run(listener: TcpListener, shared: Shared) {
    let drained = shared.drained();
    let engine = shared.engine;
    let serve = |stream, peer, admitted| {
        metrics::with(|metrics| metrics.explicit_connections.increment());
        http1::serve(engine.clone(), downstream(stream, peer, admitted), Target::of(Front::Explicit))
    };
    accept(listener, shared.admission, drained, serve, |_| {}).await;
}

fn downstream(stream: TcpStream, peer: SocketAddr, admitted: Admitted) -> Downstream {
    let client = Client { address: peer, process: None };
    Downstream { stream, inbox: Inbox::default(), client, deadline: Deadline::new(), admitted }
}
