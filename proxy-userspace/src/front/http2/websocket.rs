//! Extended CONNECT (RFC 8441) as the HTTP/1.1 upgrade that it stands for.

use std::hash::{BuildHasher, RandomState};

use crate::http::head::{RequestHead, Version};
use crate::pipeline::failure::Failure;

/// The request that asks for the same over HTTP/1.1.
pub(super) fn as_upgrade(head: &RequestHead, protocol: &str) -> Result<RequestHead, Failure> {
    if protocol != "websocket" {
        return Err(Failure::NotImplemented("the only :protocol that is known is websocket"));
    }
    let mut upgrade = RequestHead::new(Version::Http2, "GET", head.target());
    for field in head.headers.iter() {
        upgrade.headers.push(field.name, field.value);
    }
    upgrade.headers.push(b"Connection", b"Upgrade");
    upgrade.headers.push(b"Upgrade", b"websocket");
    // RFC 8441 §5: the key and what answers it belong to the handshake of HTTP/1.1 alone.
    upgrade.headers.push(b"Sec-WebSocket-Key", &key());
    Ok(upgrade)
}

/// Sixteen bytes that differ each time, in base64 (RFC 6455 §4.1).
fn key() -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let half = || u128::from(RandomState::new().hash_one(0));
    let nonce = half() << 64 | half();
    // 128 bits are 21 digits of six bits, and two bits with four zeros behind them.
    let digit = |index: u32| DIGITS[(nonce >> (122 - 6 * index) & 63) as usize];
    let last = DIGITS[((nonce & 3) << 4) as usize];
    (0..21).map(digit).chain([last, b'=', b'=']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sixteen_bytes_in_base64_and_differ() {
        let (one, other) = (key(), key());
        assert_eq!(one.len(), 24);
        assert!(one.ends_with(b"==") && [b'A', b'Q', b'g', b'w'].contains(&one[21]), "{one:?}");
        assert_ne!(one, other);
    }
}
