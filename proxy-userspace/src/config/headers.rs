//! `security.headers`: fields for browsers that weir adds to responses.

use std::time::Duration;

use super::kinds::{Fault, choice, duration, quoted, switch};
use super::section::Section;

/// `security.headers`.
#[derive(Debug, Clone, PartialEq)]
pub struct SecurityHeaders {
    /// Into responses of the gateway. Default on.
    pub gateway: bool,
    /// Into those of the explicit proxy. Default off.
    pub explicit: bool,
    /// X-Frame-Options. Default DENY.
    pub frame_options: Option<&'static str>,
    /// For how long browsers are to use TLS only. Default a year; 0s leaves the field out.
    pub strict_transport_security: Duration,
    /// Default none.
    pub content_security_policy: Option<String>,
}

impl Default for SecurityHeaders {
    fn default() -> Self {
        Self {
            gateway: true,
            explicit: false,
            frame_options: Some("DENY"),
            strict_transport_security: DAY * 365,
            content_security_policy: None,
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn security_headers(s: &mut Section<'_, '_>) -> SecurityHeaders {
    const FRAMES: &[(&str, Option<&str>)] =
        &[("DENY", Some("DENY")), ("SAMEORIGIN", Some("SAMEORIGIN")), ("none", None)];

    let d = SecurityHeaders::default();
    SecurityHeaders {
        gateway: s.read("gateway", d.gateway, switch()),
        explicit: s.read("explicit", d.explicit, switch()),
        frame_options: s.read("frame_options", d.frame_options, choice(FRAMES)),
        strict_transport_security: s.read(
            "strict_transport_security",
            d.strict_transport_security,
            duration(Duration::ZERO..=DAY * 3650),
        ),
        content_security_policy: s.read("content_security_policy", d.content_security_policy, policy),
    }
}

fn policy(text: &str) -> Result<Option<String>, Fault> {
    match text {
        "none" => Ok(None),
        _ if text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) => Ok(Some(text.to_owned())),
        _ => Err(format!("{} is not one line of ASCII", quoted(text)).into()),
    }
}
