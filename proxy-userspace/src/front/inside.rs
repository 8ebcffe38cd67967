//! What is spoken inside a tunnel whose client has a route for its target. The client takes that for a server on its own
//! machine and speaks plain HTTP with it, as with every `ws://` URL; where that really is, TLS may be spoken. So weir reads
//! the requests there, and serves them as if they had been asked for by themselves.

use std::rc::Rc;

use super::detect::{Detected, MAX_LOOK, detect};
use super::http1;
use crate::net::stream::Downstream;
use crate::pipeline::{Engine, tunnel};
use crate::target::Target;
use crate::telemetry::flow::Protocol;

/// Serves a tunnel to `target` that its client has been told is open, if its context has a route for it. `method` is how it
/// was asked for.
pub(super) async fn serve(
    engine: Rc<Engine>,
    mut downstream: Downstream,
    target: Target,
    method: &'static str,
) {
    loop {
        match detect(downstream.inbox.bytes()) {
            Detected::Http1 => return Box::pin(http1::serve(engine, downstream, target, None)).await,
            Detected::Unknown if downstream.inbox.bytes().len() < MAX_LOOK => {}
            _ => break,
        }
        let fill = downstream.inbox.fill(&mut downstream.stream);
        // It is looked at for as long as a request may take to come.
        match downstream.deadline.limit(engine.config.server.timeouts.idle, fill).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return,
            Err(_) => break,
        }
    }
    match tunnel::open(&engine, &downstream.client, &target, Protocol::Opaque, Some(method)).await {
        Ok(opened) => opened.with_status(200).relay(&engine, downstream),
        Err(refused) => refused.reset(downstream),
    }
}
