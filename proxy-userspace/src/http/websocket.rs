//! The handshake of a WebSocket over HTTP/1.1 (RFC 6455 §4), where weir stands in for its client.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::head::{RequestHead, ResponseHead};
use super::headers::{Headers, Name};

/// RFC 6455 §1.3: SHA-1 is no protection here, it shows that the server has understood what it was asked for.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a 101 does not accept what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    #[error("its 101 is for another protocol than websocket")]
    Protocol,
    #[error("its 101 has not the Sec-WebSocket-Accept that goes with the request")]
    Accept,
}

/// Checks what a client has to check (RFC 6455 §4.1).
///
/// # Errors
/// [`NotAccepted`]: the connection does not carry a WebSocket.
pub fn check_accepted(request: &RequestHead, response: &ResponseHead) -> Result<(), NotAccepted> {
    if !response.headers.lists(Name::Upgrade, "websocket") {
        return Err(NotAccepted::Protocol);
    }
    let expected = single(&request.headers, b"sec-websocket-key").map(accept).ok_or(NotAccepted::Accept)?;
    match single(&response.headers, b"sec-websocket-accept") {
        Some(found) if found == expected.as_bytes() => Ok(()),
        _ => Err(NotAccepted::Accept),
    }
}

fn accept(key: &[u8]) -> String {
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID.as_bytes()].concat()))
}

fn single<'a>(headers: &'a Headers, name: &[u8]) -> Option<&'a [u8]> {
    let mut fields = headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    let value = fields.next()?.value;
    fields.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::Version;

    #[track_caller]
    fn check(fields: &[(&str, &str)], expected: Result<(), NotAccepted>) {
        let mut request = RequestHead::new(Version::Http2, "GET", "/");
        request.headers.push(b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==");
        let mut response = ResponseHead::new(Version::Http11, 101, "Switching Protocols");
        for (name, value) in fields {
            response.headers.push(name.as_bytes(), value.as_bytes());
        }
        assert_eq!(check_accepted(&request, &response), expected, "{fields:?}");
    }

    /// The example of RFC 6455 §1.3, and what differs from it.
    #[test]
    fn what_a_server_answers() {
        let (upgrade, accept) =
            (("upgrade", "WebSocket"), ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        check(&[upgrade, accept], Ok(()));
        check(&[accept], Err(NotAccepted::Protocol));
        check(&[("upgrade", "h2c"), accept], Err(NotAccepted::Protocol));
        check(&[upgrade], Err(NotAccepted::Accept));
        check(&[upgrade, accept, accept], Err(NotAccepted::Accept));
        check(&[upgrade, ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOO=")], Err(NotAccepted::Accept));
    }
}
