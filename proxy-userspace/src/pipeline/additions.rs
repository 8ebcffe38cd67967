//! What weir adds to the head of a response: Date, and fields that keep browsers out of trouble. What the server says
//! itself stands, but for what a rewritten request's client has to be told, and for what rules change.

use std::time::Duration;

use super::Engine;
use super::request::Request;
use super::rewriting;
use super::serving;
use crate::config::SecurityHeaders;
use crate::filters;
use crate::http::authority::Scheme;
use crate::http::date;
use crate::http::head::ResponseHead;
use crate::http::headers::Headers;
use crate::target::{Front, Hop};

/// Adds what is missing.
pub(super) fn complete(engine: &Engine, request: &Request, hop: &Hop, head: &mut ResponseHead) {
    let Request { target, path, .. } = request;
    // RFC 9110 §6.6.1: whoever receives a response without one, and has a clock, adds it.
    if !has(&head.headers, "date") {
        date::with_now(|now| head.headers.push(b"Date", now));
    }
    let settings = &engine.config.security.headers;
    let wanted = match target.front {
        Front::Gateway => settings.gateway,
        Front::Explicit => settings.explicit,
        // Programs that have not asked for a proxy get what they would have got.
        Front::Captured => false,
    };
    if wanted {
        protect(settings, target.scheme, request.app().is_some(), &mut head.headers);
    }
    rewriting::map_back(request, head);
    serving::map_back(request, hop, head);
    let policy = engine.policy.current();
    filters::change(filters::Response { head, target, path, rules: &policy.header_rules });
}

fn protect(settings: &SecurityHeaders, scheme: Scheme, of_app: bool, headers: &mut Headers) {
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() && !has(headers, name) {
            headers.push(name.as_bytes(), value.as_bytes());
        }
    };
    add("X-Content-Type-Options", "nosniff");
    add(
        "X-Frame-Options",
        match settings.frame_options {
            // Apps have frames of their own, and all below their prefix is of one origin.
            Some("DENY") if of_app => "SAMEORIGIN",
            options => options.unwrap_or_default(),
        },
    );
    add("Content-Security-Policy", settings.content_security_policy.as_deref().unwrap_or_default());
    // RFC 6797 §7.2: not in the clear.
    if scheme == Scheme::Https && settings.strict_transport_security > Duration::ZERO {
        let seconds = settings.strict_transport_security.as_secs();
        add("Strict-Transport-Security", &format!("max-age={seconds}"));
    }
}

fn has(headers: &Headers, name: &str) -> bool {
    headers.iter().any(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
}
