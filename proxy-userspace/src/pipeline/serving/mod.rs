//! Requests to the gateway that are for services: which (`find`), what the app is asked for and over which of its ways,
//! and how its answer is told to the client (`back`).

mod back;
mod find;

use std::sync::Arc;

pub(super) use back::{map_back, rewrite};
pub(super) use find::{find, own_answer};

use super::Engine;
use super::attempt::Attempt;
use super::caching::Fetch;
use super::exchange::{Ending, Exchange};
use super::failure::Failure;
use super::recording::Recording;
use super::request::{Request, subject};
use super::side::DownstreamSide;
use crate::http::framing::Framing;
use crate::http::head::RequestHead;
use crate::services::Service;
use crate::services::handlers::Asked;
use crate::target::{Front, Hop};
use crate::telemetry::metrics;
use crate::upstream::{Backoff, Idle};

/// What of services a request is for.
#[derive(Debug)]
pub enum Wanted {
    /// The list of them.
    List,
    /// An app, but by another URL than its own: that is this one.
    Elsewhere(String),
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
    /// The gateway's authority, as the client has it.
    pub host: String,
    /// What it answers is changed on its way, if it is a page.
    pub rewrites: bool,
    /// It was asked for without the prefix.
    pub is_led: bool,
}

impl App {
    /// As its handler is told.
    fn asked(&self) -> Asked<'_> {
        Asked { prefix: &self.prefix, host: &self.host }
    }
}

impl Request {
    /// Whether what is answered is told to each client in its own way: what was led elsewhere, and pages of apps.
    #[must_use]
    pub(super) fn is_told_anew(&self) -> bool {
        self.rewritten.is_some() || self.app().is_some_and(|app| app.rewrites)
    }

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
            let (request, addresses, attempt) = (&onward, &addresses, Attempt::Only);
            let exchange =
                Exchange { engine, request, framing, hop: &hop, client, addresses, attempt, flow, fetch };
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
    let fields = app.service.framework().handler().fields(&app.asked());
    let is = |name: &[u8], known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    head.headers.retain(|field| {
        let replaced = fields.iter().any(|(name, _)| is(field.name, name));
        // What is to be changed has to come whole, and as it is.
        let unfit = app.rewrites && UNFIT.iter().any(|name| is(field.name, name));
        !replaced && !unfit
    });
    for (name, value) in &fields {
        head.headers.push(name.as_bytes(), value.as_bytes());
    }
    head
}

const UNFIT: [&str; 3] = ["Accept-Encoding", "Range", "If-Range"];
