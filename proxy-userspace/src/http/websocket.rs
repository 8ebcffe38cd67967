//! The handshake of a WebSocket over HTTP/1.1 (RFC 6455 §4), where weir stands in for its client or for its server.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::head::{RequestHead, ResponseHead};
use super::headers::{Headers, Name, list_items};

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

/// Whether a request asks for a WebSocket, and for nothing else, in the form that RFC 6455 §4.1 gives it: then it can be
/// asked for in HTTP/2 as well, where the handshake has none of that (RFC 8441 §5).
#[must_use]
pub fn is_asked_for(request: &RequestHead) -> bool {
    let mut protocols = request.headers.all(Name::Upgrade).flat_map(list_items);
    let is_only_one = protocols.next().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        && protocols.next().is_none();
    let key = single(&request.headers, KEY).and_then(|key| BASE64_STANDARD.decode(key).ok());
    is_only_one && request.method() == "GET" && key.is_some_and(|key| key.len() == KEY_LENGTH)
}

/// The answer over HTTP/1.1 to a request whose WebSocket was accepted in HTTP/2.
#[must_use]
pub fn accepted(request: &RequestHead, response: &ResponseHead) -> ResponseHead {
    let mut switched = ResponseHead::new(response.version, 101, "Switching Protocols");
    for field in response.headers.iter().filter(|field| !field.name.eq_ignore_ascii_case(ACCEPT)) {
        switched.headers.push(field.name, field.value);
    }
    switched.headers.push(b"Upgrade", b"websocket");
    if let Some(key) = single(&request.headers, KEY) {
        switched.headers.push(b"Sec-WebSocket-Accept", accept(key).as_bytes());
    }
    switched
}

/// Whether a field is part of the handshake over HTTP/1.1 alone.
#[must_use]
pub fn is_of_handshake(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(KEY) || name.eq_ignore_ascii_case(ACCEPT)
}

const KEY: &[u8] = b"sec-websocket-key";
const ACCEPT: &[u8] = b"sec-websocket-accept";

/// Bytes behind a key.
const KEY_LENGTH: usize = 16;

/// Checks what a client has to check (RFC 6455 §4.1).
///
/// # Errors
/// [`NotAccepted`]: the connection does not carry a WebSocket.
pub fn check_accepted(request: &RequestHead, response: &ResponseHead) -> Result<(), NotAccepted> {
    if !response.headers.lists(Name::Upgrade, "websocket") {
        return Err(NotAccepted::Protocol);
    }
    let expected = single(&request.headers, KEY).map(accept).ok_or(NotAccepted::Accept)?;
    match single(&response.headers, ACCEPT) {
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

    #[track_caller]
    fn check_asked_for(method: &str, fields: &[(&str, &str)], expected: bool) {
        let mut request = RequestHead::new(Version::Http11, method, "/");
        for (name, value) in fields {
            request.headers.push(name.as_bytes(), value.as_bytes());
        }
        assert_eq!(is_asked_for(&request), expected, "{fields:?}");
    }

    #[test]
    fn what_can_be_asked_for_otherwise() {
        let (upgrade, key) = (("upgrade", "WebSocket"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="));
        check_asked_for("GET", &[upgrade, key], true);
        check_asked_for("POST", &[upgrade, key], false);
        check_asked_for("GET", &[upgrade], false);
        check_asked_for("GET", &[upgrade, key, key], false);
        check_asked_for("GET", &[upgrade, ("sec-websocket-key", "dGhlIA==")], false);
        check_asked_for("GET", &[upgrade, ("upgrade", "other"), key], false);
        check_asked_for("GET", &[("upgrade", "other, websocket"), key], false);
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
