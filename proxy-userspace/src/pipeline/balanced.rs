//! A request to one of several servers: who gets it, and who else if that fails.
//!
//! It is sent again where that can do no harm: nothing of it was sent, or its method is idempotent and its content is still
//! there (RFC 9110 §9.2.2); nobody has been told anything of an answer yet; and the group's budget allows it.

use std::cell::Cell;
use std::sync::Arc;

use tokio::time::Instant;

use super::Engine;
use super::attempt::{Attempt, OneOf};
use super::caching::Fetch;
use super::exchange::{Ending, Exchange};
use super::failure::Failure;
use super::recording::Recording;
use super::replay::{self, Kept, Pace};
use super::request::{Request, subject};
use super::side::DownstreamSide;
use crate::config::BackendGroup;
use crate::http::framing::Framing;
use crate::relay::Side;
use crate::relay::body::BodyError;
use crate::route::{Affinity, Group, Tried, Turn};
use crate::target::Hop;
use crate::upstream::{Backoff, Idle};

/// A request about to be sent to a group.
pub(super) struct Balanced<'a, 'f> {
    pub engine: &'a Engine,
    pub group: Arc<Group>,
    pub request: &'a Request,
    pub framing: Framing,
    pub flow: &'a mut Recording,
    pub fetch: Option<&'a mut Fetch<'f>>,
}

/// What holds for each time that it is sent.
#[derive(Debug, Clone, Copy)]
struct Terms {
    affinity: Affinity,
    /// It may be sent again although a server may have seen it.
    repeats: bool,
}

impl Balanced<'_, '_> {
    /// Sends it to one member after the other, until one of them answers.
    pub(super) async fn run(
        mut self,
        downstream: &mut impl DownstreamSide,
        own: &mut Option<Idle>,
    ) -> Result<Ending, Failure> {
        let client = downstream.client().address.ip();
        let affinity = self.group.affinity(&self.request.head.headers, client);
        self.group.count_request();
        let idempotent = replay::is_idempotent(self.request.head.method());
        let most = self.group.settings.health.retries.body;
        if idempotent && replay::can_keep(&self.request.head, self.framing, most) {
            let server = &self.engine.config.server;
            let pace = Pace { wait: server.timeouts.read, least_rate: server.limits.min_rate };
            // Boxed: hardly any request is one of these.
            let mut kept = Box::pin(Kept::read(downstream, self.framing, pace)).await?;
            return Box::pin(self.send(Terms { affinity, repeats: true }, &mut kept, own)).await;
        }
        let repeats = idempotent && self.framing == Framing::None;
        self.send(Terms { affinity, repeats }, downstream, own).await
    }

    async fn send(
        &mut self,
        terms: Terms,
        downstream: &mut impl DownstreamSide,
        own: &mut Option<Idle>,
    ) -> Result<Ending, Failure> {
        let attempts = self.group.settings.health.retries.attempts as usize;
        let mut backoff = Backoff::new(self.engine.config.upstream.backoff);
        let mut tried = Tried::new();
        loop {
            let turn = self.group.take(terms.affinity, &tried).await?;
            let index = turn.index();
            let is_last = tried.len() >= attempts;
            let failure = match self.attempt(terms, is_last, turn, downstream, own).await {
                Err(failure) if !is_last && may_go_on(&failure, terms.repeats) => failure,
                result => return result,
            };
            // An answer that is not wanted has had its retry granted.
            if !matches!(failure, Failure::Unwanted(_)) && !self.group.may_retry() {
                return Err(failure);
            }
            tried.push(index);
            // What nobody has made use of was not sent.
            self.flow.progress().sent.set(0);
            if !self.group.has_others(&tried) {
                backoff.wait().await;
            }
        }
    }

    /// Sends it to one member, which has it from then on until it has ended: a tunnel that it becomes, too.
    async fn attempt(
        &mut self,
        terms: Terms,
        is_last: bool,
        turn: Turn,
        downstream: &mut impl DownstreamSide,
        own: &mut Option<Idle>,
    ) -> Result<Ending, Failure> {
        let group = Arc::clone(&self.group);
        let retries = &group.settings.health.retries;
        self.flow.backend = Some(Arc::clone(&group.settings.name));
        self.flow.member = Some(Arc::clone(&turn.member().name));
        self.flow.tries += 1;
        let set_cookie = turn.set_cookie(terms.affinity, self.request.target.scheme);
        let unwanted = |status| {
            retries.statuses.contains(&status) && group.has_others(&[turn.index()]) && group.may_retry()
        };
        let may_repeat = terms.repeats && !is_last;
        let cut_off = Cell::new(false);
        // Where nobody else could be asked, it is waited for.
        let limit = retries.timeout.filter(|_| may_repeat && group.has_others(&[turn.index()]));
        let one = OneOf {
            set_cookie: set_cookie.as_deref(),
            unwanted: may_repeat.then_some(&unwanted as &dyn Fn(u16) -> bool),
            deadline: limit.map(|limit| Instant::now() + limit),
            cut_off: &cut_off,
        };
        let result = self.exchange(&turn, one, downstream, own).await;
        if let Some(failed) = has_failed(&result, self.flow.status, &group.settings) {
            turn.report(failed || cut_off.get());
        }
        if let Ok(Ending::Upgraded(_)) = result {
            self.flow.hold(turn);
        }
        result
    }

    async fn exchange(
        &mut self,
        turn: &Turn,
        one: OneOf<'_>,
        downstream: &mut impl DownstreamSide,
        own: &mut Option<Idle>,
    ) -> Result<Ending, Failure> {
        let Self { engine, request, framing, .. } = *self;
        let hop = Hop::Backend(Arc::clone(turn.server()));
        let _turn = engine.upstream.turn(&hop).await?;
        let addresses = engine.addresses(&hop, &subject(downstream.client(), request)).await?;
        self.flow.timings.dns_us = addresses.dns_us;
        let exchange = Exchange {
            engine,
            request,
            framing,
            hop: &hop,
            client: downstream.client().address,
            addresses: &addresses,
            attempt: Attempt::OneOf(one),
            flow: self.flow,
            fetch: self.fetch.as_deref_mut(),
        };
        exchange.run(downstream, own).await
    }
}

/// Whether another member may be asked. `repeats`: although this one may have seen the request.
fn may_go_on(failure: &Failure, repeats: bool) -> bool {
    match failure {
        // Nothing was sent.
        Failure::Connect(_) | Failure::Unresolved(_) | Failure::NoTurn(_) | Failure::Unwanted(_) => true,
        _ => repeats && is_members(failure),
    }
}

/// Whether it is the member's failure, and not the client's or weir's.
fn is_members(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Connect(_)
            | Failure::Unresolved(_)
            | Failure::NoAnswer
            | Failure::Unprocessed
            | Failure::Reset(_)
            | Failure::BadAnswer(_)
            | Failure::AnswerTimedOut
            | Failure::RequestBody(
                BodyError::Io(Side::Upstream, _)
                    | BodyError::TimedOut(Side::Upstream)
                    | BodyError::TooSlow(Side::Upstream, _)
            )
    )
}

/// What a request tells of its member: nothing, if it has ended for another reason.
fn has_failed(result: &Result<Ending, Failure>, status: Option<u16>, group: &BackendGroup) -> Option<bool> {
    let is_failure = |status| group.health.outliers.statuses.contains(&status);
    match result {
        Ok(_) => status.map(is_failure),
        Err(Failure::Unwanted(status)) => Some(is_failure(*status)),
        Err(failure) => is_members(failure).then_some(true),
    }
}
