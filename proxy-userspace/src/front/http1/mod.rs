//! HTTP/1 on a downstream connection: one request after the other, each with its target.

mod aim;
mod side;

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::{inside, intercept};
use crate::config::Timeouts;
use crate::filters;
use crate::http::head::RequestHead;
use crate::http::parse::{self, Parsed};
use crate::net::stream::Downstream;
use crate::net::transport::Transport;
use crate::pipeline::failure::Failure;
use crate::pipeline::request::{self, Next};
use crate::pipeline::{Engine, identify, tunnel};
use crate::target::{Front, Target};
use crate::telemetry::flow::Protocol;
use crate::upstream::Idle;
use aim::{Aim, aim, is_for_origin};
use side::Http1;

/// Serves requests until the connection ends or becomes a tunnel. `base` is what is known of their target before
/// they are read, `own` an upstream connection that is there for them.
pub(super) async fn serve(
    mut engine: Rc<Engine>,
    mut downstream: Downstream,
    base: Target,
    mut own: Option<Idle>,
) {
    let mut follows = false;
    loop {
        let head = match read_head(&engine, &mut downstream, &base).await {
            Ok(Read::Head(head)) => head,
            Ok(Read::End) => return downstream.close_idle(),
            Ok(Read::ForProxy) => return Box::pin(pass_on(&engine, downstream, &base, own)).await,
            // Boxed, as it is rare: every connection would have the memory.
            Err(failure) => return Box::pin(refuse(&engine, downstream, &base, &failure)).await,
        };
        engine = engine.newest();
        let (next, keeps) = match aim(head, &base, follows) {
            Ok(Aim::Request(mut request)) => {
                let mut side = Http1::of(&mut downstream, &request.head);
                // Boxed: between requests, and once it is a tunnel, a connection needs none of that memory.
                let next = Box::pin(request::serve(&engine, &mut side, &mut request, &mut own)).await;
                (next, side.keeps())
            }
            Ok(Aim::Tunnel(target)) if identify::has_route(&engine, &target) => {
                // Boxed, as it is rare.
                return Box::pin(connect_inside(engine, downstream, target)).await;
            }
            Ok(Aim::Tunnel(target)) => return connect(engine, downstream, target).await,
            Err(failure) => return Box::pin(refuse(&engine, downstream, &base, &failure)).await,
        };
        match next {
            Next::Done { sent: true } if keeps => follows = true,
            Next::Done { .. } => return downstream.close().await,
            Next::Abort(_) => return,
            Next::Tunnel(opened) => return opened.relay(&engine, downstream),
        }
    }
}

/// What a client has sent next.
enum Read {
    Head(RequestHead),
    /// A request that a captured client asks a proxy of its own. It is still in the inbox.
    ForProxy,
    /// It has ended the connection, or was idle for too long.
    End,
}

/// Reads the next head.
async fn read_head(engine: &Engine, downstream: &mut Downstream, base: &Target) -> Result<Read, Failure> {
    let timeouts = &engine.config.server.timeouts;
    let limits = &engine.config.server.limits;
    let may_be_for_proxy = base.front == Front::Captured && !base.intercepted;
    if downstream.inbox.bytes().is_empty() && !first_bytes(downstream, timeouts).await {
        return Ok(Read::End);
    }
    downstream.deadline.arm(timeouts.request_head);
    loop {
        if !downstream.inbox.bytes().is_empty() {
            match parse::request(downstream.inbox.bytes(), limits)? {
                Parsed::Complete(head, _) if may_be_for_proxy && !is_for_origin(&head) => {
                    return Ok(Read::ForProxy);
                }
                Parsed::Complete(head, length) => {
                    downstream.inbox.consume(length);
                    return Ok(Read::Head(head));
                }
                Parsed::Partial => {}
            }
        }
        let fill = downstream.inbox.fill(&mut downstream.stream);
        match downstream.deadline.race(fill).await {
            Err(_) => return Err(Failure::RequestTimedOut),
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) if downstream.inbox.bytes().is_empty() => return Ok(Read::End),
            Ok(Ok(0) | Err(_)) => return Err(Failure::ClientGone),
        }
    }
}

/// A captured client that has asked for something in origin-form speaks to a proxy of its own, after all. What it asks
/// that one is between the two, as on a connection that begins so (see [`super::detect`]): unread from here on, over the
/// upstream connection that it has.
async fn pass_on(engine: &Rc<Engine>, downstream: Downstream, base: &Target, own: Option<Idle>) {
    if let Some(rule) = &base.rule
        && let Err(denial) = filters::check_name(&**rule, None)
    {
        return tunnel::refuse(&downstream.client, base, Protocol::Opaque, &Failure::Filtered(denial));
    }
    match tunnel::open_over(engine, &downstream.client, base, own.and_then(Idle::wake)).await {
        Ok(opened) => opened.relay(engine, downstream),
        Err(refused) => refused.reset(downstream),
    }
}

/// Waits for a request to begin, without a buffer: an idle connection holds none. False if the client ends the
/// connection, or is idle for too long. A drain ends the wait at once only between requests: who has just connected
/// is about to ask.
pub(super) async fn first_bytes(downstream: &mut Downstream, timeouts: &Timeouts) -> bool {
    let Downstream { stream, inbox, deadline, .. } = downstream;
    let first = async {
        loop {
            inbox.release();
            let socket = match &mut *stream {
                Transport::Plain(socket) => socket,
                // A session has buffers of its own in any case.
                tls @ Transport::Tls(_) => return inbox.fill(tls).await,
            };
            socket.readable().await?;
            // That was a guess (tokio takes every accepted socket for readable); only reading tells.
            match inbox.try_fill(socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    };
    let in_drain = if deadline.was_armed() { Duration::ZERO } else { timeouts.request_head };
    matches!(deadline.limit_idle(timeouts.idle, in_drain, first).await, Ok(Ok(1..)))
}

async fn connect(engine: Rc<Engine>, mut downstream: Downstream, target: Target) {
    let opened = tunnel::open(&engine, &downstream.client, &target, Protocol::Opaque, Some("CONNECT")).await;
    let opened = match opened {
        Ok(opened) => opened.with_status(200),
        Err(refused) => {
            if Box::pin(refused.answer(&engine, &mut Http1::last(&mut downstream))).await {
                downstream.close().await;
            }
            return;
        }
    };
    let write = downstream.stream.write_all(ESTABLISHED);
    let written = downstream.deadline.limit(engine.config.server.timeouts.write, write).await;
    if matches!(written, Ok(Ok(()))) {
        intercept::relay(engine, downstream, opened, target).await;
    }
}

/// As [`connect`], for a client that is led elsewhere: what it speaks is looked at.
async fn connect_inside(engine: Rc<Engine>, mut downstream: Downstream, target: Target) {
    let write = downstream.stream.write_all(ESTABLISHED);
    let written = downstream.deadline.limit(engine.config.server.timeouts.write, write).await;
    if matches!(written, Ok(Ok(()))) {
        inside::serve(engine, downstream, target, "CONNECT").await;
    }
}

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// Answers what is no acceptable request, and ends the connection: where the next one starts is unknown.
pub(super) async fn refuse(engine: &Engine, mut downstream: Downstream, base: &Target, failure: &Failure) {
    if request::refuse_head(engine, &mut Http1::last(&mut downstream), base, failure).await {
        downstream.close().await;
    }
}
