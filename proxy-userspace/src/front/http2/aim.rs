//! What an HTTP/2 request wants, and of whom.

use std::net::{IpAddr, SocketAddr};

use h2::ext::Protocol;
use http::Request as Http2Request;

use crate::config::Limits;
use crate::front::intercept::check_direction;
use crate::front::{check_connect, presented};
use crate::http::authority::{Authority, Host, Scheme};
use crate::http::head::RequestHead;
use crate::http::headers::Name;
use crate::http::http2;
use crate::pipeline::failure::Failure;
use crate::pipeline::request::Request;
use crate::target::{Front, Target};

/// What a request wants.
#[derive(Debug)]
pub(super) enum Aim {
    Request(Box<Request>),
    Tunnel(Target),
}

/// Finds a request's target in its pseudo-fields (RFC 9113 §8.3.1). `local` is the address that it was sent to.
pub(super) fn aim(
    request: &Http2Request<()>,
    base: &Target,
    local: SocketAddr,
    limits: &Limits,
) -> Result<Aim, Failure> {
    let mut head = http2::request(request, limits)?;
    let credentials = presented(&head, base);
    let protocol = request.extensions().get::<Protocol>();
    let named = request.uri().authority().map(http::uri::Authority::as_str);
    check_host(&head, named)?;
    if base.intercepted && head.method() == "CONNECT" && protocol.is_none() {
        return Err(bad("inside this connection, there are no tunnels"));
    }
    if head.method() == "CONNECT" && protocol.is_none() {
        let named = named.ok_or_else(|| bad("CONNECT without :authority"))?;
        check_connect(&head)?;
        let authority = Authority::parse(named, None).map_err(|error| bad_authority(&error))?;
        let target = Target { authority: Some(authority), scheme: Scheme::Http, credentials, ..base.clone() };
        if base.front == Front::Captured {
            // A captured client's proxy is asked for the tunnel, on the connection to it.
            return Ok(Aim::Request(Box::new(Request::new(head, target, named.to_owned(), true))));
        }
        return Ok(Aim::Tunnel(target));
    }
    let path = head.target().to_owned();
    if !path.starts_with('/') && (path != "*" || head.method() != "OPTIONS") {
        return Err(bad("the :path is no path"));
    }
    if let Some(protocol) = protocol {
        head = super::websocket::as_upgrade(&head, protocol.as_str())?;
    }
    let scheme = match request.uri().scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        // Without :authority it is not known; then it is that of the connection.
        None => base.scheme,
        Some(_) => return Err(Failure::NotImplemented("only http:// and https:// URLs are forwarded")),
    };
    let text = named.map(str::as_bytes).or_else(|| head.headers.first(Name::Host)).unwrap_or_default();
    let authority = match std::str::from_utf8(text) {
        Ok("") => None,
        Ok(named) => {
            let authority = Authority::parse(named, Some(scheme.default_port()));
            Some(authority.map_err(|error| bad_authority(&error))?)
        }
        Err(_) => return Err(bad("the authority is not text")),
    };
    if base.intercepted {
        if scheme != base.scheme {
            return Err(bad("inside this connection, URLs are https://"));
        }
        check_direction(authority.as_ref(), base)?;
        return Ok(Aim::Request(Box::new(Request::new(head, base.clone(), path, true))));
    }
    let front = match (&authority, base.front) {
        // RFC 9113 §8.3.1: what was in origin-form has no :authority.
        (_, Front::Explicit) if named.is_none() => Front::Gateway,
        // Who asks a proxy over TLS for an https URL asks with CONNECT.
        (_, Front::Explicit) if (base.scheme, scheme) == (Scheme::Https, Scheme::Https) => Front::Gateway,
        (Some(authority), Front::Explicit) if is_local(authority, local) => Front::Gateway,
        (_, front) => front,
    };
    let scheme = if front == Front::Explicit { scheme } else { base.scheme };
    let target = Target { front, authority, scheme, credentials, ..base.clone() };
    Ok(Aim::Request(Box::new(Request::new(head, target, path, true))))
}

/// RFC 9113 §8.3.1: a Host that says anything else than :authority makes the request malformed.
fn check_host(head: &RequestHead, named: Option<&str>) -> Result<(), Failure> {
    let mut hosts = head.headers.all(Name::Host);
    match (hosts.next(), hosts.next(), named) {
        (_, Some(_), _) => Err(bad("there is more than one Host field")),
        (Some(host), None, Some(named)) if !host.eq_ignore_ascii_case(named.as_bytes()) => {
            Err(bad("Host and :authority differ"))
        }
        _ => Ok(()),
    }
}

/// Whether an authority is this listener's own: then weir is asked as a gateway, not as a proxy. (HTTP/1 has
/// origin-form and absolute-form for that; HTTP/2 has not.)
fn is_local(authority: &Authority, local: SocketAddr) -> bool {
    let host_is_local = match &authority.host {
        Host::Address(address) => *address == local.ip() || is_loopback(*address) && is_loopback(local.ip()),
        Host::Name(name) => &**name == "localhost" && is_loopback(local.ip()),
    };
    authority.port == local.port() && host_is_local
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn bad(why: &str) -> Failure {
    Failure::BadRequest(why.to_owned())
}

/// Says what is wrong, but not with what: it is logged, and a target may hold a password.
fn bad_authority(error: &crate::http::authority::BadAuthority) -> Failure {
    Failure::BadRequest(format!("the request's authority is not valid: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(front: Front, build: http::request::Builder, expected: Result<&str, u16>) {
        let local = "127.0.0.1:22180".parse().unwrap();
        let aim = aim(&build.body(()).unwrap(), &Target::of(front), local, &Limits::default());
        let aim = match aim {
            Ok(Aim::Tunnel(target)) => Ok(format!("tunnel {}", target.authority.unwrap())),
            Ok(Aim::Request(request)) => {
                let authority =
                    request.target.authority.map_or("-".into(), |authority| authority.to_string());
                Ok(format!("{} {} {authority} {}", request.target.front, request.head.method(), request.path))
            }
            Err(failure) => Err(failure.status().unwrap().0),
        };
        assert_eq!(aim.as_deref().map_err(|status| *status), expected);
    }

    fn get(uri: &str) -> http::request::Builder {
        Http2Request::builder().uri(uri)
    }

    #[test]
    fn targets() {
        check(Front::Explicit, get("http://A.example/p?q"), Ok("explicit GET a.example:80 /p?q"));
        check(Front::Explicit, get("https://a.example/p"), Ok("explicit GET a.example:443 /p"));
        check(Front::Explicit, get("http://localhost:22180/p"), Ok("gateway GET localhost:22180 /p"));
        check(Front::Explicit, get("http://[::1]:22180/p"), Ok("gateway GET [::1]:22180 /p"));
        check(Front::Explicit, get("http://localhost:80/p"), Ok("explicit GET localhost:80 /p"));
        check(Front::Explicit, get("/p").header("host", "x"), Ok("gateway GET x:80 /p"));
        check(Front::Explicit, get("/p"), Ok("gateway GET - /p"));
        check(Front::Captured, get("http://a.example/"), Ok("captured GET a.example:80 /"));
        check(Front::Explicit, get("a.example:443").method("CONNECT"), Ok("tunnel a.example:443"));
        let asked = get("a.example:443").method("CONNECT");
        check(Front::Captured, asked, Ok("captured CONNECT a.example:443 a.example:443"));
    }

    #[test]
    fn what_is_refused() {
        check(Front::Explicit, get("ftp://a.example/"), Err(501));
        check(Front::Explicit, get("http://a.example/").header("host", "b.example"), Err(400));
        check(
            Front::Explicit,
            get("http://a.example/").header("host", "a.example"),
            Ok("explicit GET a.example:80 /"),
        );
        check(Front::Explicit, get("http://u@a.example/"), Err(400));
        check(Front::Explicit, get("*"), Err(400));
        check(Front::Explicit, get("a.example").method("CONNECT"), Err(400));
        check(Front::Explicit, get("a.example:1").method("CONNECT").header("content-length", "1"), Err(400));
    }
}
