//! What of a head may be forwarded, and the head that is sent on (RFC 9110 §7.6, RFC 9112 §2.2).

use std::io::Write;

use super::authority::{Decimal, Shown};
use super::forwarded::Forwarded;
use super::framing::Framing;
use super::head::{RequestHead, ResponseHead, Version};
use super::headers::{Field, Headers, Name, list_items};

/// Our name in Via: a pseudonym, so that no internal host name leaks (RFC 9110 §7.6.3), and random, so that
/// a request which comes back to this very instance is known.
#[derive(Debug, Clone)]
pub struct Pseudonym(String);

impl Pseudonym {
    /// `weir-` and `seed` in hexadecimal.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        Self(format!("weir-{seed:08x}"))
    }

    /// Appends what goes into Via for a message that was received in `version`.
    pub fn write_after(&self, version: Version, out: &mut Vec<u8>) {
        out.extend_from_slice(match version {
            Version::Http10 => b"1.0 ",
            Version::Http11 => b"1.1 ",
            Version::Http2 => b"2 ",
        });
        out.extend_from_slice(self.0.as_bytes());
    }

    /// Whether a request has passed this instance already.
    #[must_use]
    pub fn has_seen(&self, headers: &Headers) -> bool {
        let by_us = |item: &[u8]| item.split(u8::is_ascii_whitespace).any(|part| part == self.0.as_bytes());
        headers.all(Name::Via).flat_map(list_items).any(by_us)
    }
}

/// How a request is sent on.
#[derive(Debug)]
pub struct Form<'a> {
    /// Its request target.
    pub target: &'a str,
    /// What goes into Host, whatever the client wrote there.
    pub host: Shown<'a>,
    pub framing: Framing,
    /// The client's Upgrade is kept.
    pub upgrade: bool,
    /// What the server is told of the client, if anything.
    pub forwarded: Option<Forwarded<'a>>,
    /// For a proxy that it is sent to.
    pub proxy_authorization: Option<String>,
}

/// Appends the request head for the next hop to `out`.
pub fn request(head: &RequestHead, form: &Form<'_>, via: &Pseudonym, out: &mut Vec<u8>) {
    for part in [head.method(), " ", form.target, " HTTP/1.1\r\nHost: "] {
        out.extend_from_slice(part.as_bytes());
    }
    form.host.spell(|part| out.extend_from_slice(part.as_bytes()));
    out.extend_from_slice(b"\r\n");
    let replaced = |name: &[u8]| form.forwarded.is_some_and(|forwarded| forwarded.replaces(name));
    end_to_end(&head.headers, replaced, out);
    if let Some(forwarded) = &form.forwarded {
        forwarded.write(&head.headers, out);
    }
    if let Some(credentials) = &form.proxy_authorization {
        // Writing to a Vec does not fail.
        let _ = write!(out, "Proxy-Authorization: {credentials}\r\n");
    }
    write_framing(form.framing, out);
    if form.framing == Framing::Chunked {
        announce_trailers(&head.headers, out);
    }
    if head.headers.lists(Name::Te, "trailers") {
        // RFC 9110 §10.1.4: the client takes them, and so does weir.
        out.extend_from_slice(b"Connection: TE\r\nTE: trailers\r\n");
    }
    if form.upgrade {
        write_upgrade(&head.headers, out);
    }
    write_via(head.version, via, out);
    out.extend_from_slice(b"\r\n");
}

/// How a response's head is sent to the client.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    pub framing: Framing,
    /// The connection ends after this response.
    pub close: bool,
    /// The client speaks HTTP/1.0 and asked to keep the connection.
    pub keep_alive_10: bool,
    /// A 101: the connection changes its protocol.
    pub upgrade: bool,
    /// The client takes trailers.
    pub trailers: bool,
}

impl Delivery {
    /// A head with nothing behind it, after which the connection goes on: an interim response.
    #[must_use]
    pub fn of_head() -> Self {
        Self { framing: Framing::None, close: false, keep_alive_10: false, upgrade: false, trailers: false }
    }
}

/// Appends the response head for the client to `out`. `via` is our name in Via; a response of weir's own has none.
pub fn response(head: &ResponseHead, delivery: Delivery, via: Option<&Pseudonym>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    // Three digits, as it came: a status below 100 is not to become another one.
    out.extend([100, 10, 1].map(|unit| b'0' + u8::try_from(head.status / unit % 10).unwrap_or(0)));
    out.push(b' ');
    out.extend_from_slice(head.reason());
    out.extend_from_slice(b"\r\n");
    end_to_end(&head.headers, |_| false, out);
    match delivery.framing {
        // RFC 9110 §8.6: these have no length, whatever the server says.
        Framing::None if matches!(head.status, 100..=199 | 204) => {}
        // The length that a HEAD or 304 announces belongs to the representation: it is passed on.
        Framing::None => copy_lengths(&head.headers, out),
        framing => write_framing(framing, out),
    }
    if delivery.trailers && delivery.framing == Framing::Chunked {
        announce_trailers(&head.headers, out);
    }
    if delivery.close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if delivery.keep_alive_10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    } else if delivery.upgrade {
        write_upgrade(&head.headers, out);
    }
    match via {
        Some(via) => write_via(head.version, via, out),
        // RFC 9110 §11.7.1: what a proxy itself asks of its client.
        None => head.headers.all(Name::ProxyAuthenticate).for_each(|challenge| {
            out.extend_from_slice(b"Proxy-Authenticate: ");
            out.extend_from_slice(challenge);
            out.extend_from_slice(b"\r\n");
        }),
    }
    out.extend_from_slice(b"\r\n");
}

/// The framing in which a body that arrives as `framing` goes to a client of `version`.
#[must_use]
pub fn delivered_framing(framing: Framing, version: Version) -> Framing {
    match (framing, version) {
        (Framing::UntilClose, Version::Http11 | Version::Http2) => Framing::Chunked,
        (Framing::Chunked, Version::Http10) => Framing::UntilClose,
        (framing, _) => framing,
    }
}

/// Whether the sender of these fields wants the connection kept (RFC 9112 §9.3).
#[must_use]
pub fn wants_keep_alive(version: Version, headers: &Headers) -> bool {
    let says = |token| headers.lists(Name::Connection, token) || headers.lists(Name::ProxyConnection, token);
    match version {
        Version::Http11 | Version::Http2 => !says("close"),
        Version::Http10 => says("keep-alive") && !says("close"),
    }
}

/// Whether a request asks for another protocol on this connection (RFC 9110 §7.8). One for `h2c` does not count: that
/// way is obsolete (RFC 9113 §3.1), curl and cargo ask for it beside every request, and behind it an origin would be
/// asked for things that nobody here has read.
#[must_use]
pub fn wants_upgrade(head: &RequestHead) -> bool {
    head.version > Version::Http10
        && head.headers.first(Name::Upgrade).is_some()
        && head.headers.lists(Name::Connection, "upgrade")
        && !head.headers.lists(Name::Upgrade, "h2c")
}

/// Whether what a request asks for is a connection, not a response: by an upgrade, or by CONNECT.
#[must_use]
pub fn wants_connection(head: &RequestHead) -> bool {
    head.method() == "CONNECT" || wants_upgrade(head)
}

/// The fields that go on to the next hop, whatever it speaks. Those of framing are not among them.
pub fn end_to_end_fields(headers: &Headers) -> impl Iterator<Item = Field<'_>> {
    let named = names_in_connection(headers);
    headers.iter().filter(move |field| is_end_to_end(field, named))
}

fn end_to_end(headers: &Headers, dropped: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) {
    for field in end_to_end_fields(headers).filter(|field| !dropped(field.name)) {
        out.extend_from_slice(field.name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(field.value);
        out.extend_from_slice(b"\r\n");
    }
}

/// The Connection field, if it names fields beyond those that are dropped anyway.
fn names_in_connection(headers: &Headers) -> Option<&Headers> {
    let usual = |item: &[u8]| {
        ["close", "keep-alive", "upgrade"].iter().any(|token| item.eq_ignore_ascii_case(token.as_bytes()))
    };
    let unusual = headers.all(Name::Connection).flat_map(list_items).any(|item| !usual(item));
    unusual.then_some(headers)
}

fn is_end_to_end(field: &Field<'_>, named: Option<&Headers>) -> bool {
    match field.known {
        Name::Other => !named.is_some_and(|headers| is_named(headers, field.name)),
        // Host is written anew, from the target.
        known => known != Name::Host && !known.ends_at_hop(),
    }
}

fn is_named(headers: &Headers, name: &[u8]) -> bool {
    // A client must not be able to strip the fields that an upstream decides by.
    let protected = ["authorization", "cookie", "content-type", "content-encoding", "content-range", "range"];
    if protected.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes())) {
        return false;
    }
    headers.all(Name::Connection).flat_map(list_items).any(|item| item.eq_ignore_ascii_case(name))
}

fn write_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(Decimal::of(length).as_str().as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

fn copy_lengths(headers: &Headers, out: &mut Vec<u8>) {
    if let Some(length) = headers.first(Name::ContentLength) {
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(length);
        out.extend_from_slice(b"\r\n");
    }
}

/// RFC 9110 §6.6.2: what is going to follow.
fn announce_trailers(headers: &Headers, out: &mut Vec<u8>) {
    for value in headers.all(Name::Trailer) {
        out.extend_from_slice(b"Trailer: ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_upgrade(headers: &Headers, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Connection: upgrade\r\n");
    for value in headers.all(Name::Upgrade) {
        out.extend_from_slice(b"Upgrade: ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_via(received: Version, via: &Pseudonym, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Via: ");
    via.write_after(received, out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::http::authority::{Authority, Scheme};
    use crate::http::parse::{self, Parsed};

    #[track_caller]
    fn check(fields: &str, upgrade: bool, expected: &str) {
        let text = format!("GET http://x/ HTTP/1.1\r\n{fields}\r\n");
        let Ok(Parsed::Complete(head, _)) = parse::request(text.as_bytes(), &Limits::default()) else {
            panic!("not a head: {text}")
        };
        let host = Authority::parse("example.com:80", None).unwrap();
        let mut out = Vec::new();
        let host = Shown(&host, Scheme::Http);
        let form = Form {
            target: "/",
            host,
            framing: Framing::None,
            upgrade,
            forwarded: None,
            proxy_authorization: None,
        };
        request(&head, &form, &Pseudonym::new(1), &mut out);
        let expected =
            format!("GET / HTTP/1.1\r\nHost: example.com\r\n{expected}Via: 1.1 weir-00000001\r\n\r\n");
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn hop_by_hop_fields_stay_here() {
        check("Host: evil\r\nAccept: */*\r\n", false, "Accept: */*\r\n");
        check("Connection: close, X-Secret\r\nX-Secret: 1\r\nX-Other: 2\r\n", false, "X-Other: 2\r\n");
        check("Proxy-Connection: keep-alive\r\nKeep-Alive: 5\r\nTE: gzip\r\nTrailer: X\r\n", false, "");
        check("Proxy-Authorization: Basic eDp5\r\n", false, "");
    }

    #[test]
    fn that_a_client_takes_trailers_is_said_for_weir_too() {
        let expected = "Connection: TE\r\nTE: trailers\r\n";
        check("TE: trailers\r\n", false, expected);
        check("Connection: TE\r\nTE: gzip;q=0.5, trailers\r\n", false, expected);
    }

    #[test]
    fn connection_cannot_strip_what_others_decide_by() {
        check(
            "Connection: authorization, host, content-length\r\nAuthorization: x\r\n",
            false,
            "Authorization: x\r\n",
        );
    }

    #[test]
    fn an_upgrade_is_passed_on_only_if_asked_for() {
        let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        check(fields, true, "Connection: upgrade\r\nUpgrade: websocket\r\n");
        check(fields, false, "");
    }

    #[test]
    fn http2_is_no_upgrade() {
        let wants = |upgrade: &str| {
            let text = format!("GET http://x/ HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
            match parse::request(text.as_bytes(), &Limits::default()) {
                Ok(Parsed::Complete(head, _)) => wants_upgrade(&head),
                _ => panic!("not a head"),
            }
        };
        assert!(wants("websocket"));
        assert!(!wants("h2c"));
        assert!(!wants("websocket, H2C"));
        assert!(!wants("h2c\r\nUpgrade: websocket"));
    }

    #[test]
    fn a_loop_is_seen() {
        let seen = |via: &str| {
            let text = format!("GET / HTTP/1.1\r\nVia: {via}\r\n\r\n");
            match parse::request(text.as_bytes(), &Limits::default()) {
                Ok(Parsed::Complete(head, _)) => Pseudonym::new(0xabc).has_seen(&head.headers),
                _ => panic!("not a head"),
            }
        };
        assert!(seen("1.0 fred, 1.1 weir-00000abc"));
        assert!(!seen("1.0 fred, 1.1 weir-00000abd"));
    }
}
