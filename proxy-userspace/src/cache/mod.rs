//! Whether a request may be answered from store (RFC 9111). There is no store yet, so every lookup ends in
//! forwarding, and says why.

use crate::http::head::RequestHead;
use crate::telemetry::flow::CacheForward;

/// Looks a request up.
#[must_use]
pub fn lookup(head: &RequestHead) -> CacheForward {
    match head.method() {
        // RFC 9110 §9.2.3: the methods whose responses may be used again.
        "GET" | "HEAD" => CacheForward::Bypass,
        _ => CacheForward::Method,
    }
}
