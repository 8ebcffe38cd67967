//! Requests to the gateway that are for services: which, what the app is asked for, over which of its ways, and how its
//! answer is told to the client.

use std::sync::Arc;

use super::Engine;
use super::attempt::Attempt;
use super::caching::Fetch;
use super::exchange::{Ending, Exchange};
use super::failure::Failure;
use super::recording::Recording;
use super::request::{Request, subject};
use super::side::DownstreamSide;
use crate::http::forward::wants_upgrade;
use crate::http::framing::Framing;
use crate::http::head::{RequestHead, ResponseHead, Version};
use crate::http::status::Form;
use crate::services::path::{Aim, aim};
use crate::services::prefix::Root;
use crate::services::{Service, Table, page};
use crate::target::{Front, Hop};
use crate::telemetry::metrics;
use crate::upstream::{Backoff, Idle};

/// What of services a request is for.
#[derive(Debug)]
pub enum Wanted {
    /// The list of them.
    List,
    /// An app, by its URL without the slash at its end: it has one, at which its references begin.
    Slash(String),
    App(App),
}

/// An app, and what it is asked for.
#[derive(Debug)]
pub struct App {
    pub service: Arc<Service>,
    /// As the client has written it: `/proxy/{id}`.
    pub prefix: String,
    /// Path and query as the app gets them.
    pub target: String,
}

/// Finds out whether a request is for services. Done before the routes' rules are asked.
pub(super) fn find(engine: &Engine, request: &mut Request) -> Result<(), Failure> {
    if request.target.front != Front::Gateway {
        return Ok(());
    }
    let table = engine.services.current();
    let Some(prefix) = table.prefix() else { return Ok(()) };
    let aimed = aim(&request.path, prefix).map_err(|error| Failure::BadRequest(error.to_string()))?;
    request.wanted = match aimed {
        Aim::Elsewhere => None,
        Aim::List => Some(Arc::new(Wanted::List)),
        Aim::Bare { key, query } => {
            let service = named(&table, key)?;
            // Clients of WebSocket don't follow redirections.
            Some(Arc::new(match wants_upgrade(&request.head) {
                true => Wanted::App(App::new(service, format!("{prefix}/{key}"), &format!("/{query}"))),
                false => Wanted::Slash(format!("{prefix}/{key}/{query}")),
            }))
        }
        Aim::Into { key, prefix, rest } => {
            Some(Arc::new(Wanted::App(App::new(named(&table, key)?, prefix.to_owned(), rest))))
        }
    };
    Ok(())
}

fn named(table: &Table, key: &str) -> Result<Arc<Service>, Failure> {
    table.find(key).map(Arc::clone).ok_or(Failure::NoRoute(NO_SERVICE))
}

const NO_SERVICE: &str = "there is no service of that name or id";

impl App {
    fn new(service: Arc<Service>, prefix: String, rest: &str) -> Self {
        let target = service.framework().handler().target(&prefix, rest).into_owned();
        Self { service, prefix, target }
    }
}

/// Answers what weir itself has to say of services.
pub(super) fn own_answer(engine: &Engine, request: &Request) -> Option<(ResponseHead, String)> {
    let wanted = request.wanted.as_deref()?;
    let answer = |status, reason, media_type: &str, body: String| {
        let mut head = ResponseHead::new(Version::Http11, status, reason);
        head.headers.push(b"Content-Type", media_type.as_bytes());
        head.headers.push(b"Cache-Control", b"no-store");
        head.headers.push(b"X-Content-Type-Options", b"nosniff");
        (head, body)
    };
    match wanted {
        Wanted::App(_) => None,
        Wanted::List if !matches!(request.head.method(), "GET" | "HEAD") => {
            let (mut head, body) =
                answer(405, "Method Not Allowed", "text/plain", "GET tells of services\n".into());
            head.headers.push(b"Allow", b"GET, HEAD");
            Some((head, body))
        }
        Wanted::List => {
            let table = engine.services.current();
            let (mut head, body) = match Form::of(&request.head.headers) {
                Form::Html => answer(200, "OK", "text/html; charset=utf-8", page::html(&table)),
                _ => answer(200, "OK", "application/json", format!("{:#}\n", page::list(&table))),
            };
            head.headers.push(b"Vary", b"Accept");
            Some((head, body))
        }
        Wanted::Slash(location) => {
            let (mut head, body) = answer(307, "Temporary Redirect", "text/plain", format!("{location}\n"));
            head.headers.push(b"Location", location.as_bytes());
            Some((head, body))
        }
    }
}

impl Request {
    /// The app that it is for.
    #[must_use]
    pub(super) fn app(&self) -> Option<&App> {
        match self.wanted.as_deref() {
            Some(Wanted::App(app)) => Some(app),
            _ => None,
        }
    }
}

/// The next hop that would be tried first.
pub(super) fn first_hop(app: &App) -> Option<Hop> {
    app.service.ways().next().map(|(_, way)| Hop::Service(Arc::clone(way)))
}

/// Asks an app, by each of its ways in turn until one leads there.
pub(super) async fn forward(
    engine: &Engine,
    downstream: &mut impl DownstreamSide,
    (request, app): (&Request, &App),
    framing: Framing,
    own: &mut Option<Idle>,
    flow: &mut Recording,
    mut fetch: Option<&mut Fetch<'_>>,
) -> Result<Ending, Failure> {
    metrics::with(|metrics| metrics.service_requests.increment());
    let onward = request.with_head(onward(request, app));
    let settings = &engine.config.upstream;
    let client = downstream.client().address;
    let mut backoff = Backoff::new(settings.backoff);
    for round in 0..=settings.retries {
        if round > 0 {
            metrics::with(|metrics| metrics.upstream_retries.increment());
            backoff.wait().await;
        }
        let mut may_pass = false;
        for (index, way) in app.service.ways() {
            let hop = Hop::Service(Arc::clone(way));
            let _turn = engine.upstream.turn(&hop).await?;
            let addresses = match engine.addresses(&hop, &subject(downstream.client(), request)).await {
                Ok(addresses) => addresses,
                // Another way may need no name.
                Err(Failure::Unresolved(error)) => {
                    tracing::debug!(service = %app.service.id, way = way.kind, %error, "no way to a service");
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            flow.timings.dns_us = addresses.dns_us;
            let fetch = fetch.as_deref_mut();
            let exchange = Exchange {
                engine,
                request: &onward,
                framing,
                hop: &hop,
                client,
                addresses: &addresses,
                attempt: Attempt::Only,
                flow,
                fetch,
            };
            match exchange.run(downstream, own).await {
                // Nothing was sent.
                Err(Failure::Connect(error)) => {
                    may_pass |= error.is_passing();
                    tracing::debug!(service = %app.service.id, way = way.kind, %error, "no way to a service");
                }
                result => {
                    if result.is_ok() {
                        app.service.note_reached(index);
                    }
                    return result;
                }
            }
        }
        if !may_pass {
            break;
        }
    }
    app.service.note_unreached();
    metrics::with(|metrics| metrics.service_failures.increment());
    Err(Failure::NotServing(app.service.name.clone()))
}

impl Exchange<'_, '_> {
    /// How often a connection that is refused is tried again before the request fails.
    pub(super) fn retries(&self) -> u32 {
        match (self.request.target.front, self.hop, self.attempt) {
            // An app has other ways, and a group other servers, which are tried before one is again.
            (Front::Captured, ..) | (_, Hop::Service(_), _) | (_, _, Attempt::OneOf(_)) => 0,
            _ => self.engine.config.upstream.retries,
        }
    }
}

/// The head that the app gets.
fn onward(request: &Request, app: &App) -> RequestHead {
    let mut head = request.head.clone();
    let fields = app.service.framework().handler().fields(&app.prefix);
    head.headers
        .retain(|field| !fields.iter().any(|(name, _)| field.name.eq_ignore_ascii_case(name.as_bytes())));
    for (name, value) in &fields {
        head.headers.push(name.as_bytes(), value.as_bytes());
    }
    head
}

/// Tells an app's response as its client knows the app.
pub(super) fn map_back(request: &Request, hop: &Hop, head: &mut ResponseHead) {
    let (Some(app), Hop::Service(way)) = (request.app(), hop) else { return };
    let root = Root {
        prefix: &app.prefix,
        own: [request.target.authority.as_ref(), Some(&way.at)],
        is_led: !request.path.starts_with(&app.prefix),
    };
    let mapped = |field: crate::http::headers::Field<'_>| {
        std::str::from_utf8(field.value).ok().and_then(|value| root.field(field.name, value))
    };
    if !head.headers.iter().any(|field| mapped(field).is_some()) {
        return;
    }
    let all: Vec<(Vec<u8>, Vec<u8>)> = head
        .headers
        .iter()
        .map(|field| {
            let value = mapped(field).map_or_else(|| field.value.to_vec(), String::into_bytes);
            (field.name.to_vec(), value)
        })
        .collect();
    head.headers.retain(|_| false);
    all.iter().for_each(|(name, value)| head.headers.push(name, value));
}
