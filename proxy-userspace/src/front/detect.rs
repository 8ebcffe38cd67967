//! What a captured connection speaks, from its first bytes. A guess that is wrong must do no harm, so only
//! what is certain is more than opaque.

use crate::net::frames::PREFACE;
use crate::tls::client_hello::{self, ClientHello, Hello};

/// The most bytes that are looked at.
pub const MAX_LOOK: usize = client_hello::MAX_HELLO;

/// What the bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detected {
    Tls(ClientHello),
    /// An HTTP/1 request to a server. One to a proxy (CONNECT, absolute-form) is opaque: the client has a
    /// proxy of its own, and that one is where it wants to go.
    Http1,
    Http2,
    Opaque,
    /// Too few bytes to tell.
    Unknown,
}

/// Looks at the first bytes of a connection.
#[must_use]
pub fn detect(bytes: &[u8]) -> Detected {
    match client_hello::parse(bytes) {
        Hello::Complete(hello) => return Detected::Tls(hello),
        Hello::Partial => return Detected::Unknown,
        Hello::NotTls => {}
    }
    let common = bytes.len().min(PREFACE.len());
    if bytes[..common] == PREFACE[..common] {
        return if common == PREFACE.len() { Detected::Http2 } else { Detected::Unknown };
    }
    detect_http1(bytes)
}

/// The same inside a TLS session in which weir is the server: what any server might take for a request is one.
#[must_use]
pub fn inside(bytes: &[u8]) -> Detected {
    let common = bytes.len().min(PREFACE.len());
    if bytes[..common] == PREFACE[..common] {
        return if common == PREFACE.len() { Detected::Http2 } else { Detected::Unknown };
    }
    // Some servers overlook empty lines.
    let empty = bytes.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    let rest = &bytes[empty..];
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_text = line.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r'));
    let method = line.iter().take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'-').count();
    let is_request = memchr::memmem::find(line, b"HTTP/").is_some()
        || method > 0 && matches!(line.get(method..), Some([b' ' | b'\t', b'/', ..]));
    match is_text {
        true if is_request => Detected::Http1,
        true if line.len() == rest.len() => Detected::Unknown,
        _ => Detected::Opaque,
    }
}

/// The longest registered method is UPDATEREDIRECTREF.
const MAX_METHOD: usize = 20;

fn detect_http1(bytes: &[u8]) -> Detected {
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    match bytes.get(method..) {
        Some([b' ', b'/' | b'*', ..]) if (3..=MAX_METHOD).contains(&method) => {}
        Some([b' '] | []) if method <= MAX_METHOD => return Detected::Unknown,
        _ => return Detected::Opaque,
    }
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if is_http1_line(&bytes[..end]) => Detected::Http1,
        Some(_) => Detected::Opaque,
        // Nothing else has a first line this long; the parser will refuse it by its limits.
        None if bytes.len() >= MAX_LOOK => Detected::Http1,
        None => Detected::Unknown,
    }
}

fn is_http1_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: &Detected) {
        assert_eq!(detect(bytes), *expected, "{}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn http() {
        check(b"GET / HTTP/1.1\r\nHost: a\r\n", &Detected::Http1);
        check(b"OPTIONS * HTTP/1.0\r\n", &Detected::Http1);
        check(b"VERSION-CONTROL /x HTTP/1.1\r\n", &Detected::Http1);
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &Detected::Http2);
        check(&[b"GET /".as_slice(), &[b'a'; MAX_LOOK]].concat(), &Detected::Http1);
    }

    #[test]
    fn not_yet_known() {
        for beginning in
            ["", "G", "GET", "GET ", "GET /", "GET /x HTTP/1.1\r", "PRI * HT", "\x16", "\x16\x03"]
        {
            check(beginning.as_bytes(), &Detected::Unknown);
        }
    }

    #[test]
    fn opaque() {
        check(b"SSH-2.0-OpenSSH\r\n", &Detected::Opaque);
        check(b"GET http://a/ HTTP/1.1\r\n", &Detected::Opaque);
        check(b"CONNECT a:443 HTTP/1.1\r\n", &Detected::Opaque);
        check(b"GET /x\r\n", &Detected::Opaque);
        check(b"NICK weir\r\n", &Detected::Opaque);
        check(b"\0\0\0\x08\x04\xd2\x16\x2f", &Detected::Opaque);
        check(b"*1\r\n$4\r\nPING\r\n", &Detected::Opaque);
    }

    #[test]
    fn what_a_server_might_take_for_a_request() {
        for request in [
            "GET / HTTP/1.1\r\n",
            "GET https://a/ HTTP/1.1\r\n",
            "CONNECT a:443 HTTP/1.1\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\n",
            "get / http/1.1\r\n",
            "GET /\r\n",
            "GET\t/ HTTP/1.1\r\n",
            "GET / HTTP/1.1 \n",
        ] {
            assert_eq!(inside(request.as_bytes()), Detected::Http1, "{request:?}");
        }
        for beginning in ["", "\r\n", "GET", "GET https", "a001 LOGIN", "PRI * HTTP/2.0\r\n"] {
            assert_eq!(inside(beginning.as_bytes()), Detected::Unknown, "{beginning:?}");
        }
        for other in ["a001 CAPABILITY\r\n", "EHLO me\r\n", "\x10\x0c\0\x04MQTT"] {
            assert_eq!(inside(other.as_bytes()), Detected::Opaque, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            let _ = inside(&bytes);
            let _ = detect(&bytes);
        }
    }
}
