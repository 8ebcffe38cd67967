//! What peers agree to speak inside, by their names in ALPN (RFC 7301 §6).

/// HTTP/1.1.
pub const HTTP1: &[u8] = b"http/1.1";

/// HTTP/2 over TLS (RFC 9113 §3.2).
pub const HTTP2: &[u8] = b"h2";
