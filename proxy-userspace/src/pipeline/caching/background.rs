//! Validation in the background (RFC 5861 §3): a request of our own, whose answer nobody waits for.

use std::cell::Cell;
use std::future::{pending, ready};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::Ask;
use crate::cache::directives::RequestDirectives;
use crate::cache::entry::Entry;
use crate::cache::flights::Boarding;
use crate::cache::report::Why;
use crate::http::forward::Pseudonym;
use crate::http::framing::{BadFraming, Framing};
use crate::http::head::{RequestHead, ResponseHead};
use crate::net::deadline::Deadline;
use crate::pipeline::recording::Recording;
use crate::pipeline::request::subject;
use crate::pipeline::side::{Directions, DownstreamSide, Manner, Reply};
use crate::relay::Side;
use crate::relay::body::held::Held;
use crate::relay::body::{BodyError, Sink, Trailers};
use crate::target::Client;
use crate::telemetry::flow::Protocol;

/// Validations under way at one time, of one worker. Beyond that, stale responses are used without: the next request
/// will try again.
const MOST: usize = 64;

thread_local! {
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
}

/// Begins to validate an entry, unless somebody does already. The task ends with its exchange, whose every wait has a
/// time limit, or with the worker.
pub(super) fn revalidate(ask: &Ask<'_>, entry: &Arc<Entry>, client: &Client) {
    let Some(place) = Place::take() else { return };
    let Boarding::Lead(lead) = ask.cache.flights().board(&ask.key) else { return };
    if !ask.is_unchanged(Some(entry)) {
        return;
    }
    let (engine, cache) = (Rc::clone(ask.engine), Arc::clone(ask.cache));
    let (request, key, rules) = (ask.request.clone(), ask.key.clone(), ask.rules);
    let (entry, client) = (Arc::clone(entry), client.clone());
    tokio::task::spawn_local(async move {
        let _place = place;
        let ask = Ask {
            engine: &engine,
            cache: &cache,
            request: &request,
            subject: subject(&client, &request),
            framing: Framing::None,
            key,
            directives: RequestDirectives::default(),
            rules,
            attended: false,
        };
        let mut flow = Recording::begin(&client, &request.target, Protocol::Http1);
        flow.method = Some("GET".into());
        flow.url = Some(crate::telemetry::redact::url(&request.target, &request.path));
        let mut nobody = Nobody { client, deadline: Deadline::new() };
        if let Err(failure) =
            ask.fetch(Why::Stale, Some(entry), lead, &mut nobody, &mut None, &mut flow).await
        {
            flow.end = failure.to_string().into();
        }
    });
}

/// One of the [`MOST`].
struct Place;

impl Place {
    fn take() -> Option<Self> {
        UNDER_WAY.with(|count| {
            (count.get() < MOST).then(|| {
                count.set(count.get() + 1);
                Self
            })
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        UNDER_WAY.with(|count| count.set(count.get() - 1));
    }
}

/// A client that asks nothing further, and takes everything at once.
struct Nobody {
    client: Client,
    deadline: Deadline,
}

impl DownstreamSide for Nobody {
    type Content<'a> = Held<'a>;
    type Reply<'a> = Nowhere;

    fn client(&self) -> &Client {
        &self.client
    }

    fn protocol(&self) -> Protocol {
        Protocol::Http1
    }

    fn framing(&self, _head: &RequestHead) -> Result<Framing, BadFraming> {
        Ok(Framing::None)
    }

    fn open(&mut self, _framing: Framing) -> Directions<'_, Held<'_>, Nowhere> {
        Directions { content: Held::new(Side::Downstream, b""), reply: Nowhere, deadline: &self.deadline }
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn side(&self) -> Side {
        Side::Downstream
    }

    fn put(&mut self, _content: &[u8]) -> Result<(), BodyError> {
        Ok(())
    }

    fn staged(&self) -> usize {
        0
    }

    fn end(&mut self, _trailers: Trailers) -> Result<(), BodyError> {
        Ok(())
    }

    fn flush(&mut self) -> impl Future<Output = io::Result<()>> {
        ready(Ok(()))
    }

    fn gone(&mut self) -> impl Future<Output = ()> {
        pending()
    }
}

impl Reply for Nowhere {
    fn interim(&mut self, _head: &ResponseHead, _via: &Pseudonym) -> impl Future<Output = io::Result<()>> {
        ready(Ok(()))
    }

    fn head(&mut self, _head: &ResponseHead, _manner: Manner<'_>) {}

    fn switch_protocols(
        &mut self,
        _head: &ResponseHead,
        _via: &Pseudonym,
        _first: &[u8],
    ) -> impl Future<Output = io::Result<()>> {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
