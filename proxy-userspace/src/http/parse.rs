//! Bytes → heads. Strict: what two implementations could read in two ways is an error, not a guess.

use std::mem::MaybeUninit;

use super::head::{RequestHead, ResponseHead, Version};
use super::headers::Headers;
use crate::config::Limits;

/// What a buffer holds.
#[derive(Debug)]
pub enum Parsed<T> {
    /// A head, and the number of bytes it took.
    Complete(T, usize),
    /// The beginning of a head.
    Partial,
}

/// Why bytes are no acceptable head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    #[error("the head is not valid HTTP/1: {0}")]
    Syntax(&'static str),
    #[error("the HTTP version is not supported")]
    Version,
    #[error("the request target is too long")]
    LongTarget,
    #[error("the head is too large")]
    TooLarge,
    #[error("the head has too many fields")]
    TooManyFields,
    #[error(
        "the connection begins with a header of the PROXY protocol, which this proxy does not take from its \
         clients: leave it out (curl's --haproxy-protocol, send-proxy)"
    )]
    ProxyProtocol,
}

/// Parses a request's head at the start of `bytes`.
///
/// # Errors
/// [`BadHead`], also when what is there already exceeds a limit.
pub fn request(bytes: &[u8], limits: &Limits) -> Result<Parsed<RequestHead>, BadHead> {
    let mut fields = [const { MaybeUninit::uninit() }; Limits::MAX_HEADER_COUNT];
    let mut request = httparse::Request::new(&mut []);
    let allowed = limits.header_count.min(Limits::MAX_HEADER_COUNT);
    match request.parse_with_uninit_headers(bytes, &mut fields[..allowed]) {
        Ok(httparse::Status::Complete(length)) => {
            check_lines(&bytes[..length], limits)?;
            let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version)
            else {
                return Err(BadHead::Syntax("the request line is incomplete"));
            };
            if target.len() > limits.url {
                return Err(BadHead::LongTarget);
            }
            let (method, target) = (span(bytes, method.as_bytes()), span(bytes, target.as_bytes()));
            let headers = headers(bytes, length, request.headers);
            Ok(Parsed::Complete(
                RequestHead { version: version_of(version), headers, method, target },
                length,
            ))
        }
        Ok(httparse::Status::Partial) => check_partial(bytes, limits),
        Err(_) if is_proxy_protocol(bytes) => Err(BadHead::ProxyProtocol),
        Err(httparse::Error::Version) if !names_version(bytes) => {
            Err(BadHead::Syntax("the request line is not a method, a target and a version"))
        }
        Err(error) => Err(bad_head(error)),
    }
}

/// Whether the third word of a request line has the form of a version (RFC 9112 §2.3). If not, it is none that is not
/// supported: the target has a space in it, for instance.
fn names_version(bytes: &[u8]) -> bool {
    let line =
        bytes.trim_ascii_start().split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    match (words.next(), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None) => {
            major.is_ascii_digit() && minor.is_ascii_digit()
        }
        _ => false,
    }
}

/// Parses a response's head at the start of `bytes`.
///
/// # Errors
/// As [`request`].
pub fn response(bytes: &[u8], limits: &Limits) -> Result<Parsed<ResponseHead>, BadHead> {
    let mut fields = [const { MaybeUninit::uninit() }; Limits::MAX_HEADER_COUNT];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) => {
            check_lines(&bytes[..length], limits)?;
            let (Some(status), Some(version)) = (response.code, response.version) else {
                return Err(BadHead::Syntax("the status line is incomplete"));
            };
            let reason = span(bytes, response.reason.unwrap_or_default().as_bytes());
            let headers = headers(bytes, length, response.headers);
            let head = ResponseHead { version: version_of(version), status, headers, reason };
            Ok(Parsed::Complete(head, length))
        }
        Ok(httparse::Status::Partial) if bytes.len() > limits.head => Err(BadHead::TooLarge),
        Ok(httparse::Status::Partial) => Ok(Parsed::Partial),
        Err(error) => Err(bad_head(error)),
    }
}

/// A limit that is exceeded before the head is complete needs no more bytes to be an error.
fn check_partial(bytes: &[u8], limits: &Limits) -> Result<Parsed<RequestHead>, BadHead> {
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    // Method, version and spaces around the target are at most some dozens of bytes.
    if line > limits.url + 64 {
        return Err(BadHead::LongTarget);
    }
    if bytes.len() > limits.head {
        return Err(BadHead::TooLarge);
    }
    Ok(Parsed::Partial)
}

/// The parser takes a bare LF as a line's end; RFC 9112 §2.2 allows that, and smuggling lives on it.
fn check_lines(head: &[u8], limits: &Limits) -> Result<(), BadHead> {
    if head.len() > limits.head {
        return Err(BadHead::TooLarge);
    }
    let bare = |at: usize| at == 0 || head[at - 1] != b'\r';
    match memchr::memchr_iter(b'\n', head).any(bare) {
        true => Err(BadHead::Syntax("a line ends in LF without CR")),
        false => Ok(()),
    }
}

/// Parses fields without a line before them, up to the empty one behind them. None: it is no such section.
pub(super) fn fields(section: &[u8]) -> Option<Headers> {
    let mut fields = [httparse::EMPTY_HEADER; Limits::MAX_HEADER_COUNT];
    match httparse::parse_headers(section, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) if length == section.len() => {
            Some(headers(section, length, fields))
        }
        _ => None,
    }
}

/// What a load balancer may put before a connection's first byte, in either version. A mistake in someone's
/// configuration, which is to be told from a bad request.
fn is_proxy_protocol(bytes: &[u8]) -> bool {
    const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    bytes.starts_with(b"PROXY ") || bytes.starts_with(VERSION_2)
}

fn headers(bytes: &[u8], length: usize, fields: &[httparse::Header<'_>]) -> Headers {
    let mut headers = Headers::copied(&bytes[..length], fields.len());
    for field in fields {
        headers.mark(span(bytes, field.name.as_bytes()), span(bytes, field.value));
    }
    headers
}

/// Where `part`, a slice of `whole`, stands in it.
fn span(whole: &[u8], part: &[u8]) -> (usize, usize) {
    if part.is_empty() {
        return (0, 0);
    }
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    (start, start + part.len())
}

fn version_of(minor: u8) -> Version {
    if minor == 0 { Version::Http10 } else { Version::Http11 }
}

fn bad_head(error: httparse::Error) -> BadHead {
    match error {
        httparse::Error::TooManyHeaders => BadHead::TooManyFields,
        httparse::Error::Version => BadHead::Version,
        httparse::Error::HeaderName => BadHead::Syntax("bad field name"),
        httparse::Error::HeaderValue => BadHead::Syntax("bad field value"),
        httparse::Error::NewLine => BadHead::Syntax("bad line end"),
        httparse::Error::Status => BadHead::Syntax("bad status"),
        httparse::Error::Token => BadHead::Syntax("bad character in the first line"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<Option<usize>, BadHead>) {
        let limits = Limits { url: 64, head: 512, header_count: 4, ..Limits::default() };
        let parsed = request(bytes, &limits).map(|parsed| match parsed {
            Parsed::Complete(_, length) => Some(length),
            Parsed::Partial => None,
        });
        assert_eq!(parsed, expected, "{}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn complete_and_partial() {
        check(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", Ok(Some(27)));
        check(b"GET / HTTP/1.1\r\nHost: a\r\n", Ok(None));
        check(b"", Ok(None));
        check(b"\r\nGET / HTTP/1.1\r\n\r\n", Ok(Some(20)));
    }

    #[test]
    fn refused() {
        check(b"GET / HTTP/1.1\nHost: a\n\n", Err(BadHead::Syntax("a line ends in LF without CR")));
        check(b"GET / HTTP/1.1\r\nHost: a\n\r\n", Err(BadHead::Syntax("a line ends in LF without CR")));
        check(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", Err(BadHead::Syntax("bad field name")));
        check(b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Err(BadHead::Syntax("bad field name")));
        check(b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", Err(BadHead::Syntax("bad field value")));
        check(b"GET / HTTP/2.0\r\n\r\n", Err(BadHead::Version));
        check(b"\r\nGET / HTTP/3.1\r\n\r\n", Err(BadHead::Version));
        for line in ["GET /a b HTTP/1.1", "GET / HTTP/11", "GET / http/1.1", "GET / FTP/1.0"] {
            let request = format!("{line}\r\n\r\n");
            let why = "the request line is not a method, a target and a version";
            check(request.as_bytes(), Err(BadHead::Syntax(why)));
        }
        check(b"\x16\x03\x01\x02\x00\x01\x00", Err(BadHead::Syntax("bad character in the first line")));
        check(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET / HTTP/1.1\r\n\r\n", Err(BadHead::ProxyProtocol));
        check(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", Err(BadHead::ProxyProtocol));
        check(b"GET / HTTP/1.1\r\nA:1\r\nB:1\r\nC:1\r\nD:1\r\nE:1\r\n\r\n", Err(BadHead::TooManyFields));
    }

    #[test]
    fn limits_hold_before_the_head_is_complete() {
        let long_target = [b"GET /".as_slice(), &[b'a'; 200]].concat();
        check(&long_target, Err(BadHead::LongTarget));
        check(&[long_target.as_slice(), b" HTTP/1.1\r\n\r\n"].concat(), Err(BadHead::LongTarget));
        check(&[b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 600]].concat(), Err(BadHead::TooLarge));
    }
}
