//! What the cache does with the answer to a request that was sent on.

use std::net::IpAddr;
use std::sync::Arc;

use super::Ask;
use crate::cache::body::Body;
use crate::cache::conditional::{self, Validators};
use crate::cache::directives::RequestDirectives;
use crate::cache::entry::{Entry, Stored, Updated};
use crate::cache::filling::{Filling, Reader, SPOOLED, Writer};
use crate::cache::flights::{Boarding, Lead};
use crate::cache::freshness::Exchanged;
use crate::cache::key::Key;
use crate::cache::not_stored::NotStored;
use crate::cache::range::{self, Span};
use crate::cache::report::{Forward, Outcome, Why};
use crate::cache::storable;
use crate::cache::{self, Cache, Rules, headers};
use crate::http::framing::Framing;
use crate::http::head::{RequestHead, ResponseHead};
use crate::pipeline::failure::Failure;
use crate::pipeline::request::Request;
use crate::telemetry::metrics;

/// A request under way, and what its answer is for.
pub(in crate::pipeline) struct Fetch<'a> {
    cache: &'a Arc<Cache>,
    request: &'a RequestHead,
    key: &'a Key,
    framing: Framing,
    directives: RequestDirectives,
    rules: Rules,
    why: Why,
    /// What is validated; or, if it is a part, completed.
    seen: Option<Arc<Entry>>,
    /// None: nothing is to be stored.
    lead: Option<Lead>,
    sent: u64,
    /// The address that answers, if it is the client that leads there.
    from: Option<IpAddr>,
    max_object: u64,
    max_stale: u64,
}

/// Of a body of unknown length, so much is set aside at first; it grows with it.
const UNKNOWN: u64 = 1 << 20;

/// What becomes of an answer.
pub(in crate::pipeline) enum Verdict {
    /// It is delivered as it comes.
    Pass,
    /// It is delivered, and stored.
    Store(Box<Storing>),
    /// It is not for the client.
    Withhold,
}

/// A response on its way into store.
pub(in crate::pipeline) struct Storing {
    pub writer: Writer,
    pub reader: Reader,
    /// What was stored already, and comes before what arrives.
    pub begun: Body,
    /// The client is told this instead of what the origin said.
    pub instead: Option<(ResponseHead, Framing)>,
}

impl<'a> Fetch<'a> {
    pub(super) fn new(ask: &'a Ask<'a>, why: Why, seen: Option<Arc<Entry>>, lead: Option<Lead>) -> Self {
        let config = &ask.engine.config.cache;
        let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            cache: ask.cache,
            request: &ask.request.head,
            key: &ask.key,
            framing: ask.framing,
            directives: ask.directives,
            rules: ask.rules,
            why,
            seen,
            lead,
            sent: cache::now(),
            from: None,
            max_object: config.max_object,
            max_stale: millis(config.max_stale),
        }
    }

    /// The request that is sent, where it is not the client's own: one that validates, or asks for the rest.
    pub(super) fn request(&mut self, ask: &Ask<'_>) -> Option<Request> {
        let seen = self.seen.as_ref()?;
        let validators = &seen.stored.validators;
        let head = match (seen.part, validators.strong()) {
            (Some((span, _)), Some(tag)) => conditional::completing(self.request, span.end, tag),
            _ => conditional::validating(self.request, std::iter::once(validators)),
        };
        if head.is_none() {
            // There is nothing to validate it with; but it may still be needed if its origin is gone.
            let whole = conditional::unconditional(self.request)?;
            return Some(ask.request.with_head(whole));
        }
        head.map(|head| ask.request.with_head(head))
    }

    /// The same fetch, of the whole.
    pub(super) fn of_the_whole(self) -> Self {
        Self { seen: None, sent: cache::now(), ..self }
    }

    /// What is validated.
    fn stale(&self) -> Option<&Arc<Entry>> {
        self.seen.as_ref().filter(|entry| entry.part.is_none())
    }

    /// What is completed.
    fn begun(&self) -> Option<&Arc<Entry>> {
        self.seen.as_ref().filter(|entry| entry.part.is_some())
    }

    /// Judges a final head. What the client is to know of the cache's part is added to it.
    pub(in crate::pipeline) fn judge(
        &mut self,
        head: &mut ResponseHead,
        framing: Framing,
        from: Option<IpAddr>,
    ) -> Verdict {
        self.from = from;
        if self.withholds(head) {
            return Verdict::Withhold;
        }
        self.effects(head);
        let mut report = Forward::because(self.why);
        let exchanged = Exchanged { sent: self.sent, received: cache::now() };
        if self.begun().is_some() && matches!(head.status, 206 | 304 | 416) {
            return match self.complete(head, framing, exchanged) {
                Some(storing) => Verdict::Store(Box::new(storing)),
                // Not what was asked for: the client is not to see it.
                None => Verdict::Withhold,
            };
        }
        let verdict = match self.store(head, framing, exchanged) {
            Ok(store) => {
                report.stored = true;
                Verdict::Store(Box::new(store))
            }
            Err(why) => {
                report.detail = why;
                self.let_go(why, head.status);
                Verdict::Pass
            }
        };
        head.headers.push(b"Cache-Status", &Outcome::Forward(report).value());
        verdict
    }

    /// Whether this answer tells of what is stored, instead of being one for the client.
    fn withholds(&self, head: &ResponseHead) -> bool {
        let Some(stale) = self.stale() else { return false };
        match head.status {
            304 => stale.stored.validators.are_there(),
            // RFC 5861 §4
            500 | 502 | 503 | 504 => {
                let freshness = &stale.stored.freshness;
                freshness.usable_in_need(&self.directives, true, 0, cache::now())
            }
            _ => false,
        }
    }

    fn store(
        &mut self,
        head: &ResponseHead,
        framing: Framing,
        exchanged: Exchanged,
    ) -> Result<Storing, Option<NotStored>> {
        let names_itself = self.request.method() == "POST" && self.is_about_itself(head);
        if self.lead.is_none()
            && names_itself
            && let Boarding::Lead(lead) = self.cache.flights().board(self.key)
        {
            self.lead = Some(lead);
        }
        if self.lead.is_none() {
            return Err(None);
        }
        let storable =
            storable::check(self.request, self.framing, head, names_itself, exchanged, &self.rules)?;
        let part = match head.status {
            206 => part_of(head, framing)?,
            _ => None,
        };
        self.begin(Stored::of(head, storable).from(self.from), framing, part)
    }

    /// Sets aside what storing a response takes.
    fn begin(
        &self,
        stored: Stored,
        framing: Framing,
        part: Option<(Span, u64)>,
    ) -> Result<Storing, Option<NotStored>> {
        let (length, spool) = match framing {
            Framing::Length(length) if length > self.max_object => {
                // Parts are kept in memory only.
                let spool = part.is_none().then(|| self.cache.spool(self.key, Some(length))).flatten();
                (Some(length), Some(spool.ok_or(Some(NotStored::TooLarge))?))
            }
            Framing::Length(length) => (Some(length), None),
            Framing::None => (Some(0), None),
            Framing::Chunked => (None, self.cache.spool(self.key, None)),
            // Its end can't be told from its being cut off.
            Framing::UntilClose => return Err(Some(NotStored::NoEnd)),
        };
        let memory = match length {
            None => self.max_object.min(UNKNOWN),
            Some(_) if spool.is_some() => SPOOLED,
            Some(length) => length,
        };
        let reserved = self.cache.reserve(memory).ok_or(Some(NotStored::Busy))?;
        let (writer, reader) = Filling::begin(stored, length, part, Some(reserved), spool);
        let writer = match length {
            Some(length) => writer.limited_to(length),
            // More than the store on disk takes is refused there.
            None => writer.in_memory_up_to(self.max_object),
        };
        Ok(Storing { writer, reader, begun: Body::default(), instead: None })
    }

    /// Puts what is stored and the rest of it together (RFC 9111 §3.4). None: this is not the rest of that.
    fn complete(&self, rest: &ResponseHead, framing: Framing, exchanged: Exchanged) -> Option<Storing> {
        let begun = self.begun()?;
        let (begin, length) = begun.part?;
        let expected = (Span { start: begin.end, end: length }, length);
        // Who answers to If-Range need not say again how the content is coded (RFC 9110 §15.3.7).
        let same_coding = || {
            let said = headers::values(&rest.headers, "content-encoding");
            !headers::has(&rest.headers, "content-encoding")
                || said.eq(begun.stored.head.values("content-encoding"))
        };
        let is_rest = rest.status == 206
            && same_coding()
            && part_of(rest, framing).ok()? == Some(expected)
            && begun.stored.validators.strong().is_some()
            && begun.stored.validators.strong() == Validators::of(&rest.headers).strong();
        if !is_rest {
            return None;
        }
        let (stored, is_kept) = match begun.stored.updated(self.request, rest, exchanged, &self.rules)? {
            Updated::Keep(stored) => (stored, true),
            Updated::Once(stored) => (stored, false),
        };
        let mut storing = self.begin(stored, Framing::Length(length), None).ok()?;
        if !is_kept {
            storing.writer = storing.writer.limited_to(0);
        }
        let report = Forward { status: Some(206), stored: is_kept, ..Forward::because(self.why) };
        let mut fields = b"Cache-Status: ".to_vec();
        fields.extend_from_slice(&Outcome::Forward(report).value());
        fields.extend_from_slice(b"\r\n");
        let head = storing.writer.filling().stored.head.with(&fields)?;
        storing.begun = begun.body.clone();
        storing.instead = Some((head, Framing::Length(length)));
        Some(storing)
    }

    /// Whether there is still something to be stored is known: others hear of it.
    pub(in crate::pipeline) fn announce(&mut self, filling: &Arc<Filling>) {
        match &self.lead {
            Some(lead) if filling.is_stored() => lead.announce(filling),
            // There is no room for it on disk.
            _ => self.let_go(Some(NotStored::Busy), filling.stored.head.status()),
        }
    }

    /// Whether a response says that it is what is found at the request's own target (RFC 9110 §8.7).
    fn is_about_itself(&self, head: &ResponseHead) -> bool {
        let location = headers::single(&head.headers, "content-location");
        let location = location.and_then(|location| std::str::from_utf8(location).ok());
        location.and_then(|location| self.key.of_reference(location)).as_ref() == Some(self.key)
    }

    /// Nothing is going to be stored: who waits need wait no longer, nor need others.
    fn let_go(&mut self, why: Option<NotStored>, status: u16) {
        let for_others = self.lead.take().is_some_and(|lead| lead.is_for_others());
        if let Some(why) = why {
            self.cache.notes().note(self.key, why, status, for_others, cache::now());
        }
    }

    /// Whether somebody waits who has not begun to read.
    pub(in crate::pipeline) fn is_awaited(&self) -> bool {
        self.lead.as_ref().is_some_and(Lead::is_awaited)
    }

    /// The response has been received whole.
    pub(in crate::pipeline) fn filled(&mut self, filling: &Filling, body: Body) {
        let Some(lead) = self.lead.take() else { return };
        let trailers = filling.trailers().filter(|_| filling.part.is_none());
        let stored = Stored { trailers, ..filling.stored.clone() };
        let entry = Entry { stored, body, part: filling.part };
        metrics::with(|metrics| metrics.cache_stores.increment());
        match entry.part {
            Some(_) => self.cache.store_part(&lead, entry),
            None => self.cache.store(&lead, entry),
        }
    }

    /// The response was cut off. What had arrived is a part of it (RFC 9111 §3.3), to which the rest can be asked for.
    pub(in crate::pipeline) fn cut_off(&mut self, filling: &Filling) {
        let why = if filling.is_stored() { NotStored::CutOff } else { NotStored::TooLarge };
        let Some(lead) = self.lead.take() else { return };
        let status = filling.stored.head.status();
        self.cache.notes().note(self.key, why, status, lead.is_for_others(), cache::now());
        if let Some((body, part)) = filling.arrived()
            && filling.stored.validators.strong().is_some()
            && filling.stored.head.status() == 200
        {
            metrics::with(|metrics| metrics.cache_stores.increment());
            self.cache.store_part(&lead, Entry { stored: filling.stored.clone(), body, part: Some(part) });
        }
    }

    /// What is to be delivered instead of an answer that was withheld. None: it does not fit what is stored.
    pub(super) fn resolve(&mut self, ask: &Ask<'_>, head: &ResponseHead) -> Option<Arc<Entry>> {
        if let Some(begun) = self.begun() {
            // There is no such rest: of no use to anybody.
            self.cache.replace(self.key, begun, None);
            return None;
        }
        let stale = self.seen.as_ref()?;
        if head.status != 304 {
            self.lead = None;
            return Some(Arc::clone(stale));
        }
        if !stale.stored.validators.are_confirmed_by(&Validators::of(&head.headers)) {
            return None;
        }
        let exchanged = Exchanged { sent: self.sent, received: cache::now() };
        let (stored, is_kept) = match stale.stored.updated(&ask.request.head, head, exchanged, &self.rules)? {
            Updated::Keep(stored) => (stored, true),
            Updated::Once(stored) => (stored, false),
        };
        let entry = Arc::new(Entry { stored, ..Entry::clone(stale) });
        self.cache.replace(self.key, stale, is_kept.then_some(&entry));
        self.lead = None;
        Some(entry)
    }

    /// What is stored, if that may be used although the origin could not be asked (RFC 9111 §4.2.4).
    pub(super) fn in_need(&self, ask: &Ask<'_>, failure: &Failure) -> Option<Arc<Entry>> {
        let stale = self.stale()?;
        let freshness = &stale.stored.freshness;
        let usable = freshness.usable_in_need(&ask.directives, false, self.max_stale, cache::now());
        (failure.is_upstreams_absence() && usable).then(|| Arc::clone(stale))
    }

    pub(super) fn why(&self) -> Why {
        self.why
    }

    pub(super) fn cache(&self) -> &Cache {
        self.cache
    }

    /// The client's request.
    pub(super) fn asked(&self) -> &RequestHead {
        self.request
    }

    pub(super) fn key(&self) -> &Key {
        self.key
    }

    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    /// When the request was sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }
}

/// Which part of a representation a 206 is; None if it is all of it.
fn part_of(head: &ResponseHead, framing: Framing) -> Result<Option<(Span, u64)>, Option<NotStored>> {
    let (span, length) = range::content_range(&head.headers).ok_or(Some(NotStored::Partial))?;
    // What says one thing of its length here and another there is of no use.
    if framing != Framing::Length(span.end - span.start) {
        return Err(Some(NotStored::Partial));
    }
    let is_whole = span == Span { start: 0, end: length };
    Ok((!is_whole).then_some((span, length)))
}
