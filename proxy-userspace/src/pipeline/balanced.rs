//! A request to one of several servers: who gets it, and who else if that fails.

use super::Engine;
use super::caching::Fetch;
use super::exchange::{Attempt, Ending, Exchange};
use super::failure::Failure;
use super::recording::Recording;
use super::request::{Request, subject};
use super::side::DownstreamSide;
use crate::http::framing::Framing;
use crate::route::{Affinity, Group, Tried};
use crate::target::Hop;
use crate::upstream::Idle;
use std::sync::Arc;

/// A request about to be sent to a group.
pub(super) struct Balanced<'a, 'f> {
    pub engine: &'a Engine,
    pub group: Arc<Group>,
    pub request: &'a Request,
    pub framing: Framing,
    pub flow: &'a mut Recording,
    pub fetch: Option<&'a mut Fetch<'f>>,
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
        self.send(affinity, &Tried::new(), downstream, own).await
    }

    /// Sends it to one member, which has it from then on until its record is closed: a tunnel that it becomes, too.
    async fn send(
        &mut self,
        affinity: Affinity,
        tried: &Tried,
        downstream: &mut impl DownstreamSide,
        own: &mut Option<Idle>,
    ) -> Result<Ending, Failure> {
        let Self { engine, request, framing, .. } = *self;
        let turn = self.group.take(affinity, tried).await?;
        let set_cookie = turn.set_cookie(affinity, request.target.scheme);
        let hop = Hop::Backend(Arc::clone(turn.server()));
        self.flow.backend = Some(Arc::clone(&self.group.settings.name));
        self.flow.member = Some(Arc::clone(&turn.member().name));
        self.flow.tries += 1;
        self.flow.hold(turn);
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
            attempt: Attempt::OneOf { set_cookie: set_cookie.as_deref() },
            flow: self.flow,
            fetch: self.fetch.as_deref_mut(),
        };
        exchange.run(downstream, own).await
    }
}
