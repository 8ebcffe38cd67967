//! HTTP/1 on a downstream connection: one request after the other, each with its target.

mod side;

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::{check_connect, inside, presented};
use crate::config::Timeouts;
use crate::filters;
use crate::http::authority::{Authority, BadAuthority, Scheme};
use crate::http::forward;
use crate::http::head::{RequestHead, Version};
use crate::http::headers::Name;
use crate::http::parse::{self, Parsed};
use crate::net::stream::Downstream;
use crate::net::transport::Transport;
use crate::pipeline::failure::Failure;
use crate::pipeline::request::{self, Next, Request};
use crate::pipeline::{Engine, identify, tunnel};
use crate::target::{Front, Target};
use crate::telemetry::flow::Protocol;
use crate::upstream::Idle;
use side::Http1;

/// Serves requests until the connection ends or becomes a tunnel. `base` is what is known of their target before
/// they are read.
pub(super) async fn serve(mut engine: Rc<Engine>, mut downstream: Downstream, base: Target) {
    let mut own = None;
    let mut follows = false;
    loop {
        let head = match read_head(&engine, &mut downstream, base.front).await {
            Ok(Read::Head(head)) => head,
            Ok(Read::End) => return downstream.close_idle(),
            Ok(Read::ForProxy) => return Box::pin(pass_on(&engine, downstream, &base, own)).await,
            // Boxed, as it is rare: every connection would have the memory.
            Err(failure) => return Box::pin(refuse(&engine, downstream, &base, &failure)).await,
        };
        engine = engine.newest();
        let (next, keeps) = match aim(head, &base, follows) {
            Ok(Aim::Request(mut request)) => {
                let mut side = Http1::of(&mut downstream, &request.head);
                // Boxed: between requests, and once it is a tunnel, a connection needs none of that memory.
                let next = Box::pin(request::serve(&engine, &mut side, &mut request, &mut own)).await;
                (next, side.keeps())
            }
            Ok(Aim::Tunnel(target)) if identify::has_route(&engine, &target) => {
                // Boxed, as it is rare.
                return Box::pin(connect_inside(engine, downstream, target)).await;
            }
            Ok(Aim::Tunnel(target)) => return connect(&engine, downstream, &target).await,
            Err(failure) => return Box::pin(refuse(&engine, downstream, &base, &failure)).await,
        };
        match next {
            Next::Done { sent: true } if keeps => follows = true,
            Next::Done { .. } => return downstream.close().await,
            Next::Abort(_) => return,
            Next::Tunnel(opened) => return opened.relay(&engine, downstream),
        }
    }
}

/// What a client has sent next.
enum Read {
    Head(RequestHead),
    /// A request that a captured client asks a proxy of its own. It is still in the inbox.
    ForProxy,
    /// It has ended the connection, or was idle for too long.
    End,
}

/// Reads the next head.
async fn read_head(engine: &Engine, downstream: &mut Downstream, front: Front) -> Result<Read, Failure> {
    let timeouts = &engine.config.server.timeouts;
    let limits = &engine.config.server.limits;
    if downstream.inbox.bytes().is_empty() && !first_bytes(downstream, timeouts).await {
        return Ok(Read::End);
    }
    downstream.deadline.arm(timeouts.request_head);
    loop {
        if !downstream.inbox.bytes().is_empty() {
            match parse::request(downstream.inbox.bytes(), limits)? {
                Parsed::Complete(head, _) if front == Front::Captured && !is_for_origin(&head) => {
                    return Ok(Read::ForProxy);
                }
                Parsed::Complete(head, length) => {
                    downstream.inbox.consume(length);
                    return Ok(Read::Head(head));
                }
                Parsed::Partial => {}
            }
        }
        let fill = downstream.inbox.fill(&mut downstream.stream);
        match downstream.deadline.race(fill).await {
            Err(_) => return Err(Failure::RequestTimedOut),
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) if downstream.inbox.bytes().is_empty() => return Ok(Read::End),
            Ok(Ok(0) | Err(_)) => return Err(Failure::ClientGone),
        }
    }
}

/// Whether its form is that for an origin server (RFC 9112 §3.2.1, §3.2.4).
fn is_for_origin(head: &RequestHead) -> bool {
    head.target().starts_with('/') || head.target() == "*"
}

/// A captured client that has asked for something in origin-form speaks to a proxy of its own, after all. What it asks
/// that one is between the two, as on a connection that begins so (see [`super::detect`]): unread from here on, over the
/// upstream connection that it has.
async fn pass_on(engine: &Rc<Engine>, downstream: Downstream, base: &Target, own: Option<Idle>) {
    if let Some(rule) = &base.rule
        && let Err(denial) = filters::check_name(&**rule, None)
    {
        return tunnel::refuse(&downstream.client, base, Protocol::Opaque, &Failure::Filtered(denial));
    }
    match tunnel::open_over(engine, &downstream.client, base, own.and_then(Idle::wake)).await {
        Ok(opened) => opened.relay(engine, downstream),
        Err(refused) => refused.reset(downstream),
    }
}

/// Waits for a request to begin, without a buffer: an idle connection holds none. False if the client ends the
/// connection, or is idle for too long. A drain ends the wait at once only between requests: who has just connected
/// is about to ask.
pub(super) async fn first_bytes(downstream: &mut Downstream, timeouts: &Timeouts) -> bool {
    let Downstream { stream, inbox, deadline, .. } = downstream;
    let first = async {
        loop {
            inbox.release();
            let socket = match &mut *stream {
                Transport::Plain(socket) => socket,
                // A session has buffers of its own in any case.
                tls @ Transport::Tls(_) => return inbox.fill(tls).await,
            };
            socket.readable().await?;
            // That was a guess (tokio takes every accepted socket for readable); only reading tells.
            match inbox.try_fill(socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    };
    let in_drain = if deadline.was_armed() { Duration::ZERO } else { timeouts.request_head };
    matches!(deadline.limit_idle(timeouts.idle, in_drain, first).await, Ok(Ok(1..)))
}

/// What a request wants.
enum Aim {
    Request(Box<Request>),
    Tunnel(Target),
}

/// Finds a request's target in its form (RFC 9112 §3.2).
fn aim(head: RequestHead, base: &Target, follows: bool) -> Result<Aim, Failure> {
    check_host(&head)?;
    let credentials = presented(&head, base);
    let whole = |authority, front, scheme| Target {
        front,
        authority,
        scheme,
        credentials: credentials.clone(),
        ..base.clone()
    };
    if base.front == Front::Captured {
        let authority = host_authority(&head, base.scheme)?;
        let path = head.target().to_owned();
        let request = Request::new(head, whole(authority, base.front, base.scheme), path, follows);
        return Ok(Aim::Request(Box::new(request)));
    }
    if let (Front::Explicit, Some(authority)) = (base.front, &base.authority) {
        return inside_tunnel(head, base, authority, follows);
    }
    if head.method() == "CONNECT" {
        check_connect(&head)?;
        let authority = Authority::parse(head.target(), None).map_err(bad_target)?;
        check_other_host(&head, head.target())?;
        return Ok(Aim::Tunnel(whole(Some(authority), base.front, Scheme::Http)));
    }
    let (authority, scheme, path) = match split_absolute(head.target()) {
        Some((scheme, authority, path)) => {
            let scheme = match scheme {
                _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
                _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
                // Not what RFC 6455 §4.1 asks of them, but so some clients (aiohttp) ask a proxy for a WebSocket.
                _ if scheme.eq_ignore_ascii_case("ws") && forward::wants_upgrade(&head) => Scheme::Http,
                _ if scheme.eq_ignore_ascii_case("wss") && forward::wants_upgrade(&head) => Scheme::Https,
                _ => return Err(Failure::NotImplemented("only http:// and https:// URLs are forwarded")),
            };
            let parsed = Authority::parse(authority, Some(scheme.default_port())).map_err(bad_target)?;
            check_other_host(&head, authority)?;
            (Some(parsed), scheme, absolute_path(path, head.method()))
        }
        None if head.target().starts_with('/') || head.target() == "*" => {
            let path = head.target().to_owned();
            let target = whole(host_authority(&head, base.scheme)?, Front::Gateway, base.scheme);
            return Ok(Aim::Request(Box::new(Request::new(head, target, path, follows))));
        }
        None => return Err(Failure::BadRequest("the request target is in no form that exists".into())),
    };
    let target = whole(authority, base.front, scheme);
    let request = Request::new(head, target, path, follows);
    Ok(Aim::Request(Box::new(request)))
}

/// A request inside a tunnel whose target and client are known. A tunnel in there would be one of many.
fn inside_tunnel(
    head: RequestHead,
    base: &Target,
    authority: &Authority,
    follows: bool,
) -> Result<Aim, Failure> {
    let path = head.target().to_owned();
    if !is_for_origin(&head) {
        return Err(Failure::BadRequest("inside this tunnel, requests are in origin-form".into()));
    }
    let target = Target { authority: Some(authority.clone()), ..base.clone() };
    Ok(Aim::Request(Box::new(Request::new(head, target, path, follows))))
}

/// RFC 9112 §3.2: exactly one Host in HTTP/1.1, never more than one.
fn check_host(head: &RequestHead) -> Result<(), Failure> {
    match (head.headers.all(Name::Host).count(), head.version) {
        (1, _) | (0, Version::Http10) => Ok(()),
        (0, _) => Err(Failure::BadRequest("the Host field is missing".into())),
        _ => Err(Failure::BadRequest("there is more than one Host field".into())),
    }
}

/// RFC 9112 §3.2: a Host that is none makes the request bad, although the target counts. Most say what the target says.
fn check_other_host(head: &RequestHead, named: &str) -> Result<(), Failure> {
    match head.headers.first(Name::Host) {
        Some(host) if host == named.as_bytes() => Ok(()),
        _ => host_authority(head, Scheme::Http).map(drop),
    }
}

fn host_authority(head: &RequestHead, scheme: Scheme) -> Result<Option<Authority>, Failure> {
    let Some(host) = head.headers.first(Name::Host) else { return Ok(None) };
    if host.is_empty() {
        // RFC 9110 §7.2: sent by a client that has no authority.
        return Ok(None);
    }
    let host =
        std::str::from_utf8(host).map_err(|_| Failure::BadRequest("the Host field is not text".into()))?;
    let authority = Authority::parse(host, Some(scheme.default_port()));
    authority.map(Some).map_err(|error| Failure::BadRequest(format!("the Host field is not valid: {error}")))
}

/// Says what is wrong, but not with what: it is logged, and a target may hold a password or a token.
fn bad_target(error: BadAuthority) -> Failure {
    Failure::BadRequest(format!("the request target's authority is not valid: {error}"))
}

/// Scheme, authority and the rest of `scheme://authority/rest`.
fn split_absolute(target: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some((scheme, &rest[..end], &rest[end..]))
}

/// The origin-form of what follows the authority (RFC 9112 §3.2.1, §3.2.4).
fn absolute_path(rest: &str, method: &str) -> String {
    let rest = rest.split('#').next().unwrap_or_default();
    match rest {
        "" if method == "OPTIONS" => "*".to_owned(),
        rest if rest.starts_with('/') => rest.to_owned(),
        rest => format!("/{rest}"),
    }
}

async fn connect(engine: &Rc<Engine>, mut downstream: Downstream, target: &Target) {
    let opened = tunnel::open(engine, &downstream.client, target, Protocol::Opaque, Some("CONNECT")).await;
    let opened = match opened {
        Ok(opened) => opened.with_status(200),
        Err(refused) => {
            if Box::pin(refused.answer(engine, &mut Http1::last(&mut downstream))).await {
                downstream.close().await;
            }
            return;
        }
    };
    let write = downstream.stream.write_all(ESTABLISHED);
    let written = downstream.deadline.limit(engine.config.server.timeouts.write, write).await;
    if matches!(written, Ok(Ok(()))) {
        opened.relay(engine, downstream);
    }
}

/// As [`connect`], for a client that is led elsewhere: what it speaks is looked at.
async fn connect_inside(engine: Rc<Engine>, mut downstream: Downstream, target: Target) {
    let write = downstream.stream.write_all(ESTABLISHED);
    let written = downstream.deadline.limit(engine.config.server.timeouts.write, write).await;
    if matches!(written, Ok(Ok(()))) {
        inside::serve(engine, downstream, target, "CONNECT").await;
    }
}

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// Answers what is no acceptable request, and ends the connection: where the next one starts is unknown.
pub(super) async fn refuse(engine: &Engine, mut downstream: Downstream, base: &Target, failure: &Failure) {
    if request::refuse_head(engine, &mut Http1::last(&mut downstream), base, failure).await {
        downstream.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    #[track_caller]
    fn check(request: &str, expected: Result<&str, u16>) {
        let request = format!("{request}\r\n\r\n");
        let Ok(Parsed::Complete(head, _)) = parse::request(request.as_bytes(), &Limits::default()) else {
            panic!("not a head: {request}")
        };
        let aim = match aim(head, &Target::of(Front::Explicit), false) {
            Ok(Aim::Tunnel(target)) => Ok(format!("tunnel {}", target.authority.unwrap())),
            Ok(Aim::Request(request)) => {
                let authority =
                    request.target.authority.map_or("-".into(), |authority| authority.to_string());
                Ok(format!("{} {authority} {}", request.target.front, request.path))
            }
            Err(failure) => Err(failure.status().unwrap().0),
        };
        assert_eq!(aim.as_deref().map_err(|status| *status), expected, "{request}");
    }

    #[test]
    fn forms_of_targets() {
        check("CONNECT a.example:443 HTTP/1.1\r\nHost: x", Ok("tunnel a.example:443"));
        check("CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 0", Ok("tunnel a.example:443"));
        check("GET http://A.example/p?q HTTP/1.1\r\nHost: x", Ok("explicit a.example:80 /p?q"));
        check("GET http://a.example HTTP/1.1\r\nHost: x", Ok("explicit a.example:80 /"));
        check("GET https://a.example/p HTTP/1.1\r\nHost: x", Ok("explicit a.example:443 /p"));
        check("GET http://a.example?q HTTP/1.1\r\nHost: x", Ok("explicit a.example:80 /?q"));
        check("GET http://[::1]:81/ HTTP/1.1\r\nHost: x", Ok("explicit [::1]:81 /"));
        let upgrade = "HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket";
        check(&format!("GET ws://a.example/p {upgrade}"), Ok("explicit a.example:80 /p"));
        check(&format!("GET WSS://a.example/p {upgrade}"), Ok("explicit a.example:443 /p"));
        check("OPTIONS http://a.example HTTP/1.1\r\nHost: x", Ok("explicit a.example:80 *"));
        check("GET /p HTTP/1.1\r\nHost: x", Ok("gateway x:80 /p"));
        check("OPTIONS * HTTP/1.1\r\nHost: x", Ok("gateway x:80 *"));
        check("GET http://a.example/ HTTP/1.0", Ok("explicit a.example:80 /"));
    }

    #[test]
    fn bad_targets() {
        check("CONNECT a.example HTTP/1.1\r\nHost: x", Err(400));
        check("CONNECT http://a.example:443 HTTP/1.1\r\nHost: x", Err(400));
        check("GET http://user@a.example/ HTTP/1.1\r\nHost: x", Err(400));
        check("GET http:///p HTTP/1.1\r\nHost: x", Err(400));
        check("GET a.example HTTP/1.1\r\nHost: x", Err(400));
        check("GET ftp://a.example/ HTTP/1.1\r\nHost: x", Err(501));
        check("GET ws://a.example/ HTTP/1.1\r\nHost: x", Err(501));
        check("GET /p HTTP/1.1", Err(400));
        check("GET http://a.example/ HTTP/1.1\r\nHost: a b", Err(400));
        check("GET http://a.example/ HTTP/1.1\r\nHost:", Ok("explicit a.example:80 /"));
        check("GET http://a.example/ HTTP/1.1\r\nHost: u@a.example", Err(400));
        check("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:x", Err(400));
        check("CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 5", Err(400));
        check("CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked", Err(400));
        check("GET /p HTTP/1.1\r\nHost: x\r\nHost: x", Err(400));
    }
}
