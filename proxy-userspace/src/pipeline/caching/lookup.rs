//! What there is for a request: in store, or under way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Ask;
use crate::cache::entry::Entry;
use crate::cache::filling::Reader;
use crate::cache::flights::{Boarding, Landing, Lead};
use crate::cache::freshness::Usable;
use crate::cache::key::Scope;
use crate::cache::range::{Found as Within, Span, Wanted};
use crate::cache::report::Why;
use crate::cache::store::Variants;
use crate::cache::{self, conditional};
use crate::pipeline::Engine;
use crate::target::{Front, Hop, Target};

/// What is in store for a request.
pub(super) enum Found {
    Usable {
        entry: Arc<Entry>,
        revalidate: bool,
    },
    Stale {
        why: Why,
        entry: Arc<Entry>,
    },
    /// The beginning of what is wanted: the rest can be asked for.
    Begun {
        entry: Arc<Entry>,
    },
    Nothing {
        why: Why,
    },
}

impl Found {
    /// What was found, fresh, stale or in part.
    pub(super) fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Usable { entry, .. } | Self::Stale { entry, .. } | Self::Begun { entry } => Some(entry),
            Self::Nothing { .. } => None,
        }
    }

    /// Whether a store below memory may have better.
    pub(super) fn may_be_below(&self) -> bool {
        match self {
            Self::Nothing { why } => *why != Why::Bypass,
            Self::Begun { .. } => true,
            Self::Usable { .. } | Self::Stale { .. } => false,
        }
    }

    /// Why the origin is asked, and what about.
    pub(super) fn into_question(self) -> (Why, Option<Arc<Entry>>) {
        match self {
            Self::Usable { entry, .. } => (Why::Request, Some(entry)),
            Self::Stale { why, entry } => (why, Some(entry)),
            Self::Begun { entry } => (Why::Partial, Some(entry)),
            Self::Nothing { why } => (why, None),
        }
    }
}

/// What became of the wish to ask the origin.
pub(super) enum Settled {
    Lead(Lead),
    Follow(Reader),
    Again,
}

/// How long a request waits for the answer to another one to begin. Longer, and it asks for itself.
const WAIT: Duration = Duration::from_secs(5);

/// How long a request waits for stores below memory. Longer, and the origin is asked.
const SEARCH: Duration = Duration::from_secs(1);

/// How long a captured request waits to know whether its authority leads where it is going.
const AGREEMENT: Duration = Duration::from_millis(200);

/// Whose answers a request may be given. A captured request is somebody's claim to be for an authority: it shares
/// entries only if that authority's own addresses have the one that it goes to.
pub(super) async fn scope(engine: &Engine, target: &Target) -> Scope {
    match (target.front, target.original_destination) {
        (_, Some(destination)) if agrees(engine, target, destination).await => Scope::Authority,
        (_, Some(destination)) => {
            let namespace = target.vantage.namespace.as_ref().map(|namespace| namespace.cookie());
            Scope::Address(destination, namespace)
        }
        (Front::Gateway, None) => Scope::Gateway,
        (_, None) => Scope::Authority,
    }
}

async fn agrees(engine: &Engine, target: &Target, destination: SocketAddr) -> bool {
    let Some(authority) = target.authority.clone() else { return false };
    // Another network namespace may have another server at the same address.
    if authority.port != destination.port() || target.vantage.namespace.is_some() {
        return false;
    }
    let hop = Hop::Authority(authority, target.scheme);
    let addresses = engine.upstream.addresses(&hop, |_| Ok::<_, std::convert::Infallible>(()));
    match tokio::time::timeout(AGREEMENT, addresses).await {
        Ok(Ok(found)) => found.addresses.contains(&destination),
        Ok(Err(_)) | Err(_) => false,
    }
}

impl Ask<'_> {
    /// Looks into the store.
    pub(super) fn look(&self) -> Found {
        let headers = &self.request.head.headers;
        // What only an origin can decide.
        if conditional::is_for_origin(headers) || Wanted::of(&self.request.head) == Wanted::Other {
            return Found::Nothing { why: Why::Bypass };
        }
        let Some(variants) = self.cache.find(&self.key) else { return Found::Nothing { why: Why::UriMiss } };
        let Some(entry) = variants.select(headers) else { return self.look_for_parts(&variants) };
        if !self.may_come_from(entry) {
            return Found::Nothing { why: Why::Bypass };
        }
        let entry = Arc::clone(entry);
        match entry.stored.freshness.usable(&self.directives, cache::now()) {
            Usable::Fresh | Usable::Stale => Found::Usable { entry, revalidate: false },
            Usable::WhileRevalidating => Found::Usable { entry, revalidate: true },
            Usable::Validate if entry.stored.freshness.left(cache::now()) > 0 => {
                Found::Stale { why: Why::Request, entry }
            }
            Usable::Validate => Found::Stale { why: Why::Stale, entry },
        }
    }

    /// Looks among parts, for want of the whole.
    fn look_for_parts(&self, variants: &Variants) -> Found {
        let headers = &self.request.head.headers;
        let mut parts = variants.parts(headers).peekable();
        if parts.peek().is_none() {
            return Found::Nothing { why: Why::VaryMiss };
        }
        let usable = |entry: &Entry| {
            let usable = entry.stored.freshness.usable(&self.directives, cache::now());
            matches!(usable, Usable::Fresh | Usable::Stale) && self.covers(entry) && self.may_come_from(entry)
        };
        if let Some(entry) = parts.clone().find(|entry| usable(entry)) {
            return Found::Usable { entry: Arc::clone(entry), revalidate: false };
        }
        let begins = |entry: &&Arc<Entry>| {
            let from_start = entry.part.is_some_and(|(span, _)| span.start == 0);
            from_start && entry.stored.validators.strong().is_some() && self.may_come_from(entry)
        };
        match parts.find(begins).filter(|_| self.may_be_completed()) {
            Some(entry) => Found::Begun { entry: Arc::clone(entry) },
            None => Found::Nothing { why: Why::Partial },
        }
    }

    /// Whether what is stored came from where weir may still connect to: the access list is younger than it, perhaps.
    fn may_come_from(&self, entry: &Entry) -> bool {
        entry.stored.from.is_none_or(|from| {
            let address = SocketAddr::new(from, 0);
            self.engine.acl.check(address).is_ok() || self.engine.lifts(&self.subject, address)
        })
    }

    /// Whether a part and the rest may answer this request together: it wants all, and whatever is right.
    fn may_be_completed(&self) -> bool {
        let headers = &self.request.head.headers;
        let directives = &self.directives;
        self.request.head.method() == "GET"
            && Wanted::of(&self.request.head) == Wanted::Whole
            && !conditional::is_conditional(headers)
            && !(directives.no_cache || directives.no_store || directives.max_age.is_some())
    }

    /// Whether what a look found is still what there is. Between a look and the boarding of a flight, the flight before
    /// may have landed: its answer is used then, and not asked for again.
    pub(super) fn is_unchanged(&self, seen: Option<&Arc<Entry>>) -> bool {
        match (self.look().entry(), seen) {
            (None, None) => true,
            (Some(entry), Some(seen)) => Arc::ptr_eq(entry, seen),
            _ => false,
        }
    }

    /// Whether a store below memory may have something.
    pub(super) fn is_below(&self) -> bool {
        self.cache.may_be_below(&self.key) && !self.cache.notes().is_personal(&self.key, cache::now())
    }

    /// Looks for it there; once for all who want it. Returns whether memory may have it now.
    pub(super) async fn search(&self) -> bool {
        let searching = async {
            match self.cache.loads().board(&self.key) {
                Boarding::Lead(lead) => self.cache.load(&lead, &self.request.head.headers).await,
                Boarding::Wait(wait) => {
                    wait.landing().await;
                    true
                }
                Boarding::Full => false,
            }
        };
        tokio::time::timeout(SEARCH, searching).await.unwrap_or(false)
    }

    /// Whether an entry has all that is wanted of its representation.
    fn covers(&self, entry: &Entry) -> bool {
        let Some((has, length)) = entry.part else { return true };
        let headers = &self.request.head.headers;
        if !conditional::range_applies(headers, &entry.stored.validators) {
            return false;
        }
        let covers = |span: &Span| has.start <= span.start && span.end <= has.end;
        match Wanted::of(&self.request.head).of_length(length) {
            Within::Part(span) => covers(&span),
            Within::Parts(spans) => spans.iter().all(covers),
            Within::Whole | Within::Nothing => false,
        }
    }

    /// Who asks for a part asks the origin beside whoever asks for more.
    pub(super) fn beside(&self) -> Option<Lead> {
        let asks_for_a_part = matches!(Wanted::of(&self.request.head), Wanted::From(..) | Wanted::Last(_));
        let stores = self.request.head.method() == "GET" && asks_for_a_part;
        stores.then(|| self.cache.flights().beside(&self.key))
    }

    /// Finds out who asks the origin. None: this request does, for itself alone. `validates`: there is something that the
    /// origin is asked about.
    pub(super) async fn settle(&self, may_wait: bool, validates: bool) -> Option<Settled> {
        let wanted = Wanted::of(&self.request.head);
        // Nobody should wait for a part.
        let for_all = wanted == Wanted::Whole || (validates && wanted != Wanted::Other);
        if self.request.head.method() != "GET" || !for_all {
            return None;
        }
        let waits = may_wait && !self.cache.notes().is_personal(&self.key, cache::now());
        let wait = match self.cache.flights().board(&self.key) {
            Boarding::Lead(lead) => return Some(Settled::Lead(lead)),
            Boarding::Wait(wait) if waits => wait,
            Boarding::Wait(_) | Boarding::Full => return None,
        };
        match tokio::time::timeout(WAIT, wait.landing()).await {
            Ok(Landing::Arriving(reader)) => {
                let stored = &reader.filling().stored;
                let fits = stored.selection.matches(&self.request.head.headers)
                    && stored.freshness.usable(&self.directives, cache::now()) == Usable::Fresh
                    && reader.filling().part.is_none();
                Some(if fits { Settled::Follow(reader) } else { Settled::Again })
            }
            Ok(Landing::Over) => Some(Settled::Again),
            Err(_) => None,
        }
    }
}
