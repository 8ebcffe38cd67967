//! TLS in tunnels and captured connections: looked at before it is relayed, where `tls` asks for that, and intercepted where
//! a rule wants it. The server has shown its certificate before the client is shown one of weir's; what is spoken inside is
//! served as if it had been asked for by itself.

mod place;
mod served;
mod session;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use socket2::SockRef;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;

use super::detect::{Detected, MAX_LOOK, detect};
use crate::config::{InterceptRule, OnFailure};
use crate::net::buffered::Inbox;
use crate::net::deadline::Deadline;
use crate::net::pair::pair;
use crate::net::stream::Downstream;
use crate::net::transport::Transport;
use crate::pipeline::Engine;
use crate::pipeline::tunnel::Opened;
use crate::policy::auth::Identity;
use crate::policy::interception::{Asked, Verdict};
use crate::relay::End;
use crate::relay::body::{Sink, Source};
use crate::relay::stream::to_connection;
use crate::target::{Client, Target};
use crate::telemetry::metrics;
use crate::tls::client_hello::ClientHello;
use place::Place;
use session::{accept, chosen, note_client, offered};

pub(super) use place::check_direction;

/// An alert: fatal, access_denied (RFC 8446 §6).
const DENIED: [u8; 7] = [21, 3, 1, 0, 2, 2, 49];

/// Relays an open tunnel to `target`, or serves what is spoken inside it.
pub(super) async fn relay(engine: Rc<Engine>, downstream: Downstream, opened: Opened, target: Target) {
    if !concerns(&engine, &downstream.client, &opened, &target) {
        return opened.relay(&engine, downstream);
    }
    // Boxed: tunnels that nobody looks into don't pay for it.
    Box::pin(look_into(engine, downstream, opened, target)).await;
}

/// The same for a tunnel on a stream of a connection that others share. True if it ended in order.
pub(super) async fn relay_stream(
    engine: &Rc<Engine>,
    client: Client,
    (incoming, outgoing): (impl Source, &mut impl Sink),
    opened: Opened,
    target: &Target,
) -> bool {
    let Ok((near, far)) = pair().await else { return false };
    let downstream = Downstream {
        stream: Transport::Plain(far),
        inbox: Inbox::default(),
        client,
        deadline: Deadline::new(),
        admitted: None,
    };
    tokio::task::spawn_local(look_into(Rc::clone(engine), downstream, opened, target.clone()));
    // What passes is counted where it is served.
    let moved = (&Cell::new(0), &Cell::new(0));
    let end = to_connection(
        incoming,
        outgoing,
        Transport::Plain(near),
        engine.relay_settings(),
        (None, None),
        moved,
    )
    .await;
    matches!(end, End::Complete)
}

/// Whether anything is asked of what this client speaks in the tunnel.
pub(super) fn concerns(engine: &Engine, client: &Client, opened: &Opened, target: &Target) -> bool {
    let intercepts = engine.interception.as_ref().is_some_and(|interception| {
        let identity = opened.identity().map(|identity| &**identity);
        interception.concerns(&Asked { client, identity, target, server_name: None })
    });
    intercepts || opened.asks_name(engine)
}

fn asked<'a>(
    downstream: &'a Downstream,
    identity: Option<&'a Identity>,
    target: &'a Target,
    hello: &'a ClientHello,
) -> Asked<'a> {
    let server_name = hello.server_name.as_deref();
    Asked { client: &downstream.client, identity, target, server_name }
}

async fn look_into(engine: Rc<Engine>, mut downstream: Downstream, opened: Opened, target: Target) {
    let hello = match look(&engine, &mut downstream, opened.socket()).await {
        Spoken::Tls(hello) => hello,
        Spoken::Other => return opened.relay(&engine, downstream),
        Spoken::Unreadable => {
            metrics::with(|metrics| metrics.tls_refused.increment());
            opened.refuse("the ClientHello can't be read");
            return deny(downstream).await;
        }
        // Dropped, both sides are reset.
        Spoken::Nothing => return,
    };
    // What was asked for was judged by another name, or none.
    if let Err(failure) =
        opened.check_name(&engine, &downstream.client, &target, hello.server_name.as_deref())
    {
        opened.deny(&failure);
        return deny(downstream).await;
    }
    let Some(interception) = engine.interception.clone() else { return opened.relay(&engine, downstream) };
    let identity = opened.identity().cloned();
    let asked = asked(&downstream, identity.as_deref(), &target, &hello);
    let rule = match interception.judge(&asked, hello.has_ech) {
        Verdict::Pass => return opened.relay(&engine, downstream),
        Verdict::Refuse(why) => {
            metrics::with(|metrics| metrics.tls_refused.increment());
            opened.refuse(why);
            return deny(downstream).await;
        }
        Verdict::Intercept(rule) => rule,
    };
    match Place::of(&target, &hello) {
        Some(place) => {
            let asking = Asking { hello: &hello, identity, target: &target, rule };
            intercept(engine, downstream, opened, place, asking).await;
        }
        None => {
            metrics::with(|metrics| metrics.tls_refused.increment());
            opened.refuse("the name in the ClientHello is none that a server can have");
            deny(downstream).await;
        }
    }
}

/// What a client speaks.
enum Spoken {
    Tls(ClientHello),
    /// What begins like TLS, and may be to whoever reads it otherwise.
    Unreadable,
    Other,
    /// It is gone.
    Nothing,
}

/// Waits until the client has said enough, or its server something: then it is no TLS. The wait has no other end, as a
/// client that is silent for long enough would be relayed unseen.
async fn look(engine: &Engine, downstream: &mut Downstream, server: Option<&TcpStream>) -> Spoken {
    let Downstream { stream, inbox, deadline, .. } = downstream;
    let looking = async {
        loop {
            match detect(inbox.bytes()) {
                Detected::Tls(hello) => return Spoken::Tls(hello),
                Detected::Unknown if inbox.bytes().len() < MAX_LOOK => {}
                _ if matches!(inbox.bytes(), [22, 3, ..]) => return Spoken::Unreadable,
                _ => return Spoken::Other,
            }
            tokio::select! {
                filled = inbox.fill_patiently(stream) => match filled {
                    Ok(1..) => {}
                    // The end of the stream is for the relay to pass on.
                    Ok(0) => return Spoken::Other,
                    Err(_) => return Spoken::Nothing,
                },
                () = speaks(server) => return Spoken::Other,
            }
        }
    };
    let limit = engine.config.server.timeouts.tunnel_idle;
    deadline.limit(limit, looking).await.unwrap_or(Spoken::Nothing)
}

/// Ready when there is something to read, or an end.
async fn speaks(server: Option<&TcpStream>) {
    let Some(server) = server else { return std::future::pending().await };
    let peek = || SockRef::from(server).peek(&mut [std::mem::MaybeUninit::uninit()]);
    // An error is one that whoever reads will see.
    let _ = server.async_io(Interest::READABLE, peek).await;
}

async fn deny(mut downstream: Downstream) {
    if downstream.stream.write_all(&DENIED).await.is_ok() {
        downstream.close().await;
    }
}

/// What a client has asked for, and by which rule that is intercepted.
struct Asking<'a> {
    hello: &'a ClientHello,
    identity: Option<Arc<Identity>>,
    target: &'a Target,
    rule: &'a InterceptRule,
}

async fn intercept(
    engine: Rc<Engine>,
    downstream: Downstream,
    opened: Opened,
    place: Place,
    asking: Asking<'_>,
) {
    let Some(minter) = engine.minter.clone() else { return opened.relay(&engine, downstream) };
    let hello = asking.hello;
    let taken = match place.misdirected {
        Some(why) => {
            metrics::with(|metrics| metrics.intercept_misdirected.increment());
            opened.misdirected(why)
        }
        None => {
            let offered = offered(hello, engine.config.upstream.http2.enabled);
            let host = place.base.authority.as_ref().map_or(&place.shown, |authority| &authority.host);
            let taken = opened.secure(&engine, host, offered).await;
            if taken.failure().is_some() {
                metrics::with(|metrics| metrics.intercept_server_failures.increment());
                if asking.rule.on_failure == OnFailure::PassThrough {
                    metrics::with(|metrics| metrics.intercept_passed.increment());
                    return match taken.reopen(&engine).await {
                        Ok(opened) => opened.relay(&engine, downstream),
                        Err(refused) => refused.reset(downstream),
                    };
                }
            }
            taken
        }
    };
    let settings = match minter.settings(&place.shown, chosen(hello, &taken)) {
        Ok((settings, is_new)) => {
            metrics::with(|metrics| match is_new {
                true => metrics.intercept_minted.increment(),
                false => metrics.intercept_minted_hits.increment(),
            });
            settings
        }
        Err(error) => return taken.note_client(error.to_string()),
    };
    let client = downstream.client.clone();
    match accept(&engine, downstream, settings).await {
        Ok(downstream) => {
            metrics::with(|metrics| metrics.intercepted.increment());
            served::serve(engine, downstream, taken, place.base).await;
        }
        Err(error) => note_client(&engine, &client, &asking, taken, &error),
    }
}
