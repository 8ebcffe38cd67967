//! Fields that follow a body (RFC 9110 §6.5): parsed, and which of them are passed on.

use super::chunked::BadChunk;
use super::forward::end_to_end_fields;
use super::headers::{Field, Headers, Name};
use super::parse;

/// Takes a trailer section apart: lines with their ends, the empty one at its end included.
///
/// # Errors
/// [`BadChunk`]: it is none.
pub fn parse(section: &[u8]) -> Result<Option<Box<Headers>>, BadChunk> {
    if section == b"\r\n" {
        return Ok(None);
    }
    let fields = parse::fields(section).ok_or(BadChunk("a trailer is no field"))?;
    Ok(Some(Box::new(fields)))
}

/// Those that go on to the next hop. A recipient may merge trailers into the head that it has already acted upon, or
/// acts upon later: fields by which messages are framed, routed, authenticated, cached or understood do not follow a
/// body (RFC 9110 §6.5.1).
pub fn passed_on(headers: &Headers) -> impl Iterator<Item = Field<'_>> {
    end_to_end_fields(headers).filter(|field| field.known == Name::Other && !comes_too_late(field.name))
}

/// Those that go on to the next hop, as a section that [`parse`] takes; None if there are none.
#[must_use]
pub fn section(headers: &Headers) -> Option<Box<[u8]>> {
    let mut section = Vec::new();
    for field in passed_on(headers) {
        for part in [field.name, b": ", field.value, b"\r\n"] {
            section.extend_from_slice(part);
        }
    }
    if section.is_empty() {
        return None;
    }
    section.extend_from_slice(b"\r\n");
    Some(section.into())
}

fn comes_too_late(name: &[u8]) -> bool {
    let starts = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
    ["content-", "if-", "x-forwarded-", "access-control-", "sec-", "proxy-"]
        .iter()
        .any(|prefix| starts(prefix))
        || TOO_LATE.iter().any(is)
}

/// In a head only, beside those of [`Name`].
const TOO_LATE: &[&str] = &[
    "age",
    "cache-control",
    "cookie",
    "date",
    "expires",
    "forwarded",
    "location",
    "max-forwards",
    "pragma",
    "range",
    "retry-after",
    "set-cookie",
    "strict-transport-security",
    "vary",
    "warning",
    "x-real-ip",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(section: &str, expected: Result<&str, BadChunk>) {
        let found = parse(section.as_bytes()).map(|fields| {
            let fields = fields.unwrap_or_default();
            let lines = passed_on(&fields).map(|field| [field.name, b"=", field.value].concat());
            String::from_utf8(lines.collect::<Vec<_>>().join(b" ".as_slice())).unwrap()
        });
        assert_eq!(found.as_deref().map_err(|error| *error), expected, "{section:?}");
    }

    #[test]
    fn what_follows_a_body() {
        check("\r\n", Ok(""));
        check("X-Sum: 1\r\n\r\n", Ok("X-Sum=1"));
        check(
            "Grpc-Status: 0\r\nGrpc-Message:\r\nEtag: \"x\"\r\n\r\n",
            Ok("Grpc-Status=0 Grpc-Message= Etag=\"x\""),
        );
    }

    #[test]
    fn what_must_not() {
        for name in [
            "Content-Length",
            "Transfer-Encoding",
            "Host",
            "Connection",
            "TE",
            "Trailer",
            "Upgrade",
            "Via",
            "Expect",
            "Authorization",
            "Proxy-Authorization",
            "WWW-Authenticate",
            "Set-Cookie",
            "Cookie",
            "Content-Type",
            "Content-Encoding",
            "X-Forwarded-For",
            "Forwarded",
            "Cache-Control",
            "If-None-Match",
            "Location",
        ] {
            check(&format!("{name}: x\r\nX-Sum: 1\r\n\r\n"), Ok("X-Sum=1"));
        }
        check("Connection: X-Sum\r\nX-Sum: 1\r\n\r\n", Ok(""));
    }

    #[test]
    fn what_is_no_field() {
        for section in [
            "no colon\r\n\r\n",
            "a b: c\r\n\r\n",
            " folded: x\r\n\r\n",
            "a: b\r\n c\r\n\r\n",
            "a : b\r\n\r\n",
            ": b\r\n\r\n",
        ] {
            check(section, Err(BadChunk("a trailer is no field")));
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
