//! Where a request goes, by its form and what is known of its connection.

use crate::front::intercept::check_direction;
use crate::front::{check_connect, presented};
use crate::http::authority::{Authority, BadAuthority, Scheme};
use crate::http::forward;
use crate::http::head::{RequestHead, Version};
use crate::http::headers::Name;
use crate::pipeline::failure::Failure;
use crate::pipeline::request::Request;
use crate::target::{Front, Target};

/// What a request wants.
#[derive(Debug)]
pub(super) enum Aim {
    Request(Box<Request>),
    Tunnel(Target),
}

/// Finds a request's target in its form (RFC 9112 §3.2).
pub(super) fn aim(head: RequestHead, base: &Target, follows: bool) -> Result<Aim, Failure> {
    check_host(&head)?;
    if base.intercepted {
        return inside_session(head, base, follows);
    }
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

/// A request inside a TLS session in which weir is the server that the session was opened to, and no other one.
fn inside_session(head: RequestHead, base: &Target, follows: bool) -> Result<Aim, Failure> {
    if !is_for_origin(&head) {
        return Err(Failure::BadRequest("inside this connection, requests are in origin-form".into()));
    }
    check_direction(host_authority(&head, base.scheme)?.as_ref(), base)?;
    let path = head.target().to_owned();
    Ok(Aim::Request(Box::new(Request::new(head, base.clone(), path, follows))))
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

/// Whether its form is that for an origin server (RFC 9112 §3.2.1, §3.2.4).
pub(super) fn is_for_origin(head: &RequestHead) -> bool {
    head.target().starts_with('/') || head.target() == "*"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::http::parse::{self, Parsed};

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
    fn inside_a_session_there_is_one_server() {
        let authority = Authority::parse("a.example:443", None).ok();
        let base =
            Target { authority, scheme: Scheme::Https, intercepted: true, ..Target::of(Front::Captured) };
        let check = |request: &str, expected: Result<(), u16>| {
            let request = format!("{request}\r\n\r\n");
            let Ok(Parsed::Complete(head, _)) = parse::request(request.as_bytes(), &Limits::default()) else {
                panic!("not a head: {request}")
            };
            let found = aim(head, &base, false).map(drop).map_err(|failure| failure.status().unwrap().0);
            assert_eq!(found, expected, "{request}");
        };
        for host in ["a.example", "A.EXAMPLE:443", "a.example."] {
            check(&format!("GET /p HTTP/1.1\r\nHost: {host}"), Ok(()));
        }
        for host in ["b.example", "a.example:80", "a.example:8443", "192.0.2.1", "xa.example", "a.example.b"]
        {
            check(&format!("GET /p HTTP/1.1\r\nHost: {host}"), Err(421));
        }
        check("GET /p HTTP/1.0", Ok(()));
        check("GET https://a.example/p HTTP/1.1\r\nHost: a.example", Err(400));
        check("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example", Err(400));
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
