//! The statuses that weir itself answers with, and how such an answer looks.

use std::io::Write;

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

/// Appends a whole response with a plain-text explanation to `out`. `error` is the type of RFC 9209 §2.3 for
/// the Proxy-Status field.
pub fn write_answer(
    status: u16,
    error: &str,
    explanation: &str,
    close: bool,
    bodiless: bool,
    out: &mut Vec<u8>,
) {
    let reason = reason(status);
    let connection = if close { "Connection: close\r\n" } else { "" };
    let body = format!("weir: {status} {reason}: {explanation}\n");
    // Writing to a Vec does not fail.
    let _ = write!(
        out,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nProxy-Status: weir; error={error}\r\n\
         {connection}\r\n",
        body.len()
    );
    if !bodiless {
        out.extend_from_slice(body.as_bytes());
    }
}
