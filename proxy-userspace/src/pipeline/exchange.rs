//! One request and its response over one upstream connection, new or kept.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;

use super::attempt::Attempt;
use super::caching::{Fetch, Verdict, store_and_deliver};
use super::failure::{Cut, Failure};
use super::form::is_grpc;
use super::hop::http1::Http1;
use super::hop::http2::Http2;
use super::inspecting::{Judged, inspected};
use super::recording::Recording;
use super::replay::is_idempotent;
use super::request::{Request, body_limit};
use super::response::{deliver, final_head, give_head, within};
use super::sending::Sending;
use super::side::{Afterwards, Answer, DownstreamSide, Onward, Reply, UpstreamSide};
use super::tunnel::Upgraded;
use super::upgrades::authenticates_connection;
use super::{Engine, additions};
use crate::config::Direction;
use crate::http::authority::Shown;
use crate::http::forward;
use crate::http::framing::Framing;
use crate::http::head::{ResponseHead, Version};
use crate::http::headers::Name;
use crate::http::websocket;
use crate::net::deadline::Deadline;
use crate::relay::body::{BodyError, Patience, Terms, transfer};
use crate::target::{Front, Hop};
use crate::telemetry::metrics;
use crate::upstream::{Addresses, Backoff, Connection, Idle, Place, Speaks, Way};

/// How an exchange left the downstream side.
#[derive(Debug)]
pub(super) enum Ending {
    /// The response went out whole; `sent` if so did the request.
    Complete { sent: bool },
    /// The response was cut off, and the client must see that.
    Abort(Cut),
    /// The upstream connection or stream goes on in another protocol.
    Upgraded(Upgraded),
    /// The answer was for the cache alone; the client has got nothing yet.
    Withheld(Box<ResponseHead>),
}

/// A request about to be sent.
pub(super) struct Exchange<'a, 'f> {
    pub engine: &'a Engine,
    pub request: &'a Request,
    pub framing: Framing,
    pub hop: &'a Hop,
    /// The address of the client.
    pub client: SocketAddr,
    pub addresses: &'a Addresses,
    pub attempt: Attempt<'a>,
    pub flow: &'a mut Recording,
    /// Sees the answer for the cache.
    pub fetch: Option<&'a mut Fetch<'f>>,
}

/// How a conversation left both sides.
enum Conversed<S> {
    SwitchedProtocols(S),
    Responded { ending: Ending, upstream: Afterwards },
}

impl Exchange<'_, '_> {
    /// Sends the request, delivers the response. `own` is the upstream connection that belongs to this
    /// downstream one alone, if there is one.
    pub(super) async fn run(
        mut self,
        downstream: &mut impl DownstreamSide,
        own: &mut Option<Idle>,
    ) -> Result<Ending, Failure> {
        // A kept connection may have been closed by the server just now; that is no reason to fail.
        if let Some(kept) = self.kept(own) {
            match self.over(kept, downstream, own).await {
                Err(Failure::NoAnswer) if self.may_repeat() => {}
                result => return result,
            }
        }
        let settings = &self.engine.config.upstream;
        let mut backoff = Backoff::new(settings.backoff);
        let mut left = self.retries();
        let mut had_shared = false;
        loop {
            // Boxed: a request that meets a kept connection needs none of that memory.
            match Box::pin(self.open(downstream, own)).await {
                // A shared connection may be ended by the server just now, too.
                Err((Failure::NoAnswer, true)) if self.may_repeat() && !had_shared => had_shared = true,
                // RFC 9113 §8.7: whatever it asks for, as long as it is still there to be sent.
                Err((Failure::Unprocessed, true)) if self.framing == Framing::None && !had_shared => {
                    had_shared = true;
                }
                // Nothing was sent: whatever it is, it may be tried again.
                Err((Failure::Connect(error), _)) if left > 0 && error.is_passing() => {
                    left -= 1;
                    metrics::with(|metrics| metrics.upstream_retries.increment());
                    backoff.wait().await;
                }
                result => return result.map_err(|(failure, _)| failure),
            }
        }
    }

    /// Opens a way to the upstream, and goes it. With a failure: whether the connection was a shared one.
    async fn open(
        &mut self,
        downstream: &mut impl DownstreamSide,
        own: &mut Option<Idle>,
    ) -> Result<Ending, (Failure, bool)> {
        let (head, upstream) = (&self.request.head, &self.engine.upstream);
        let opened = match self.request.target.front {
            // Captured programs speak to their server what it understands, and share its connection with nobody.
            Front::Captured if head.version == Version::Http2 => {
                let owner = Some(self.client);
                let addresses = Addresses { speaks: Speaks::Http2, owner, ..self.addresses.clone() };
                upstream.open(&addresses).await
            }
            Front::Explicit | Front::Gateway
                if self.addresses.speaks != Speaks::Http1 && websocket::is_asked_for(head) =>
            {
                upstream.open_websocket(self.addresses).await
            }
            // What an upgrade asks for needs a connection of its own.
            front if front == Front::Captured || forward::wants_upgrade(head) => {
                let addresses = Addresses { speaks: Speaks::Http1, ..self.addresses.clone() };
                upstream.connect(&addresses).await.map(Way::Http1)
            }
            _ => upstream.open(self.addresses).await,
        };
        let timings = &mut self.flow.timings;
        match opened.map_err(|error| (error.into(), false))? {
            Way::Http1(connection) => {
                (timings.connect_us, timings.tls_us) = (connection.connect_us, connection.tls_us);
                self.over(connection, downstream, own).await.map_err(|failure| (failure, false))
            }
            Way::Http2(place) => {
                (timings.connect_us, timings.tls_us) = (place.connect_us, place.tls_us);
                self.flow.upstream = Some(place.address);
                self.on(place, downstream).await.map_err(|failure| (failure, true))
            }
        }
    }

    async fn on(&mut self, place: Place, downstream: &mut impl DownstreamSide) -> Result<Ending, Failure> {
        let mut side = Http2::on(place).await?;
        match self.converse(&mut side, downstream, &mut false).await? {
            Conversed::Responded { ending, .. } => Ok(ending),
            Conversed::SwitchedProtocols(Some(stream)) => {
                Ok(Ending::Upgraded(Upgraded::Stream(Box::new(side.carrying(stream)))))
            }
            Conversed::SwitchedProtocols(None) => Err(Failure::BadAnswer("101 in HTTP/2".into())),
        }
    }

    /// A kept connection, if this request may meet one that is just being closed: because it can be repeated, or
    /// because on its own connection, too, it would have followed another.
    fn kept(&self, own: &mut Option<Idle>) -> Option<Connection> {
        let own = own.take().filter(|idle| idle.leads_to(self.addresses)).and_then(Idle::wake);
        if own.is_some() || self.request.target.front == Front::Captured {
            return own;
        }
        let repeats = self.may_repeat();
        // A body that is held back to be judged would keep it waiting, until its server closes it.
        let is_held = || inspected(self.engine, self.request, Direction::Request, self.framing).is_some();
        let may_meet = repeats || self.request.follows && !is_held();
        may_meet.then(|| self.engine.upstream.reuse(self.addresses, repeats)).flatten()
    }

    /// Nothing of a body was used up.
    fn may_repeat(&self) -> bool {
        self.framing == Framing::None && is_idempotent(self.request.head.method())
    }

    async fn over(
        &mut self,
        mut connection: Connection,
        downstream: &mut impl DownstreamSide,
        own: &mut Option<Idle>,
    ) -> Result<Ending, Failure> {
        self.flow.upstream = Some(connection.address);
        let mut authenticates = authenticates_connection(&self.request.head.headers, Name::Authorization);
        let mut side = Http1::over(&mut connection.stream);
        match self.converse(&mut side, downstream, &mut authenticates).await? {
            Conversed::SwitchedProtocols(()) => Ok(Ending::Upgraded(connection.into())),
            Conversed::Responded { ending, upstream } => {
                self.put_away(connection, upstream, authenticates, own);
                Ok(ending)
            }
        }
    }

    /// Finds a place for a connection that was used.
    fn put_away(
        &self,
        connection: Connection,
        left: Afterwards,
        authenticates: bool,
        own: &mut Option<Idle>,
    ) {
        match left {
            Afterwards::Broken => {}
            Afterwards::Over => drop(Idle::from(connection)),
            // A captured connection has its upstream connection to itself, as it had without weir; one that
            // carries somebody's identity is nobody else's.
            Afterwards::Reusable if authenticates || self.request.target.front == Front::Captured => {
                *own = Some(Idle::from(connection));
            }
            Afterwards::Reusable => self.engine.upstream.keep(Idle::from(connection)),
        }
    }

    async fn converse<U: UpstreamSide>(
        &mut self,
        upstream: &mut U,
        downstream: &mut impl DownstreamSide,
        authenticates: &mut bool,
    ) -> Result<Conversed<U::Stream>, Failure> {
        let (engine, request) = (self.engine, self.request);
        let progress = self.flow.progress();
        let sending_deadline = Deadline::new();
        let (host, scheme) = self.host();
        let target = self.request_target(Shown(&host, scheme));
        let form = self.form(&target, Shown(&host, scheme));
        let downstream = downstream.open(self.framing);
        let (upload, download) = engine.paces(&self.flow.client, request.identity.as_deref());
        let patience = self.patience(downstream.deadline, download.as_ref());
        let mut reply = downstream.reply;
        let mut content = Judged::of(downstream.content);
        if let Some(inspection) = inspected(engine, request, Direction::Request, self.framing) {
            // Boxed: who is not judged does not carry its state.
            Box::pin(content.judge_request(&inspection, request, &mut reply, &engine.via, patience)).await?;
        }
        metrics::with(|metrics| metrics.upstream_requests.increment());
        let (mut sink, mut answer) =
            upstream.begin(&Onward { head: &request.head, form, via: &engine.via })?;
        // By reference: a future holds twice what it is given, and all of this is moved in memory for each request.
        let sending = pin!(transfer(
            &mut content,
            &mut sink,
            Terms {
                patience: self.patience(&sending_deadline, upload.as_ref()),
                limit: body_limit(engine, &request.target),
                // A call of gRPC may be a stream, with pauses as long as both sides like.
                paces_streams: self.framing == Framing::Chunked && !is_grpc(&request.head.headers),
                moved: Some(&progress.sent),
            },
        ));
        let under_way = Cell::new(true);
        let mut sending = Sending::new(sending, &under_way, patience);

        let limits = &engine.config.server.limits;
        let mut head = {
            let head = pin!(final_head(&mut answer, &mut reply, limits, &engine.via, patience, &under_way));
            self.attempt.in_time(sending.beside(head)).await?
        };
        self.attempt.check(head.status)?;
        // As the server has said it, whatever rules make of it.
        *authenticates |= authenticates_connection(&head.headers, Name::WwwAuthenticate);
        additions::complete(engine, request, self.hop, &mut head);
        self.flow.timings.ttfb_us = Some(crate::telemetry::flow::micros(sending.ended().elapsed()));
        self.flow.status = Some(head.status);
        if head.status == 407 && matches!(self.hop, Hop::Parent { tunnel: false, .. }) {
            let why = "it is a parent proxy that wants credentials, or others than those in upstream.parent";
            return Err(Failure::BadAnswer(why.into()));
        }
        if head.status == 101 || request.head.method() == "CONNECT" && head.is_success() {
            self.check_upgrade(&head, sending.is_complete())?;
            within(patience, reply.switch_protocols(&head, &engine.via, answer.beyond())).await?;
            return Ok(Conversed::SwitchedProtocols(answer.switched()));
        }
        self.pass_on(head, &mut answer, &mut reply, &mut sending, patience).await
    }

    /// Delivers the response behind a final head, or what the cache makes of it.
    async fn pass_on<A: Answer, S: Future<Output = Result<(), BodyError>>>(
        &mut self,
        mut head: ResponseHead,
        answer: &mut A,
        reply: &mut impl Reply,
        sending: &mut Sending<'_, S>,
        patience: Patience<'_>,
    ) -> Result<Conversed<A::Stream>, Failure> {
        let progress = self.flow.progress();
        let framing = answer
            .framing(&head, self.request.head.method())
            .map_err(|error| Failure::BadAnswer(error.to_string()))?;
        let verdict = self.judge(&mut head, framing);
        if matches!(verdict, Verdict::Withhold) {
            let rests = framing == Framing::None && sending.is_complete();
            return Ok(Conversed::Responded {
                upstream: if rests { answer.afterwards(&head, framing) } else { Afterwards::Broken },
                ending: Ending::Withheld(Box::new(head)),
            });
        }
        let (storing, instead) = match verdict {
            Verdict::Store(mut storing) => {
                let instead = storing.instead.take();
                (Some(storing), instead)
            }
            _ => (None, None),
        };
        let (engine, request) = (self.engine, self.request);
        let mut body = Judged::of(answer.body(framing));
        if let Some(inspection) = inspected(engine, request, Direction::Response, framing) {
            let mut judging = Box::pin(body.judge_response(&inspection, &head, patience));
            sending.beside(judging.as_mut()).await?;
        }
        let may_keep = sending.may_end_well();
        let mut stages = match instead {
            Some((mut told, framing)) => {
                self.flow.status = Some(told.status);
                self.attempt.bind(&mut told);
                give_head(engine, request, (&mut told, framing), may_keep, reply)
            }
            None => {
                self.attempt.bind(&mut head);
                give_head(engine, request, (&mut head, framing), may_keep, reply)
            }
        };
        let received = &progress.received;
        let result = match (storing, &mut self.fetch) {
            (Some(storing), Some(fetch)) => {
                let ways = (reply, &mut stages);
                // Boxed: who stores nothing does not carry its state.
                let mut storing =
                    Box::pin(store_and_deliver(body, *storing, fetch, ways, received, patience));
                sending.beside(storing.as_mut()).await
            }
            _ => {
                let delivery = pin!(deliver(body, reply, &mut stages, Some(received), patience));
                sending.beside(delivery).await
            }
        };
        let sent = sending.is_complete();
        let upstream = match result.is_ok() && sent {
            true => answer.afterwards(&head, framing),
            false => Afterwards::Broken,
        };
        Ok(Conversed::Responded { upstream, ending: self.ended(result, sent) })
    }

    /// What the cache makes of the answer, if it is asked.
    fn judge(&mut self, head: &mut ResponseHead, framing: Framing) -> Verdict {
        let Some(fetch) = &mut self.fetch else { return Verdict::Pass };
        // What the operator has named is no question of the access list.
        let by_client = matches!(self.hop, Hop::Authority(..) | Hop::Address(..));
        let from = self.flow.upstream.filter(|_| by_client).map(|address| address.ip());
        fetch.judge(head, framing, from)
    }

    fn ended(&mut self, delivered: Result<(), Failure>, sent: bool) -> Ending {
        match delivered {
            Ok(()) => {
                self.flow.end = "complete".into();
                Ending::Complete { sent }
            }
            Err(failure) => {
                self.attempt.note(&failure);
                self.flow.end = failure.to_string().into();
                Ending::Abort(failure.cut())
            }
        }
    }
}
