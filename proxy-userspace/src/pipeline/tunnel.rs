//! The way of a tunnel: opaque bytes, whether asked for by CONNECT, by Upgrade, or captured.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use h2::Reason;

use super::Engine;
use super::failure::Failure;
use super::hop::http2::OnStream;
use super::identify::identify;
use super::judge::judge;
use super::recording::Recording;
use super::respond::{self, Ask};
use super::rewriting;
use super::side::DownstreamSide;
use crate::http::framing::Framing;
use crate::net::admission::Admitted;
use crate::net::stream::Downstream;
use crate::netns::Namespace;
use crate::policy::Subject;
use crate::policy::auth::{self, Identity};
use crate::relay::body::http1::Arriving;
use crate::relay::body::{Sink, Source};
use crate::relay::stream::{Closing, relay_streams, to_connection};
use crate::relay::{self, End, Side, Tunnel};
use crate::target::{Client, Target};
use crate::telemetry::flow::{self, Protocol};
use crate::telemetry::metrics;
use crate::upstream::{Addresses, Connection};

/// A tunnel whose upstream is connected. The front now answers, and then calls [`Opened::relay`].
#[derive(Debug)]
pub struct Opened {
    pub(super) flow: Recording,
    pub(super) upstream: Upgraded,
    pub(super) namespace: Option<Arc<Namespace>>,
    /// Where else it could lead; for interception alone.
    pub(super) addresses: Option<Box<Addresses>>,
}

/// What leads to a tunnel's upstream.
#[derive(Debug)]
pub enum Upgraded {
    Connection(Box<Connection>),
    /// A stream on a connection that others share.
    Stream(Box<OnStream>),
}

impl From<Connection> for Upgraded {
    fn from(connection: Connection) -> Self {
        Self::Connection(Box::new(connection))
    }
}

/// A tunnel that was refused or could not be opened. The front answers with [`Refused::answer`], or resets.
#[derive(Debug)]
pub struct Refused {
    pub(super) flow: Recording,
    pub(super) failure: Failure,
}

/// Opens a tunnel to a target.
///
/// # Errors
/// [`Refused`]; the flow is recorded when that is dropped.
pub async fn open(
    engine: &Engine,
    client: &Client,
    target: &Target,
    protocol: Protocol,
    method: Option<&str>,
) -> Result<Opened, Refused> {
    let mut flow = Recording::begin(client, target, protocol);
    flow.method = method.map(flow::method);
    opened(engine, client, target, method, flow, None).await
}

/// The same over a connection that an HTTP exchange has left, if there is one.
///
/// # Errors
/// As [`open`].
pub async fn open_over(
    engine: &Engine,
    client: &Client,
    target: &Target,
    kept: Option<Connection>,
) -> Result<Opened, Refused> {
    let flow = Recording::begin(client, target, Protocol::Opaque);
    opened(engine, client, target, None, flow, kept).await
}

async fn opened(
    engine: &Engine,
    client: &Client,
    target: &Target,
    method: Option<&str>,
    mut flow: Recording,
    kept: Option<Connection>,
) -> Result<Opened, Refused> {
    match connect(engine, client, target, method, &mut flow, kept).await {
        Ok((upstream, addresses)) => Ok(Opened {
            flow,
            upstream: upstream.into(),
            namespace: target.vantage.namespace.clone(),
            addresses: engine.interception.is_some().then(|| Box::new(addresses)),
        }),
        Err(failure) => Err(Refused { flow, failure }),
    }
}

/// Records a connection whose client has reset it before anything was opened for it.
pub fn abandon(client: &Client, target: &Target) {
    respond::note(&mut Recording::begin(client, target, Protocol::Opaque), &Failure::ClientGone);
}

/// Records a connection that was refused before anything was opened for it.
pub fn refuse(client: &Client, target: &Target, protocol: Protocol, failure: &Failure) {
    respond::note(&mut Recording::begin(client, target, protocol), failure);
}

async fn connect(
    engine: &Engine,
    client: &Client,
    target: &Target,
    method: Option<&str>,
    flow: &mut Recording,
    kept: Option<Connection>,
) -> Result<(Connection, Addresses), Failure> {
    let identity = identify(engine, client, target, flow).await?;
    let mut led = None;
    let has_route = identity.as_ref().is_some_and(|identity| identity.has_route());
    let target = match has_route || !engine.config.upstream.rewrites.is_empty() {
        true => {
            let target = led.insert(target.clone());
            rewriting::lead(engine, target, identity.as_deref());
            flow.authority = target.authority.as_ref().map(ToString::to_string);
            &*target
        }
        false => target,
    };
    let subject = Subject::of(client, target, method, None).by(identity.as_deref());
    judge(engine, &subject, target).await?;
    let hop = engine.routes.next_hop(target).ok_or(Failure::NoRoute("the tunnel has no target"))?;
    let addresses = engine.addresses(&hop.as_tunnel(), &subject).await?;
    flow.timings.dns_us = addresses.dns_us;
    let connection = match kept {
        Some(kept) => kept,
        None => engine.upstream.connect(&addresses).await?,
    };
    flow.upstream = Some(connection.address);
    flow.timings.connect_us = connection.connect_us;
    Ok((connection, addresses))
}

impl Opened {
    /// A tunnel on connections that an HTTP exchange has left open after 101.
    pub(super) fn upgraded(flow: Recording, upstream: Upgraded, target: &Target) -> Self {
        Self { flow, upstream, namespace: target.vantage.namespace.clone(), addresses: None }
    }

    /// Notes the status that the front answered with.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.flow.status = Some(status);
        self
    }

    /// Relays until the tunnel ends, in a task of its own: the memory of whatever came before is free again.
    pub fn relay(self, engine: &Rc<Engine>, downstream: Downstream) {
        let upstream = match self.upstream {
            Upgraded::Connection(upstream) => upstream.stream,
            Upgraded::Stream(_) => {
                let engine = Rc::clone(engine);
                return drop(tokio::task::spawn_local(async move {
                    self.relay_to_stream(&engine, downstream).await;
                }));
            }
        };
        metrics::with(|metrics| metrics.tunnels.increment());
        let settings = engine.relay_settings();
        let Downstream { stream, inbox, admitted, client, .. } = downstream;
        let paces = engine.paces(&client, self.flow.identity().map(|identity| &**identity));
        let tunnel = relay::relay(stream, upstream, inbox.bytes(), settings).paced(paces);
        let ended = ended(self.namespace, self.flow.identity());
        tokio::task::spawn_local(Relaying { tunnel, flow: self.flow, ended, _admitted: admitted });
    }

    /// From a connection to a stream. The connection that is dropped in the end is reset, unless both have ended in order.
    async fn relay_to_stream(self, engine: &Engine, downstream: Downstream) {
        let Downstream { mut stream, mut inbox, admitted: _admitted, .. } = downstream;
        let (reader, writer) = stream.split();
        let incoming = Arriving::new(Side::Downstream, reader, &mut inbox, Framing::UntilClose);
        let mut outgoing = Closing::over(Side::Downstream, writer);
        let in_order = self.relay_stream(engine, incoming, &mut outgoing).await;
        drop(outgoing);
        if in_order {
            stream.end_in_order();
        }
    }

    /// As [`Opened::relay`], for a tunnel on a stream: until it ends. True if that was in order.
    pub async fn relay_stream(
        mut self,
        engine: &Engine,
        incoming: impl Source,
        outgoing: &mut impl Sink,
    ) -> bool {
        metrics::with(|metrics| metrics.tunnels.increment());
        let progress = self.flow.progress();
        let moved = (&progress.sent, &progress.received);
        let settings = engine.relay_settings();
        let paces = engine.paces(&self.flow.client, self.flow.identity().map(|identity| &**identity));
        let paces = (paces.0.as_ref(), paces.1.as_ref());
        let upstream = self.upstream;
        let relayed = async {
            match upstream {
                Upgraded::Connection(upstream) => {
                    to_connection(incoming, outgoing, upstream.stream, settings, paces, moved).await
                }
                Upgraded::Stream(mut upstream) => {
                    let OnStream { received, sent, .. } = &mut *upstream;
                    let end =
                        relay_streams((incoming, outgoing), (received, sent), settings, paces, moved).await;
                    if !matches!(end, End::Complete) {
                        // RFC 9113 §8.5: a connection that broke is told so.
                        sent.reset(Reason::CONNECT_ERROR);
                    }
                    end
                }
            }
        };
        let ended = ended(self.namespace, self.flow.identity());
        let ended = async {
            match ended {
                Some(ended) => ended.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            end = relayed => {
                note_end(&mut self.flow, &end);
                matches!(end, End::Complete)
            }
            why = ended => {
                note_ended(&mut self.flow, why);
                false
            }
        }
    }
}

fn note_end(flow: &mut Recording, end: &End) {
    if !matches!(end, End::Complete) {
        metrics::with(|metrics| metrics.broken_tunnels.increment());
    }
    flow.end = match end {
        End::Complete => "complete".into(),
        End::Idle => "idle for longer than server.timeouts.tunnel_idle".into(),
        End::Broken(Side::Downstream, error) => format!("downstream: {error}").into(),
        End::Broken(Side::Upstream, error) => format!("upstream: {error}").into(),
    };
}

fn note_ended(flow: &mut Recording, why: &'static str) {
    metrics::with(|metrics| metrics.broken_tunnels.increment());
    flow.end = why.into();
}

/// Ready, with the reason, when nobody lives any more in the network namespace that a tunnel is in, or when its context
/// was released.
type Ended = Pin<Box<dyn Future<Output = &'static str>>>;

fn ended(namespace: Option<Arc<Namespace>>, identity: Option<&Arc<Identity>>) -> Option<Ended> {
    let released = identity.and_then(|identity| identity.context.as_ref()).map(auth::Context::ended);
    let namespace_ended = "its network namespace has ended";
    Some(match (namespace, released) {
        (None, None) => return None,
        (Some(namespace), None) => Box::pin(async move {
            namespace.ended().await;
            namespace_ended
        }),
        (None, Some(released)) => Box::pin(async move {
            released.await;
            CONTEXT_RELEASED
        }),
        (Some(namespace), Some(released)) => Box::pin(async move {
            tokio::select! {
                () = namespace.ended() => namespace_ended,
                () = released => CONTEXT_RELEASED,
            }
        }),
    })
}

const CONTEXT_RELEASED: &str = "its context was released";

/// The task of an open tunnel. Written as a future by hand: an `async fn` would hold its arguments twice, and
/// there may be many thousand idle tunnels.
struct Relaying {
    tunnel: Tunnel,
    flow: Recording,
    ended: Option<Ended>,
    _admitted: Option<Admitted>,
}

impl Future for Relaying {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(ended) = &mut self.ended
            && let Poll::Ready(why) = ended.as_mut().poll(cx)
        {
            note_ended(&mut self.flow, why);
            return Poll::Ready(());
        }
        let end = ready!(Pin::new(&mut self.tunnel).poll(cx));
        note_end(&mut self.flow, &end);
        Poll::Ready(())
    }
}

impl Drop for Relaying {
    /// Also where the tunnel is cut off by the end of a drain.
    fn drop(&mut self) {
        let (sent, received) = self.tunnel.bytes();
        self.flow.sent += sent;
        self.flow.received += received;
    }
}

impl Refused {
    /// Why.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Records it; the front has answered in its own way.
    pub fn note(mut self) {
        respond::note(&mut self.flow, &self.failure);
    }

    /// Answers a CONNECT that failed. Returns whether an answer went out.
    pub async fn answer(mut self, engine: &Engine, downstream: &mut impl DownstreamSide) -> bool {
        respond::failure(engine, downstream, &mut self.flow, &self.failure, Ask::Unknown).await
    }

    /// Resets a captured connection that can't be served: the client learns that it is broken, not that it
    /// is complete.
    pub fn reset(mut self, downstream: Downstream) {
        respond::note(&mut self.flow, &self.failure);
        drop(downstream);
    }
}
