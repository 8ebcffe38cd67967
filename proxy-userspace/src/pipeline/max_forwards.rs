//! Max-Forwards (RFC 9110 §7.6.2): TRACE and OPTIONS that are to go no further are answered here; others go on with one
//! less.

use super::failure::Failure;
use super::request::Request;
use crate::http::forward::Pseudonym;
use crate::http::framing::Framing;
use crate::http::head::{RequestHead, ResponseHead, Version};
use crate::http::headers::Name;
use crate::target::Front;

/// How far a request is to go.
pub(super) enum Reach {
    /// As far as it does.
    Any,
    /// On, as this request.
    On(Box<Request>),
    /// This far: the answer, head and content.
    Here(Box<(ResponseHead, Vec<u8>)>),
}

/// What a request says of how far it is to go.
pub(super) fn reach(request: &Request, framing: Framing, via: &Pseudonym) -> Result<Reach, Failure> {
    let method = request.head.method();
    // Programs that have not asked for a proxy do not count this one.
    if !matches!(method, "TRACE" | "OPTIONS") || request.target.front == Front::Captured {
        return Ok(Reach::Any);
    }
    let mut values = request.head.headers.iter().filter(|field| is_max_forwards(field.name));
    let left = match (values.next(), values.next()) {
        (None, _) => return Ok(Reach::Any),
        (Some(field), None) => number(field.value),
        (Some(_), Some(_)) => None,
    };
    let left = left.ok_or_else(|| Failure::BadRequest("Max-Forwards is not one whole number".into()))?;
    if let Some(left) = left.checked_sub(1) {
        let mut head = request.head.clone();
        head.headers.retain(|field| !is_max_forwards(field.name));
        head.headers.push(b"Max-Forwards", left.to_string().as_bytes());
        return Ok(Reach::On(Box::new(request.with_head(head))));
    }
    if method == "OPTIONS" {
        let mut head = ResponseHead::new(Version::Http11, 200, "OK");
        head.headers.push(b"Allow", METHODS);
        return Ok(Reach::Here(Box::new((head, Vec::new()))));
    }
    if framing != Framing::None {
        // RFC 9110 §9.3.8.
        return Err(Failure::BadRequest("TRACE has no content".into()));
    }
    let mut head = ResponseHead::new(Version::Http11, 200, "OK");
    head.headers.push(b"Content-Type", b"message/http");
    head.headers.push(b"Cache-Control", b"no-store");
    Ok(Reach::Here(Box::new((head, trace(&request.head, via)))))
}

/// What weir itself takes.
const METHODS: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE, CONNECT";

fn is_max_forwards(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"max-forwards")
}

/// Digits and nothing else. What is beyond counting is as good as the most that can be counted.
fn number(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok().filter(|text| !text.is_empty())?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().unwrap_or(u64::MAX))
}

/// The request as it was received, without what nobody else is to see (RFC 9110 §9.3.8).
fn trace(head: &RequestHead, via: &Pseudonym) -> Vec<u8> {
    let version = match head.version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2",
    };
    let mut text = format!("{} {} {version}\r\n", head.method(), head.target()).into_bytes();
    let is_secret = |name: &[u8], known| {
        matches!(known, Name::Authorization | Name::ProxyAuthorization)
            || name.eq_ignore_ascii_case(b"cookie")
    };
    for field in head.headers.iter().filter(|field| !is_secret(field.name, field.known)) {
        for part in [field.name, b": ", field.value, b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    // So that it can be told which of several proxies has answered.
    text.extend_from_slice(b"Via: ");
    via.write_after(head.version, &mut text);
    text.extend_from_slice(b"\r\n\r\n");
    text
}
