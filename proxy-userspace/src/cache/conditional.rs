//! Validators, preconditions, and requests that validate (RFC 9110 §13, RFC 9111 §4.3).

use super::date;
use super::headers::{has, quoted_list, single, values};
use crate::config::Limits;
use crate::http::head::{RequestHead, Version};
use crate::http::headers::Headers;
use crate::http::parse::{self, Parsed};

/// What a stored response can be validated with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// As it was sent, with its quotes and its `W/`.
    pub etag: Option<Box<[u8]>>,
    /// As it was sent.
    pub last_modified: Option<Box<[u8]>>,
}

impl Validators {
    /// Those of a response.
    #[must_use]
    pub fn of(response: &Headers) -> Self {
        Self {
            etag: single(response, "etag").filter(|etag| !etag.is_empty()).map(Into::into),
            last_modified: single(response, "last-modified").map(Into::into),
        }
    }

    /// Whether there are any.
    #[must_use]
    pub fn are_there(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    /// An entity tag by which two parts are known to belong together (RFC 9110 §8.8.1).
    #[must_use]
    pub fn strong(&self) -> Option<&[u8]> {
        self.etag.as_deref().filter(|etag| !is_weak(etag))
    }

    /// Whether a 304 with these validators says that the response with ours is still good (RFC 9111 §4.3.4).
    #[must_use]
    pub fn are_confirmed_by(&self, confirmed: &Self) -> bool {
        match (&confirmed.etag, &confirmed.last_modified) {
            (Some(etag), _) => self.etag.as_ref().is_some_and(|ours| weakly_equal(ours, etag)),
            (None, Some(modified)) => self.last_modified.as_ref() == Some(modified),
            // It names none: it can only mean what was asked for.
            (None, None) => true,
        }
    }
}

/// Whether a response can be validated.
#[must_use]
pub fn has_validator(response: &Headers) -> bool {
    Validators::of(response).are_there()
}

/// Whether a request has any precondition.
#[must_use]
pub fn is_conditional(request: &Headers) -> bool {
    CONDITIONS.iter().any(|name| has(request, name))
}

/// Whether a request has a precondition that only its origin can decide (RFC 9110 §13.1.1, §13.1.4).
#[must_use]
pub fn is_for_origin(request: &Headers) -> bool {
    has(request, "if-match") || has(request, "if-unmodified-since")
}

/// Whether the response that is stored is what the client has already (RFC 9110 §13.2.2, RFC 9111 §4.3.2): then it
/// is answered with 304. `date` and `now` in seconds; `date` is when the stored response was made.
#[must_use]
pub fn is_not_modified(request: &Headers, stored: &Validators, date: u64, now: u64) -> bool {
    if has(request, "if-none-match") {
        let mut tags = values(request, "if-none-match").flat_map(quoted_list).flatten();
        return tags
            .any(|tag| tag == b"*" || stored.etag.as_ref().is_some_and(|etag| weakly_equal(etag, tag)));
    }
    let Some(since) = single(request, "if-modified-since").and_then(|since| date::parse(since, now)) else {
        return false;
    };
    // RFC 9111 §4.3.2: without Last-Modified, the time at which it was made.
    let modified = stored.last_modified.as_deref().and_then(|modified| date::parse(modified, now));
    modified.unwrap_or(date) <= since
}

/// Whether If-Range lets a range of the stored response be sent (RFC 9110 §13.1.5).
#[must_use]
pub fn range_applies(request: &Headers, stored: &Validators) -> bool {
    if !has(request, "if-range") {
        return true;
    }
    match single(request, "if-range") {
        // Weak tags never match.
        Some(tag) if tag.starts_with(b"\"") => stored.strong() == Some(tag),
        Some(tag) if is_weak(tag) => false,
        Some(date) => stored.last_modified.as_deref() == Some(date),
        None => false,
    }
}

/// A request that asks whether a stored response is still good: that of a client, with our preconditions instead of
/// its own. A range stays, with its If-Range: it is for what there is instead. None where there is nothing to ask by.
#[must_use]
pub fn validating<'a>(
    request: &RequestHead,
    stored: impl Iterator<Item = &'a Validators> + Clone,
) -> Option<RequestHead> {
    let mut fields = Vec::new();
    let tags: Vec<&[u8]> = stored.clone().filter_map(|validators| validators.etag.as_deref()).collect();
    if !tags.is_empty() {
        fields.extend_from_slice(b"If-None-Match: ");
        fields.extend_from_slice(&tags.join(b", ".as_slice()));
        fields.extend_from_slice(b"\r\n");
    }
    // RFC 9110 §13.1.3: for servers that know no entity tags.
    let mut dates = stored.filter_map(|validators| validators.last_modified.as_deref());
    if let (Some(date), None) = (dates.next(), dates.next()) {
        fields.extend_from_slice(b"If-Modified-Since: ");
        fields.extend_from_slice(date);
        fields.extend_from_slice(b"\r\n");
    }
    if fields.is_empty() {
        return None;
    }
    // With other methods it means nothing (RFC 9110 §14.2).
    let ranges = ["range", "if-range"].iter().filter(|_| request.method() == "GET");
    for name in ranges {
        for value in values(&request.headers, name) {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                fields.extend_from_slice(part);
            }
        }
    }
    rewritten(request, "GET", &fields)
}

/// A request for what is missing behind the first `start` bytes of a representation, or for all of another (RFC 9110
/// §13.1.5). `tag` is a strong entity tag.
#[must_use]
pub fn completing(request: &RequestHead, start: u64, tag: &[u8]) -> Option<RequestHead> {
    let mut fields = format!("Range: bytes={start}-\r\nIf-Range: ").into_bytes();
    fields.extend_from_slice(tag);
    fields.extend_from_slice(b"\r\n");
    rewritten(request, "GET", &fields)
}

/// The same request without preconditions and range: for the whole of a response, whatever this client has of it.
#[must_use]
pub fn unconditional(request: &RequestHead) -> Option<RequestHead> {
    rewritten(request, "GET", b"")
}

const CONDITIONS: [&str; 5] =
    ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"];

/// `request` with another method, and `fields` instead of all preconditions and ranges.
fn rewritten(request: &RequestHead, method: &str, fields: &[u8]) -> Option<RequestHead> {
    let mut text = Vec::with_capacity(1024);
    text.extend_from_slice(method.as_bytes());
    text.push(b' ');
    text.extend_from_slice(request.target().as_bytes());
    text.extend_from_slice(match request.version {
        Version::Http10 => b" HTTP/1.0\r\n",
        _ => b" HTTP/1.1\r\n",
    });
    let dropped = |name: &[u8]| {
        CONDITIONS.iter().chain(&["range"]).any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
    };
    for field in request.headers.iter().filter(|field| !dropped(field.name)) {
        for part in [field.name, b": ", field.value, b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    text.extend_from_slice(fields);
    text.extend_from_slice(b"\r\n");
    // It was a head before, within its limits; what is added must not count against the client.
    let limits = Limits {
        url: text.len(),
        head: text.len(),
        header_count: Limits::MAX_HEADER_COUNT,
        ..Limits::default()
    };
    match parse::request(&text, &limits) {
        Ok(Parsed::Complete(head, _)) => Some(head),
        Ok(Parsed::Partial) | Err(_) => None,
    }
}

fn is_weak(etag: &[u8]) -> bool {
    etag.starts_with(b"W/")
}

/// RFC 9110 §8.8.3.2
fn weakly_equal(a: &[u8], b: &[u8]) -> bool {
    a.strip_prefix(b"W/").unwrap_or(a) == b.strip_prefix(b"W/").unwrap_or(b)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{request, response};
    use super::*;

    /// 2026-01-01.
    const NOW: u64 = 1_767_225_600;

    #[track_caller]
    fn check(stored: &str, asked: &str, expected: bool) {
        let stored = Validators::of(&response(200, stored).headers);
        assert_eq!(
            is_not_modified(&request("/", asked).headers, &stored, NOW, NOW),
            expected,
            "{stored:?} {asked}"
        );
    }

    #[test]
    fn preconditions() {
        let tag = "ETag: \"a\"\r\n";
        check(tag, "If-None-Match: \"a\"\r\n", true);
        check(tag, "If-None-Match: W/\"a\"\r\n", true);
        check("ETag: W/\"a\"\r\n", "If-None-Match: \"a\"\r\n", true);
        check(tag, "If-None-Match: \"b\", \"a,\" , \"a\"\r\n", true);
        check(tag, "If-None-Match: \"b\"\r\nIf-None-Match: \"a\"\r\n", true);
        check(tag, "If-None-Match: \"b\"\r\n", false);
        check(tag, "If-None-Match: a\r\n", false);
        check(tag, "If-None-Match: *\r\n", true);
        check("", "If-None-Match: \"a\"\r\n", false);
        let date = "Last-Modified: Wed, 31 Dec 2025 00:00:00 GMT\r\n";
        check(date, "If-Modified-Since: Wed, 31 Dec 2025 00:00:00 GMT\r\n", true);
        check(date, "If-Modified-Since: Wednesday, 31-Dec-25 00:00:00 GMT\r\n", true);
        check(date, "If-Modified-Since: Tue, 30 Dec 2025 00:00:00 GMT\r\n", false);
        check(date, "If-Modified-Since: x\r\n", false);
        check("", "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT\r\n", true);
        check("", "If-Modified-Since: Wed, 31 Dec 2025 23:59:59 GMT\r\n", false);
        // If-None-Match decides alone.
        check(
            &format!("{tag}{date}"),
            "If-None-Match: \"b\"\r\nIf-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT\r\n",
            false,
        );
    }

    #[test]
    fn ranges_of_what_the_client_knows() {
        let check = |stored: &str, asked: &str, expected| {
            let stored = Validators::of(&response(200, stored).headers);
            assert_eq!(range_applies(&request("/", asked).headers, &stored), expected, "{stored:?} {asked}");
        };
        check("ETag: \"a\"\r\n", "", true);
        check("ETag: \"a\"\r\n", "If-Range: \"a\"\r\n", true);
        check("ETag: \"a\"\r\n", "If-Range: \"b\"\r\n", false);
        check("ETag: W/\"a\"\r\n", "If-Range: W/\"a\"\r\n", false);
        check("Last-Modified: x\r\n", "If-Range: x\r\n", true);
        check("Last-Modified: x\r\n", "If-Range: y\r\n", false);
    }

    #[test]
    fn validating_replaces_the_clients_own_conditions() {
        let request = request(
            "/p?q",
            "A: 1\r\nIf-None-Match: \"x\"\r\nRange: bytes=0-1\r\nIf-Range: \"x\"\r\nB: 2\r\n",
        );
        let a = Validators {
            etag: Some(b"\"a\"".as_slice().into()),
            last_modified: Some(b"then".as_slice().into()),
        };
        let b = Validators { etag: Some(b"W/\"b\"".as_slice().into()), last_modified: None };
        let fields = |head: RequestHead| {
            let fields = head.headers.iter().map(|field| {
                format!("{}: {}", String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value))
            });
            fields.collect::<Vec<_>>().join("; ")
        };
        let head = validating(&request, [&a, &b].into_iter()).unwrap();
        assert_eq!(head.target(), request.target());
        assert_eq!(
            fields(head),
            "Host: a.example; A: 1; B: 2; If-None-Match: \"a\", W/\"b\"; If-Modified-Since: then; range: bytes=0-1; \
             if-range: \"x\""
        );
        assert_eq!(
            fields(completing(&request, 7, b"\"a\"").unwrap()),
            "Host: a.example; A: 1; B: 2; Range: bytes=7-; If-Range: \"a\""
        );
        assert!(validating(&request, [&Validators::default()].into_iter()).is_none());
        assert_eq!(fields(unconditional(&request).unwrap()), "Host: a.example; A: 1; B: 2");
    }

    #[test]
    fn confirmation() {
        let of = |fields: &str| Validators::of(&response(304, fields).headers);
        let stored = of("ETag: \"a\"\r\nLast-Modified: then\r\n");
        assert!(stored.are_confirmed_by(&of("ETag: W/\"a\"\r\n")));
        assert!(!stored.are_confirmed_by(&of("ETag: \"b\"\r\nLast-Modified: then\r\n")));
        assert!(stored.are_confirmed_by(&of("")));
        assert!(!of("").are_confirmed_by(&of("ETag: \"b\"\r\n")));
    }
}
