//! What is more than one exchange: the change to another protocol, and credentials that belong to a connection.

use super::exchange::Exchange;
use super::failure::Failure;
use crate::http::forward;
use crate::http::head::{ResponseHead, Version};
use crate::http::headers::{Headers, Name};
use crate::http::websocket;

impl Exchange<'_, '_> {
    /// Whether the server may change the protocol here.
    pub(super) fn check_upgrade(
        &self,
        head: &ResponseHead,
        request_is_complete: bool,
    ) -> Result<(), Failure> {
        if self.request.head.method() == "CONNECT" && head.is_success() {
            return Ok(());
        }
        if !forward::wants_upgrade(&self.request.head) {
            return Err(Failure::BadAnswer("101 was not asked for".into()));
        }
        if !request_is_complete {
            // The rest of the body would be taken for the new protocol.
            return Err(Failure::BadAnswer("101 came before the request was whole".into()));
        }
        // RFC 8441 §5: the handshake is between weir and the server; nobody else would check it.
        if self.request.head.version == Version::Http2 {
            let checked = websocket::check_accepted(&self.request.head, head);
            checked.map_err(|error| Failure::BadAnswer(error.to_string()))?;
        }
        Ok(())
    }
}

/// NTLM and Negotiate authenticate the connection, not the request (RFC 4559 §6): whoever uses it next would be
/// taken for the same user.
pub(super) fn authenticates_connection(headers: &Headers, name: Name) -> bool {
    headers.all(name).any(|value| {
        let scheme = value.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        ["ntlm", "negotiate"].iter().any(|known| scheme.eq_ignore_ascii_case(known.as_bytes()))
    })
}
