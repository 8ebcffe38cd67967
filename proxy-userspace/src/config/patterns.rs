//! What rules compare hosts and paths with.

use super::kinds::{Fault, quoted};
use crate::authority::{Authority, Host};

/// `match.host`. In lower case, without port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    Exact(Host),
    /// `*.example.com`: `.example.com`, and at least one label before it.
    Below(Box<str>),
}

impl HostPattern {
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        let name = match host {
            Host::Address(_) => return matches!(self, Self::Exact(exact) if exact == host),
            // The root's dot changes nothing (RFC 3986 §3.2.2).
            Host::Name(name) => name.strip_suffix('.').unwrap_or(name),
        };
        match self {
            Self::Exact(Host::Name(exact)) => **exact == *name,
            Self::Exact(Host::Address(_)) => false,
            Self::Below(suffix) => name.len() > suffix.len() && name.ends_with(&**suffix),
        }
    }
}

/// `match.path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    Exact(Box<str>),
    /// `/app/*`: `/app` and all below it. Without the `/*`.
    Below(Box<str>),
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(host) => write!(text, "{host}"),
            Self::Below(suffix) => write!(text, "*{suffix}"),
        }
    }
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(path) => write!(text, "{path}"),
            Self::Below(path) => write!(text, "{path}/*"),
        }
    }
}

pub(super) fn host_pattern(text: &str) -> Result<HostPattern, Fault> {
    let bad = |why: &dyn std::fmt::Display| {
        Fault::from(format!("{} is not a host such as app.example.com or *.example.com: {why}", quoted(text)))
    };
    match text.strip_prefix("*.") {
        Some(rest) => match Host::parse(rest).map_err(|error| bad(&error))? {
            Host::Name(name) => Ok(HostPattern::Below(format!(".{name}").into())),
            Host::Address(_) => Err(bad(&"addresses have no subdomains")),
        },
        // With brackets, as in Host; the port of a request does not matter.
        None if text.starts_with('[') => Authority::parse(text, Some(80))
            .map(|found| HostPattern::Exact(found.host))
            .map_err(|error| bad(&error)),
        None => Host::parse(text).map(HostPattern::Exact).map_err(|error| bad(&error)),
    }
}

pub(super) fn path_pattern(text: &str) -> Result<PathPattern, Fault> {
    let bad =
        |why: &str| Fault::from(format!("{} is not a path such as /status or /app/*: {why}", quoted(text)));
    let (path, below) = match text.strip_suffix("/*") {
        Some(path) => (path, true),
        None => (text, false),
    };
    if !text.starts_with('/') {
        return Err(Fault { nearest: Some(format!("/{text}")), ..bad("it does not begin with /") });
    }
    if path.contains('*') {
        return Err(bad("`*` stands only at the end, after a /"));
    }
    if path.contains(['?', '#']) || path.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(bad(
            "queries, blanks and characters beyond ASCII are not part of it; percent-encode them",
        ));
    }
    Ok(if below { PathPattern::Below(path.into()) } else { PathPattern::Exact(path.into()) })
}
