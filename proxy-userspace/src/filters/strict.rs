//! Refuses a captured request whose Host is none of the names that its rule lets through (`strict` in `capture.rules`):
//! the address is right, but what is asked for there may be somebody else's ("domain fronting").

use super::{Denial, Filter, Request, Verdict};
use crate::http::authority::Host;
use crate::target::Rule;

pub(super) struct Strict;

impl Filter for Strict {
    fn request(&self, request: &Request<'_>) -> Verdict {
        let Some(rule) = request.target.rule.as_deref().filter(|rule| rule.is_strict()) else {
            return Verdict::Allow;
        };
        match request.target.authority.as_ref().map(|authority| &authority.host) {
            Some(Host::Name(name)) => check(rule, Some(name)),
            Some(Host::Address(_)) | None => check(rule, None),
        }
    }
}

/// The verdict on what a client calls its server; None: it does not say, or an address.
pub(super) fn check(rule: &dyn Rule, name: Option<&str>) -> Verdict {
    if !rule.is_strict() || name.is_some_and(|name| rule.admits(name)) {
        return Verdict::Allow;
    }
    let rule = rule.name();
    let reason = match name {
        Some(name) => format!("{name} is none of the names that rule `{rule}` lets through"),
        None => format!("no name is told, and rule `{rule}` lets only names through"),
    };
    // RFC 9110 §15.5.20: this connection does not lead there.
    Verdict::Deny(Denial { status: 421, reason: reason.into() })
}
