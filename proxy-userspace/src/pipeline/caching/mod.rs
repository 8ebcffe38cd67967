//! A request's way past the cache: answered from store, by the answer to another request under way, or by its origin,
//! whose answer is stored as it passes.
//!
//! What is allowed is judged in [`crate::cache`], by pure functions; here it is done.

mod background;
mod content;
mod deliver;
mod fetch;
mod fill;
mod invalidate;
mod keep;
mod lookup;
mod multipart;

use std::rc::Rc;
use std::sync::Arc;

pub(super) use fetch::{Fetch, Verdict};
pub(super) use fill::store_and_deliver;

use super::Engine;
use super::exchange::Ending;
use super::failure::Failure;
use super::recording::Recording;
use super::request::{Request, forward, subject};
use super::side::DownstreamSide;
use crate::cache::directives::RequestDirectives;
use crate::cache::entry::Entry;
use crate::cache::flights::Lead;
use crate::cache::key::{Key, Scope};
use crate::cache::range::Wanted;
use crate::cache::report::Why;
use crate::cache::{self, Cache, Rules, conditional};
use crate::http::framing::Framing;
use crate::policy::Subject;
use crate::target::Front;
use crate::telemetry::flow::CacheUse;
use crate::telemetry::metrics;
use crate::upstream::Idle;
use lookup::{Found, Settled};

/// A request as the cache sees it.
pub(super) struct Ask<'a> {
    pub engine: &'a Rc<Engine>,
    pub cache: &'a Arc<Cache>,
    pub request: &'a Request,
    pub subject: Subject<'a>,
    pub framing: Framing,
    pub key: Key,
    pub directives: RequestDirectives,
    pub rules: Rules,
    /// Somebody waits for the answer.
    pub attended: bool,
}

/// Serves a request, if the cache has anything to do with it.
pub(super) async fn serve(
    engine: &Rc<Engine>,
    cache: &Arc<Cache>,
    downstream: &mut impl DownstreamSide,
    request: &Request,
    framing: Framing,
    own: &mut Option<Idle>,
    flow: &mut Recording,
) -> Result<Ending, Failure> {
    let scope = lookup::scope(engine, &request.target).await;
    let ask = Ask {
        engine,
        cache,
        request,
        subject: subject(downstream.client(), request),
        framing,
        key: key(engine, request, scope),
        directives: RequestDirectives::of(&request.head.headers),
        rules: Rules {
            default_ttl: engine.config.cache.default_ttl.as_secs(),
            // RFC 9213 §3.1: CDN-Cache-Control is for caches on the origin's behalf.
            targeted: request.target.front == Front::Gateway,
        },
        attended: true,
    };
    match request.head.method() {
        // What is no answer from store is boxed: a hit does not carry the state of an exchange.
        "GET" | "HEAD" if framing == Framing::None => ask.answer(downstream, own, flow).await,
        _ => Box::pin(ask.pass(Why::Method, downstream, own, flow)).await,
    }
}

/// What its answers are stored under. Those that were judged are found again by whoever would judge them the same way.
fn key(engine: &Engine, request: &Request, scope: Scope) -> Key {
    let key = Key::new(request.target.scheme, request.target.authority.as_ref(), &request.path, scope);
    match &engine.policy.current().inspection {
        Some(inspection) => key.judged_by(inspection.fingerprint()),
        None => key,
    }
}

/// Searches of the stores below memory, for one request: the first may have been for another variant, and what it has
/// found may be lost again.
const SEARCHES: usize = 3;

impl Ask<'_> {
    /// Answers from store if that is possible, and else asks the origin.
    async fn answer(
        &self,
        downstream: &mut impl DownstreamSide,
        own: &mut Option<Idle>,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        let mut may_wait = self.may_wait();
        let mut has_waited = false;
        // So often what is not in memory, or has been lost from disk, is looked for below.
        let mut searches = SEARCHES;
        loop {
            let found = self.look();
            // Whatever is delivered from disk, or may be after its validation, stays open until then.
            let _open = match found.entry().and_then(|entry| Some((entry, entry.body.file()?.0))) {
                Some((entry, file)) => match file.open().await {
                    Some(open) => Some(open),
                    None => {
                        self.cache.forget(&self.key, entry);
                        continue;
                    }
                },
                None => None,
            };
            let (why, seen) = match found {
                Found::Usable { entry, .. } if has_waited => {
                    return Box::pin(self.deliver_awaited(&entry, downstream, flow)).await;
                }
                Found::Usable { entry, revalidate } => {
                    if revalidate {
                        background::revalidate(self, &entry, downstream.client());
                    }
                    return self.deliver_hit(&entry, downstream, flow).await;
                }
                found => {
                    if found.may_be_below() && searches > 0 && self.is_below() {
                        searches -= 1;
                        if self.search().await {
                            continue;
                        }
                    }
                    found.into_question()
                }
            };
            if self.directives.only_if_cached {
                // RFC 9111 §5.2.1.7
                flow.cache = Some(CacheUse::Forward(why.as_str()));
                return Err(Failure::NotCached);
            }
            let validates = seen.as_ref().is_some_and(|entry| entry.part.is_none());
            let Some(lead) = self.settle(may_wait, validates).await else {
                return Box::pin(self.pass(why, downstream, own, flow)).await;
            };
            match lead {
                Settled::Lead(lead) if self.is_unchanged(seen.as_ref()) => {
                    return Box::pin(self.fetch(why, seen, lead, downstream, own, flow)).await;
                }
                Settled::Lead(_) => {}
                Settled::Follow(reader) => {
                    return Box::pin(self.deliver_collapsed(why, reader, downstream, flow)).await;
                }
                // Somebody's answer may be in store now.
                Settled::Again => (may_wait, has_waited) = (false, true),
            }
        }
    }

    /// Whether this request may be answered by the answer to another one.
    fn may_wait(&self) -> bool {
        let headers = &self.request.head.headers;
        let plain = !conditional::is_conditional(headers) && Wanted::of(&self.request.head) == Wanted::Whole;
        // With credentials the answer is most often for this client alone.
        let personal = ["authorization", "cookie"].iter().any(|name| cache::headers::has(headers, name));
        let fresh = self.directives.no_cache || self.directives.no_store || self.directives.max_age.is_some();
        plain && !personal && !fresh && self.request.head.method() == "GET"
    }

    /// Asks the origin, and stores its answer. `seen` is validated, or completed, if there is something.
    async fn fetch(
        &self,
        why: Why,
        seen: Option<Arc<Entry>>,
        lead: Lead,
        downstream: &mut impl DownstreamSide,
        own: &mut Option<Idle>,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        metrics::with(|metrics| metrics.cache_misses.increment());
        flow.cache = Some(CacheUse::Forward(why.as_str()));
        let mut fetch = Fetch::new(self, why, seen, Some(lead));
        let asking = fetch.request(self);
        let ending = forward(
            self.engine,
            downstream,
            asking.as_ref().unwrap_or(self.request),
            self.framing,
            own,
            flow,
            Some(&mut fetch),
        );
        let failure = match ending.await {
            Ok(Ending::Withheld(head)) => match fetch.resolve(self, &head) {
                Some(entry) => return self.deliver_validated(&entry, &fetch, downstream, flow).await,
                // It can't be said what that is about: the whole is asked for.
                None => return self.refetch(fetch, downstream, own, flow).await,
            },
            Ok(ending) => return Ok(ending),
            Err(failure) => failure,
        };
        match fetch.in_need(self, &failure) {
            Some(entry) => {
                drop(fetch);
                self.deliver_stale(&entry, downstream, flow).await
            }
            None => Err(failure),
        }
    }

    /// Asks for the whole response after an answer that said nothing.
    async fn refetch(
        &self,
        fetch: Fetch<'_>,
        downstream: &mut impl DownstreamSide,
        own: &mut Option<Idle>,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        let mut fetch = fetch.of_the_whole();
        let whole = conditional::unconditional(&self.request.head);
        let whole = whole.map(|head| self.request.with_head(head));
        let request = whole.as_ref().unwrap_or(self.request);
        forward(self.engine, downstream, request, self.framing, own, flow, Some(&mut fetch)).await
    }

    /// Sends a request on as it is. Of its answer a part is stored, if that was asked for.
    async fn pass(
        &self,
        why: Why,
        downstream: &mut impl DownstreamSide,
        own: &mut Option<Idle>,
        flow: &mut Recording,
    ) -> Result<Ending, Failure> {
        metrics::with(|metrics| metrics.cache_misses.increment());
        flow.cache = Some(CacheUse::Forward(why.as_str()));
        let mut fetch = Fetch::new(self, why, None, self.beside());
        forward(self.engine, downstream, self.request, self.framing, own, flow, Some(&mut fetch)).await
    }
}
