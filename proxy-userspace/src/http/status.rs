//! The statuses that weir itself answers with, and how such an answer looks.

use super::head::{ResponseHead, Version};

/// The reason phrase of a status that weir produces (RFC 9110 §15, RFC 6585).
#[must_use]
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "Error",
    }
}

/// A response with a plain-text explanation: its head, Content-Length included, and that text. `error` is the type of
/// RFC 9209 §2.3 for the Proxy-Status field.
#[must_use]
pub fn answer(status: u16, error: &str, explanation: &str) -> (ResponseHead, String) {
    let reason = reason(status);
    let body = format!("weir: {status} {reason}: {explanation}\n");
    let mut head = ResponseHead::new(Version::Http11, status, reason);
    let headers = &mut head.headers;
    headers.push(b"Content-Type", b"text/plain; charset=utf-8");
    headers.push(b"Content-Length", body.len().to_string().as_bytes());
    headers.push(b"Cache-Control", b"no-store");
    headers.push(b"X-Content-Type-Options", b"nosniff");
    headers.push(b"Proxy-Status", format!("weir; error={error}").as_bytes());
    (head, body)
}
