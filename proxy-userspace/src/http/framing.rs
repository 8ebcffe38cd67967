//! How long a body is (RFC 9112 §6.3). Where two readings are possible, there is none.

use super::head::{RequestHead, ResponseHead, Version};
use super::headers::{Headers, Name};

/// The length of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body, and no framing fields.
    None,
    /// Content-Length, in bytes.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// A response that ends with its connection.
    UntilClose,
}

/// Why the length of a body can't be known for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFraming {
    #[error("both Content-Length and Transfer-Encoding are present")]
    LengthAndEncoding,
    #[error("Content-Length is given more than once")]
    ManyLengths,
    #[error("Content-Length is not a number")]
    BadLength,
    #[error("Transfer-Encoding is not just `chunked`")]
    UnknownEncoding,
    #[error("Transfer-Encoding in an HTTP/1.0 message")]
    EncodingInHttp10,
}

/// The framing of a request's body.
///
/// # Errors
/// [`BadFraming`]: to be answered with 400, and the connection closed.
pub fn of_request(head: &RequestHead) -> Result<Framing, BadFraming> {
    Ok(declared(&head.headers, head.version)?.unwrap_or(Framing::None))
}

/// The framing of the body of a response to a request with `method`.
///
/// # Errors
/// [`BadFraming`]: nothing of it may be forwarded.
pub fn of_response(head: &ResponseHead, method: &str) -> Result<Framing, BadFraming> {
    let declared = declared(&head.headers, head.version)?;
    let bodiless = method == "HEAD" || matches!(head.status, 100..=199 | 204 | 304);
    Ok(if bodiless { Framing::None } else { declared.unwrap_or(Framing::UntilClose) })
}

fn declared(headers: &Headers, version: Version) -> Result<Option<Framing>, BadFraming> {
    let mut lengths = headers.all(Name::ContentLength);
    let mut encodings = headers.all(Name::TransferEncoding);
    match (lengths.next(), encodings.next()) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(BadFraming::LengthAndEncoding),
        (Some(length), None) => {
            if lengths.next().is_some() {
                return Err(BadFraming::ManyLengths);
            }
            Ok(Some(Framing::Length(parse_length(length)?)))
        }
        (None, Some(encoding)) => {
            if version == Version::Http10 {
                return Err(BadFraming::EncodingInHttp10);
            }
            if encodings.next().is_some() || !encoding.eq_ignore_ascii_case(b"chunked") {
                return Err(BadFraming::UnknownEncoding);
            }
            Ok(Some(Framing::Chunked))
        }
    }
}

/// RFC 9110 §8.6: digits and nothing else.
fn parse_length(value: &[u8]) -> Result<u64, BadFraming> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(BadFraming::BadLength);
    }
    std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(BadFraming::BadLength)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::http::parse::{self, Parsed};

    #[track_caller]
    fn check(fields: &str, expected: Result<Framing, BadFraming>) {
        let text = format!("POST / HTTP/1.1\r\n{fields}\r\n");
        let Ok(Parsed::Complete(head, _)) = parse::request(text.as_bytes(), &Limits::default()) else {
            panic!("not a head: {text}")
        };
        assert_eq!(of_request(&head), expected, "{fields}");
    }

    #[test]
    fn requests() {
        check("", Ok(Framing::None));
        check("Content-Length: 0\r\n", Ok(Framing::Length(0)));
        check("Content-Length: 42\r\n", Ok(Framing::Length(42)));
        check("transfer-encoding: Chunked\r\n", Ok(Framing::Chunked));
        check("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Err(BadFraming::LengthAndEncoding));
        check("Content-Length: 1\r\nContent-Length: 1\r\n", Err(BadFraming::ManyLengths));
        check("Content-Length: 1, 1\r\n", Err(BadFraming::BadLength));
        check("Content-Length: +1\r\n", Err(BadFraming::BadLength));
        check("Content-Length: 0x1\r\n", Err(BadFraming::BadLength));
        check("Content-Length: 99999999999999999999\r\n", Err(BadFraming::BadLength));
        check("Content-Length: \r\n", Err(BadFraming::BadLength));
        check("Transfer-Encoding: gzip, chunked\r\n", Err(BadFraming::UnknownEncoding));
        check("Transfer-Encoding: xchunked\r\n", Err(BadFraming::UnknownEncoding));
        check(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            Err(BadFraming::UnknownEncoding),
        );
    }

    #[track_caller]
    fn check_response(head: &str, method: &str, expected: Framing) {
        let Ok(Parsed::Complete(head, _)) = parse::response(head.as_bytes(), &Limits::default()) else {
            panic!("not a head: {head}")
        };
        assert_eq!(of_response(&head, method), Ok(expected));
    }

    #[test]
    fn responses() {
        check_response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "GET", Framing::Length(5));
        check_response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", Framing::None);
        check_response("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET", Framing::None);
        check_response("HTTP/1.1 204 No Content\r\n\r\n", "GET", Framing::None);
        check_response("HTTP/1.0 200 OK\r\n\r\n", "GET", Framing::UntilClose);
        check_response("HTTP/1.1 200\r\n\r\n", "GET", Framing::UntilClose);
    }
}
