//! HTTP/2 on a downstream connection: each stream is a request or a tunnel with a task of its own. The `h2` crate
//! speaks the protocol; how long a connection lives, and what a client may make weir do, is decided here.

mod aim;
mod side;
mod websocket;

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};

use super::intercept;
use crate::config;
use crate::http::head::{ResponseHead, Version};
use crate::net::buffered::Inbox;
use crate::net::deadline::{Deadline, Expired};
use crate::net::frames::{PREFACE, Watch, Watched};
use crate::net::gathered::Gathered;
use crate::net::stream::Downstream;
use crate::net::transport::Transport;
use crate::pipeline::failure::Cut;
use crate::pipeline::request::{self, Next};
use crate::pipeline::side::DownstreamSide;
use crate::pipeline::{Engine, tunnel};
use crate::target::{Client, Target};
use crate::telemetry::flow::Protocol;
use crate::telemetry::metrics;
use aim::{Aim, aim};
use side::Http2;

/// Streams that a peer has reset before they were accepted, and that were refused, before its connection is ended.
const MAX_PENDING_RESETS: usize = 20;

/// Tasks of a connection, for each stream that it may have open: those of streams that were reset take a moment to
/// hear of it.
const TASKS_PER_STREAM: usize = 2;

/// How long a connection that is being ended may take to say that it has heard so.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Serves a connection whose client has begun with the preface, or is about to.
pub(super) async fn serve(engine: Rc<Engine>, downstream: Downstream, base: Target) {
    let Ok(local) = downstream.stream.socket().local_addr() else { return };
    let Downstream { stream, inbox, client, deadline, admitted } = downstream;
    metrics::with(|metrics| metrics.http2_connections.increment());
    let (io, watch) = Watched::new(stream, inbox, PREFACE.len());
    let timeouts = &engine.config.server.timeouts;
    let mut builder = builder(&engine.config.server);
    if base.front != crate::target::Front::Captured {
        // A captured client's server is not asked whether it has that (RFC 8441 §3).
        builder.enable_connect_protocol();
    }
    let handshake = builder.handshake(Gathered::new(io));
    let mut in_order = false;
    if let Ok(Ok(connection)) = deadline.limit(timeouts.request_head, handshake).await {
        let streams = Rc::default();
        let front = Front { engine, client: client.clone(), base, local, streams };
        in_order = front.accept(connection, &watch, &deadline).await;
    }
    let Some(stream) = watch.stream() else { return };
    if in_order {
        // What it was told last is not to be lost to a reset.
        Downstream { stream, inbox: Inbox::default(), client, deadline, admitted }.close().await;
    }
}

fn builder(server: &config::Server) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(server.http2.max_streams)
        .max_header_list_size(server.http2.header_list)
        .initial_window_size(server.http2.stream_window)
        .initial_connection_window_size(server.http2.connection_window)
        .max_send_buffer_size(server.http2.send_buffer)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS);
    builder
}

/// What all streams of a connection share.
#[derive(Clone)]
struct Front {
    engine: Rc<Engine>,
    client: Client,
    base: Target,
    /// The address that the client has connected to.
    local: SocketAddr,
    /// One more holder for each stream that has a task.
    streams: Rc<Cell<()>>,
}

/// What a connection does next.
#[expect(clippy::large_enum_variant, reason = "one at a time, and it is moved out at once")]
enum Event {
    Stream(http::Request<RecvStream>, SendResponse<Bytes>),
    Objection(Reason),
    Expired(Expired),
    /// The connection is over, in order or not.
    Over,
}

impl Front {
    /// Accepts streams until the connection ends; whether that is in order, or with a reason that the client is to read.
    async fn accept(
        &self,
        mut connection: Connection<Gathered<Watched<Transport>>, Bytes>,
        watch: &Watch<Transport>,
        deadline: &Deadline,
    ) -> bool {
        let timeouts = &self.engine.config.server.timeouts;
        // Who has just connected is about to ask; from then on a drain ends what rests at once.
        deadline.arm_idle(timeouts.idle, timeouts.request_head);
        let mut ending = false;
        loop {
            match next_event(&mut connection, watch, deadline).await {
                Event::Over => return watch.has_ended(),
                Event::Stream(request, respond) => {
                    self.begin(request, respond);
                    if !ending {
                        deadline.arm_idle(timeouts.idle, Duration::ZERO);
                    }
                }
                Event::Objection(reason) => {
                    if reason == Reason::ENHANCE_YOUR_CALM {
                        metrics::with(|metrics| metrics.http2_floods.increment());
                    }
                    ending = true;
                    connection.abrupt_shutdown(reason);
                    deadline.arm(LAST_WORDS);
                }
                Event::Expired(Expired::TimedOut) if self.open_streams() > 0 => {
                    if ending {
                        deadline.arm(timeouts.idle);
                    } else {
                        deadline.arm_idle(timeouts.idle, Duration::ZERO);
                    }
                }
                // It was asked to end already, and does not.
                Event::Expired(_) if ending => return !connection.has_streams(),
                Event::Expired(_) => {
                    ending = true;
                    connection.graceful_shutdown();
                    deadline.arm(LAST_WORDS);
                }
            }
        }
    }

    fn open_streams(&self) -> usize {
        Rc::strong_count(&self.streams) - 1
    }

    fn begin(&self, request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let max_streams = self.engine.config.server.http2.max_streams as usize;
        if self.open_streams() >= max_streams.saturating_mul(TASKS_PER_STREAM) {
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        tokio::task::spawn_local(serve_stream(self.clone(), request, respond));
    }
}

async fn next_event(
    connection: &mut Connection<Gathered<Watched<Transport>>, Bytes>,
    watch: &Watch<Transport>,
    deadline: &Deadline,
) -> Event {
    poll_fn(|cx| {
        if let Some(reason) = watch.objection() {
            return Poll::Ready(Event::Objection(reason));
        }
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => return Poll::Ready(Event::Stream(request, respond)),
            Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Event::Over),
            Poll::Pending => {}
        }
        // Found while reading just now.
        if let Some(reason) = watch.objection() {
            return Poll::Ready(Event::Objection(reason));
        }
        deadline.poll_expired(cx).map(Event::Expired)
    })
    .await
}

async fn serve_stream(front: Front, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
    let (head, content) = request.into_parts();
    let head = http::Request::from_parts(head, ());
    let engine = &front.engine.newest();
    let mut side = Http2::new(front.client.clone(), content, respond);
    match aim(&head, &front.base, front.local, &engine.config.server.limits) {
        Ok(Aim::Request(mut request)) => {
            // Boxed, as what follows: a task's future is moved several times before it is first polled.
            match Box::pin(request::serve(engine, &mut side, &mut request, &mut None)).await {
                // Dropped before it was read to its end, the request is told that it need not go on.
                Next::Done { .. } => {}
                Next::Abort(cut) => side.reset(match cut {
                    Cut::Unsent => Reason::REFUSED_STREAM,
                    Cut::Reset(reason) => reason,
                    Cut::Broken => Reason::INTERNAL_ERROR,
                }),
                Next::Tunnel(opened) => Box::pin(relay(engine, side, opened)).await,
            }
        }
        Ok(Aim::Tunnel(target)) => Box::pin(connect(engine, side, &target)).await,
        Err(failure) => {
            if !Box::pin(request::refuse_head(engine, &mut side, &front.base, &failure)).await {
                side.reset(Reason::INTERNAL_ERROR);
            }
        }
    }
}

async fn connect(engine: &Rc<Engine>, mut side: Http2, target: &Target) {
    let opened = tunnel::open(engine, side.client(), target, Protocol::Opaque, Some("CONNECT")).await;
    match opened {
        Ok(opened) => {
            if side.accept(&ResponseHead::new(Version::Http2, 200, "OK")).is_ok() {
                let opened = opened.with_status(200);
                let client = side.client().clone();
                if intercept::concerns(engine, &client, &opened, target) {
                    let Some((incoming, mut outgoing)) = side.into_tunnel() else { return };
                    let streams = (incoming, &mut outgoing);
                    if !Box::pin(intercept::relay_stream(engine, client, streams, opened, target)).await {
                        outgoing.reset(Reason::CONNECT_ERROR);
                    }
                    return;
                }
                relay(engine, side, opened).await;
            }
        }
        Err(refused) => {
            if !refused.answer(engine, &mut side).await {
                side.reset(Reason::CONNECT_ERROR);
            }
        }
    }
}

async fn relay(engine: &Engine, side: Http2, opened: tunnel::Opened) {
    let Some((incoming, mut outgoing)) = side.into_tunnel() else { return };
    if !opened.relay_stream(engine, incoming, &mut outgoing).await {
        // RFC 9113 §8.5: a connection that broke is told so.
        outgoing.reset(Reason::CONNECT_ERROR);
    }
}
