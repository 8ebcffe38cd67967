//! Refuses a request that this very instance has forwarded before (RFC 9110 §7.6.3).

use super::{Denial, Filter, Request, Verdict};

pub(super) struct ForwardingLoop;

impl Filter for ForwardingLoop {
    fn request(&self, request: &Request<'_>) -> Verdict {
        if !request.via.has_seen(&request.head.headers) {
            return Verdict::Allow;
        }
        let reason = "this request has passed this proxy already; it would go round forever";
        Verdict::Deny(Denial { status: 508, reason: reason.into() })
    }
}
