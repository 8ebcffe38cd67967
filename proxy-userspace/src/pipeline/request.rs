//! The way of an HTTP request, from its head to its record.

use std::rc::Rc;
use std::sync::Arc;

use super::Engine;
use super::attempt::Attempt;
use super::balanced;
use super::caching::{self, Fetch};
use super::exchange::{Ending, Exchange};
use super::failure::{Cut, Failure};
use super::identify::identify;
use super::inspecting;
use super::judge::judge;
use super::max_forwards::{self, Reach};
use super::recording::Recording;
use super::replacing;
use super::respond::{self, Ask};
use super::rewriting::{self, Rewritten};
use super::serving::{self, Wanted};
use super::side::{DownstreamSide, Manner};
use super::tunnel::Opened;
use crate::filters;
use crate::http::authority::Scheme;
use crate::http::framing::Framing;
use crate::http::head::{RequestHead, ResponseHead, Version};
use crate::http::status::Form;
use crate::http::{date, forward, pac};
use crate::policy::auth::Identity;
use crate::policy::{Passed, Subject};
use crate::relay::Side;
use crate::relay::body::held::Held;
use crate::relay::stage::Stages;
use crate::route::{Asked, Way};
use crate::target::{Client, Front, Target};
use crate::telemetry::{flow, metrics, redact};
use crate::upstream::Idle;

/// A request, ready to be sent on.
#[derive(Debug, Clone)]
pub struct Request {
    pub head: RequestHead,
    pub target: Target,
    /// The request target for an origin server: path and query, or `*`.
    pub path: String,
    /// It is not the first on its connection.
    pub follows: bool,
    /// Who asks, once that is known.
    pub identity: Option<Arc<Identity>>,
    /// What it was, if it was led elsewhere.
    pub rewritten: Option<Box<Rewritten>>,
    /// What of services it is for, if it is.
    pub wanted: Option<Arc<Wanted>>,
}

impl Request {
    /// A request as a front has found it.
    #[must_use]
    pub fn new(head: RequestHead, target: Target, path: String, follows: bool) -> Self {
        Self { head, target, path, follows, identity: None, rewritten: None, wanted: None }
    }

    /// The same request with another head.
    #[must_use]
    pub(super) fn with_head(&self, head: RequestHead) -> Self {
        Self {
            head,
            target: self.target.clone(),
            path: self.path.clone(),
            follows: self.follows,
            identity: self.identity.clone(),
            rewritten: self.rewritten.clone(),
            wanted: self.wanted.clone(),
        }
    }
}

/// What the front does with the connection or stream next.
#[derive(Debug)]
pub enum Next {
    /// Goes on, or ends it in order: the response went out whole. `sent` if the request was read to its end.
    Done { sent: bool },
    /// Resets it: the response is not whole, and the client must see that.
    Abort(Cut),
    /// Relays: it has changed its protocol.
    Tunnel(Opened),
}

/// Serves one request. `own` is the upstream connection that belongs to this downstream one alone, if any.
pub async fn serve(
    engine: &Rc<Engine>,
    downstream: &mut impl DownstreamSide,
    request: &mut Request,
    own: &mut Option<Idle>,
) -> Next {
    metrics::with(|metrics| metrics.requests.increment());
    let mut flow = Recording::begin(downstream.client(), &request.target, downstream.protocol());
    flow.method = Some(flow::method(request.head.method()));
    // A tunnel is to an authority, not to a URL.
    flow.url = (request.head.method() != "CONNECT").then(|| redact::url(&request.target, &request.path));
    let failure = match answer_known(engine, downstream, request, own, &mut flow).await {
        Ok(Ending::Complete { sent }) => return Next::Done { sent },
        Ok(Ending::Abort(cut)) => return Next::Abort(cut),
        Ok(Ending::Upgraded(upstream)) => {
            return Next::Tunnel(Opened::upgraded(flow, upstream, &request.target));
        }
        // Only what the cache has sent on its own behalf ends so, and there it ends.
        Ok(Ending::Withheld(_)) => return Next::Abort(Cut::Broken),
        Err(failure) => failure,
    };
    // Boxed, as all that is rare: each request's state has room for the largest of what is not.
    Box::pin(refuse(engine, downstream, request, &mut flow, &failure)).await
}

/// Answers what never became a request. Returns whether an answer went out.
pub async fn refuse_head(
    engine: &Engine,
    downstream: &mut impl DownstreamSide,
    target: &Target,
    failure: &Failure,
) -> bool {
    let mut flow = Recording::begin(downstream.client(), target, downstream.protocol());
    respond::failure(engine, downstream, &mut flow, failure, Ask::Unknown).await
}

/// Answers whoever it turns out to be.
async fn answer_known(
    engine: &Rc<Engine>,
    downstream: &mut impl DownstreamSide,
    request: &mut Request,
    own: &mut Option<Idle>,
    flow: &mut Recording,
) -> Result<Ending, Failure> {
    request.identity = identify(engine, downstream.client(), &request.target, flow).await?;
    rewriting::rewrite(engine, request, flow);
    serving::find(engine, request)?;
    match request.identity.as_ref().and_then(|identity| identity.context.as_ref()) {
        None => answer(engine, downstream, request, own, flow).await,
        Some(context) => {
            let released = context.ended();
            // Boxed: who is in no context does not carry its state.
            Box::pin(async {
                tokio::select! {
                    answered = answer(engine, downstream, request, own, flow) => answered,
                    () = released => Err(Failure::Released),
                }
            })
            .await
        }
    }
}

async fn answer(
    engine: &Rc<Engine>,
    downstream: &mut impl DownstreamSide,
    request: &Request,
    own: &mut Option<Idle>,
    flow: &mut Recording,
) -> Result<Ending, Failure> {
    let framing = downstream.framing(&request.head)?;
    check_length(framing, body_limit(engine, &request.target))?;
    let changed = filtered(engine, request)?;
    let request = changed.as_ref().unwrap_or(request);
    if serves_pac(engine, request) {
        let (head, file) = pac(request)?;
        return Box::pin(answer_itself(engine, downstream, request, flow, (head, file.as_bytes()))).await;
    }
    check_policy(engine, downstream.client(), request).await?;
    if let Some((head, content)) = serving::own_answer(engine, request) {
        return Box::pin(answer_itself(engine, downstream, request, flow, (head, content.as_bytes()))).await;
    }
    let counted = match max_forwards::reach(request, framing, &engine.via)? {
        Reach::Any => None,
        Reach::On(counted) => Some(counted),
        Reach::Here(answer) => {
            return Box::pin(answer_itself(engine, downstream, request, flow, (answer.0, &answer.1))).await;
        }
    };
    let request = counted.as_deref().unwrap_or(request);
    match &engine.cache {
        // Who asks for another protocol wants a connection, not a response.
        Some(cache) if !forward::wants_connection(&request.head) && !request.is_told_anew() => {
            // Boxed: who has no cache does not carry its state.
            Box::pin(caching::serve(engine, cache, downstream, request, framing, own, flow)).await
        }
        _ => forward(engine, downstream, request, framing, own, flow, None).await,
    }
}

/// Asks the next hop. `fetch` sees the answer for the cache.
pub(super) async fn forward(
    engine: &Engine,
    downstream: &mut impl DownstreamSide,
    request: &Request,
    framing: Framing,
    own: &mut Option<Idle>,
    flow: &mut Recording,
    fetch: Option<&mut Fetch<'_>>,
) -> Result<Ending, Failure> {
    let whole = inspecting::of_the_whole(engine, request);
    let request = whole.as_ref().unwrap_or(request);
    if let Some(app) = request.app() {
        // Boxed: who asks for no app does not carry its state.
        return Box::pin(serving::forward(engine, downstream, (request, app), framing, own, flow, fetch))
            .await;
    }
    let hop = match engine.routes.way(&request.target, asked(request)).ok_or(Failure::NoRoute(NO_ROUTE))? {
        Way::Hop(hop) => hop,
        // Boxed: who is not balanced does not carry its state.
        Way::Group(group) => {
            let sending = balanced::Balanced { engine, group, request, framing, flow, fetch };
            return Box::pin(sending.run(downstream, own)).await;
        }
    };
    // A proxy can't be relied upon to pass an Upgrade on.
    let hop = if forward::wants_upgrade(&request.head) { hop.as_tunnel() } else { hop };
    // Captured programs have not asked for a proxy: they wait where they would have waited.
    let _turn = match request.target.front {
        Front::Captured => None,
        Front::Explicit | Front::Gateway => engine.upstream.turn(&hop).await?,
    };
    let addresses = engine.addresses(&hop, &subject(downstream.client(), request)).await?;
    flow.timings.dns_us = addresses.dns_us;
    let client = downstream.client().address;
    let attempt = Attempt::Only;
    Exchange { engine, request, framing, hop: &hop, client, addresses: &addresses, attempt, flow, fetch }
        .run(downstream, own)
        .await
}

/// What the filters make of it, if that is something else.
fn filtered(engine: &Engine, request: &Request) -> Result<Option<Request>, Failure> {
    let policy = engine.policy.current();
    let Request { head, target, path, .. } = request;
    let rules = &policy.header_rules;
    let changed = filters::check(filters::Request { head, target, path, rules, via: &engine.via })?;
    let changed = replacing::asked(&policy, target, path, changed.as_ref().unwrap_or(head)).or(changed);
    Ok(changed.map(|head| request.with_head(head)))
}

pub(super) fn asked(request: &Request) -> Asked<'_> {
    Asked { method: request.head.method(), path: &request.path, headers: &request.head.headers }
}

pub(super) fn subject<'a>(client: &Client, request: &'a Request) -> Subject<'a> {
    let method = request.head.method();
    let path = Some(&*request.path).filter(|_| method != "CONNECT");
    Subject::of(client, &request.target, Some(method), path).by(request.identity.as_deref())
}

/// Judges what is asked for, before the cache or anybody else is asked for it.
async fn check_policy(engine: &Engine, client: &Client, request: &Request) -> Result<(), Failure> {
    let subject = subject(client, request);
    if judge(engine, &subject, &request.target).await? == Passed::UntilAddress
        && let Some(hop) = match request.app() {
            Some(app) => serving::first_hop(app),
            None => engine.routes.way(&request.target, asked(request)).and_then(Way::any_hop),
        }
    {
        // The cache could answer without one.
        Box::pin(engine.addresses(&hop, &subject)).await?;
    }
    Ok(())
}

fn serves_pac(engine: &Engine, request: &Request) -> bool {
    request.target.front == Front::Gateway
        && request.path == pac::PATH
        && matches!(request.head.method(), "GET" | "HEAD")
        && engine.config.server.pac
}

/// The file that tells browsers to use this proxy, at the address that they have reached it by.
fn pac(request: &Request) -> Result<(ResponseHead, String), Failure> {
    let Some(proxy) = &request.target.authority else {
        return Err(Failure::BadRequest(
            "the Host field is missing: at which address is this proxy reached?".into(),
        ));
    };
    let mut head = ResponseHead::new(Version::Http11, 200, "OK");
    head.headers.push(b"Content-Type", pac::MEDIA_TYPE);
    Ok((head, pac::file(proxy, request.target.scheme == Scheme::Https)))
}

/// Answers with what weir itself has to say.
async fn answer_itself(
    engine: &Engine,
    downstream: &mut impl DownstreamSide,
    request: &Request,
    flow: &mut Recording,
    (mut head, content): (ResponseHead, &[u8]),
) -> Result<Ending, Failure> {
    date::with_now(|now| head.headers.push(b"Date", now));
    head.headers.push(b"Content-Length", content.len().to_string().as_bytes());
    let (framing, content) = match request.head.method() {
        "HEAD" => (Framing::None, b"".as_slice()),
        _ => (Framing::Length(content.len() as u64), content),
    };
    let sent = downstream.framing(&request.head) == Ok(Framing::None);
    let manner = Manner { framing, via: None, may_keep: sent };
    flow.status = Some(head.status);
    let body = Held::new(Side::Upstream, content);
    respond::respond(engine, downstream, (&head, manner), body, &mut Stages::new(), (None, None)).await?;
    flow.end = "complete".into();
    Ok(Ending::Complete { sent })
}

const NO_ROUTE: &str = "no route leads from here: this is a proxy, so ask for a full URL (curl -x) or use CONNECT; \
                        to serve this URL as a gateway, set routing.default_backend or a rule of routing.rules";

/// A length that is announced is refused before anything is sent; one that is not is counted on its way.
fn check_length(framing: Framing, limit: Option<u64>) -> Result<(), Failure> {
    match (framing, limit) {
        (Framing::Length(length), Some(limit)) if length > limit => Err(Failure::BodyTooLarge(limit)),
        _ => Ok(()),
    }
}

/// The most content that a request may have. Captured programs have not asked for a proxy: what they could send
/// without it, they can send with it.
pub(super) fn body_limit(engine: &Engine, target: &Target) -> Option<u64> {
    let limit = engine.config.server.limits.body;
    (limit != 0 && target.front != Front::Captured).then_some(limit)
}

async fn refuse(
    engine: &Engine,
    downstream: &mut impl DownstreamSide,
    request: &Request,
    flow: &mut Recording,
    failure: &Failure,
) -> Next {
    let shows = request.target.intercepted && failure.is_of_tls();
    if request.target.front == Front::Captured && failure.is_upstreams() && !shows {
        respond::note(flow, failure);
        return Next::Abort(failure.cut());
    }
    // The request's body, if any, is still to come.
    let sent = downstream.framing(&request.head) == Ok(Framing::None);
    let ask = match request.head.method() {
        "HEAD" => Ask::Head { sent },
        _ => Ask::Whole { sent, form: Form::of(&request.head.headers) },
    };
    match respond::failure(engine, downstream, flow, failure, ask).await {
        true => Next::Done { sent },
        false => Next::Abort(failure.cut()),
    }
}
