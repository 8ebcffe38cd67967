//! Answers from store (RFC 9111 §4): whole, a range of them, or the news that the client has them already.

use std::io::Write;
use std::sync::Arc;

use super::Ask;
use super::content::{Content, Followed, parsed};
use super::fetch::Fetch;
use super::fill::Follow;
use super::keep::Keep;
use super::multipart::Multipart;
use crate::cache;
use crate::cache::body::Body;
use crate::cache::conditional;
use crate::cache::entry::{Entry, Stored};
use crate::cache::filling::Reader;
use crate::cache::range::{Found, Span, Wanted};
use crate::cache::report::{Forward, Outcome, Why};
use crate::cache::stored_head::write_age;
use crate::http::framing::Framing;
use crate::http::head::{ResponseHead, Version};
use crate::http::headers::Name;
use crate::pipeline::compression::{compress, compress_unless, note_choice};
use crate::pipeline::exchange::Ending;
use crate::pipeline::failure::Failure;
use crate::pipeline::recording::Recording;
use crate::pipeline::replacing::replace;
use crate::pipeline::respond::respond;
use crate::pipeline::side::{DownstreamSide, Manner};
use crate::relay::body::{Source, Trailers};
use crate::relay::stage::Stages;
use crate::telemetry::flow::CacheUse;
use crate::telemetry::metrics;

impl Ask<'_> {
    /// Delivers what was found.
    pub(super) async fn deliver_hit(
        &self,
        entry: &Arc<Entry>,
        downstream: &mut impl DownstreamSide,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        let ttl = entry.stored.freshness.left(cache::now());
        metrics::with(|metrics| {
            if ttl > 0 { metrics.cache_hits.increment() } else { metrics.cache_stale_hits.increment() }
        });
        flow.cache = Some(if ttl > 0 { CacheUse::Hit } else { CacheUse::StaleHit });
        self.deliver(entry, Outcome::Hit { ttl }, downstream, flow).await
    }

    /// Delivers what another request has brought into store meanwhile.
    pub(super) async fn deliver_awaited(
        &self,
        entry: &Arc<Entry>,
        downstream: &mut impl DownstreamSide,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        metrics::with(|metrics| metrics.cache_collapsed.increment());
        flow.cache = Some(CacheUse::Collapsed);
        let report = Forward { collapsed: true, ..Forward::because(Why::UriMiss) };
        self.deliver(entry, Outcome::Forward(report), downstream, flow).await
    }

    /// Delivers what is stale, for want of better.
    pub(super) async fn deliver_stale(
        &self,
        entry: &Arc<Entry>,
        downstream: &mut impl DownstreamSide,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        self.deliver_hit(entry, downstream, flow).await
    }

    /// Delivers what its origin has just confirmed, or failed to.
    pub(super) async fn deliver_validated(
        &self,
        entry: &Arc<Entry>,
        fetch: &Fetch<'_>,
        downstream: &mut impl DownstreamSide,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        metrics::with(|metrics| metrics.cache_revalidations.increment());
        let report = Forward { status: flow.status, ..Forward::because(fetch.why()) };
        flow.cache = Some(CacheUse::Revalidated);
        self.deliver(entry, Outcome::Forward(report), downstream, flow).await
    }

    /// Delivers what another request has fetched, as it arrives.
    pub(super) async fn deliver_collapsed(
        &self,
        why: Why,
        reader: Reader,
        downstream: &mut impl DownstreamSide,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        metrics::with(|metrics| metrics.cache_collapsed.increment());
        flow.cache = Some(CacheUse::Collapsed);
        let report = Forward { collapsed: true, ..Forward::because(why) };
        let filling = Arc::clone(reader.filling());
        let framing = framing_of(filling.stored.head.status(), filling.length.unwrap_or(0));
        let fields = self.fields(&filling.stored, Outcome::Forward(report));
        let head = filling.stored.head.with(&fields).ok_or(Failure::Internal(DAMAGED))?;
        self.send(head, framing, Follow::new(reader), downstream, flow).await
    }

    async fn deliver(
        &self,
        entry: &Arc<Entry>,
        outcome: Outcome,
        downstream: &mut impl DownstreamSide,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        let request = &self.request.head.headers;
        let stored = &entry.stored;
        let mut fields = self.fields(stored, outcome);
        let now = cache::now() / 1000;
        // RFC 9110 §13.2.1: preconditions are for what would else be a success.
        let success = stored.head.status() == 200;
        let (has, length) =
            entry.part.unwrap_or((Span { start: 0, end: entry.body.len() }, entry.body.len()));
        if success && conditional::is_not_modified(request, &stored.validators, stored.date, now) {
            let mut whole = stored.head.with(&fields).ok_or(Failure::Internal(DAMAGED))?;
            note_choice(self.engine, self.request, &mut whole, length);
            let head = not_modified(&whole).ok_or(Failure::Internal(DAMAGED))?;
            return self.send(head, Framing::None, Content::of(&Body::default()), downstream, flow).await;
        }
        let wanted = match success && conditional::range_applies(request, &stored.validators) {
            true => Wanted::of(&self.request.head).of_length(length),
            false => Found::Whole,
        };
        let (status, body) = match wanted {
            Found::Whole => (stored.head.status(), entry.body.clone()),
            Found::Part(span) => {
                // Writing to a Vec does not fail.
                let _ = write!(fields, "Content-Range: bytes {}-{}/{length}\r\n", span.start, span.end - 1);
                (206, entry.body.slice(span.within(has)))
            }
            Found::Parts(spans) => {
                let head = stored.head.with_status(206, &fields).ok_or(Failure::Internal(DAMAGED))?;
                let spans = spans.iter().map(|span| (*span, span.within(has)));
                return self.send_parts(head, &entry.body, spans.collect(), length, downstream, flow).await;
            }
            Found::Nothing => {
                let _ = write!(fields, "Content-Range: bytes */{length}\r\n");
                (416, Body::default())
            }
        };
        let mut framing = framing_of(status, body.len());
        if self.request.head.method() == "HEAD" {
            if framing != Framing::None {
                let _ = write!(fields, "Content-Length: {}\r\n", body.len());
            }
            framing = Framing::None;
        }
        let head = stored.head.with_status(status, &fields).ok_or(Failure::Internal(DAMAGED))?;
        let body = if framing == Framing::None || !self.attended { Body::default() } else { body };
        let trailers = stored.trailers.as_deref().filter(|_| framing != Framing::None && status != 206);
        self.send_stored(head, framing, &body, parsed(trailers), downstream, flow).await
    }

    async fn send(
        &self,
        mut head: ResponseHead,
        framing: Framing,
        body: impl Source,
        downstream: &mut impl DownstreamSide,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        let mut stages = Stages::new();
        let framing = replace(self.engine, self.request, &mut head, framing, &mut stages);
        let framing = compress(self.engine, self.request, &mut head, framing, &mut stages);
        self.send_as(head, framing, body, stages, downstream, flow).await
    }

    /// Sends a body of the store's, compressed if its client takes that: once made, that form is kept.
    async fn send_stored(
        &self,
        mut head: ResponseHead,
        framing: Framing,
        body: &Body,
        trailers: Trailers,
        downstream: &mut impl DownstreamSide,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        let (mut stages, mut chosen, mut form) = (Stages::new(), None, None);
        let framing = replace(self.engine, self.request, &mut head, framing, &mut stages);
        let is_replaced = !stages.is_empty();
        let framing = compress_unless(self.engine, self.request, &mut head, framing, &mut stages, |coding| {
            // What rules make of it is made anew each time: they may be others by then.
            if is_replaced {
                return None;
            }
            let number = body.number()?;
            chosen = Some((number, coding));
            form = self.cache.coded().find(number, coding);
            form.as_ref().map(|form| form.len() as u64)
        });
        if let Some((number, coding)) = chosen.filter(|_| !stages.is_empty()) {
            stages.push(Box::new(Keep::new(self.cache, number, coding, body.len())));
        }
        let framing = match (&trailers, framing) {
            // HTTP/1.1 has a place for them only there.
            (Some(trailers), Framing::Length(_)) if self.takes_trailers() => {
                let names: Vec<_> = trailers.iter().map(|field| field.name).collect();
                head.headers.push(b"Trailer", &names.join(b", ".as_slice()));
                Framing::Chunked
            }
            _ => framing,
        };
        let body = Content::of(&form.map_or_else(|| body.clone(), Body::coded));
        self.send_as(head, framing, Followed { body, trailers }, stages, downstream, flow).await
    }

    fn takes_trailers(&self) -> bool {
        let head = &self.request.head;
        head.version > Version::Http10 && head.headers.lists(Name::Te, "trailers")
    }

    /// Sends several parts of a body, of a representation of `length` bytes: each with its place in that.
    async fn send_parts(
        &self,
        mut head: ResponseHead,
        body: &Body,
        spans: Vec<(Span, Span)>,
        length: u64,
        downstream: &mut impl DownstreamSide,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        note_choice(self.engine, self.request, &mut head, length);
        let parts = Multipart::of(&mut head.headers, body, &spans, length);
        let framing = Framing::Length(parts.len());
        self.send_as(head, framing, parts, Stages::new(), downstream, flow).await
    }

    async fn send_as(
        &self,
        head: ResponseHead,
        framing: Framing,
        body: impl Source,
        mut stages: Stages,
        downstream: &mut impl DownstreamSide,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        flow.status = Some(head.status);
        let progress = flow.progress();
        let manner = Manner { framing, via: Some(&self.engine.via), may_keep: true };
        let counts = (self.request.identity.as_deref(), Some(&progress.received));
        let sent = respond(self.engine, downstream, (&head, manner), body, &mut stages, counts).await;
        metrics::with(|metrics| metrics.cache_bytes.add(progress.received.get()));
        flow.end = match &sent {
            Ok(()) => "complete".into(),
            Err(failure) => failure.to_string().into(),
        };
        Ok(match sent {
            Ok(()) => Ending::Complete { sent: true },
            Err(failure) => Ending::Abort(failure.cut()),
        })
    }

    /// What is said anew with every use.
    fn fields(&self, stored: &Stored, outcome: Outcome) -> Vec<u8> {
        let mut fields = Vec::with_capacity(128);
        write_age(stored.freshness.age(cache::now()), &mut fields);
        fields.extend_from_slice(b"Cache-Status: ");
        fields.extend_from_slice(&outcome.value());
        fields.extend_from_slice(b"\r\n");
        fields
    }
}

/// What is stored was made by us; a store that keeps it elsewhere checks it.
const DAMAGED: &str = "a stored response is damaged";

/// 304 (RFC 9110 §15.4.5): the fields that a cache goes by, without those of the content.
fn not_modified(whole: &ResponseHead) -> Option<ResponseHead> {
    let mut text = b"HTTP/1.1 304 Not Modified\r\n".to_vec();
    for field in whole.headers.iter() {
        let of_content = field.name.len() > 8 && field.name[..8].eq_ignore_ascii_case(b"content-");
        if !of_content || field.name.eq_ignore_ascii_case(b"content-location") {
            for part in [field.name, b": ", field.value, b"\r\n"] {
                text.extend_from_slice(part);
            }
        }
    }
    cache::stored_head::StoredHead::from_lines(304, &text).with(b"")
}

/// How the body of a stored response goes out.
fn framing_of(status: u16, length: u64) -> Framing {
    if matches!(status, 204 | 304) { Framing::None } else { Framing::Length(length) }
}
