//! `routing` and `forwarded`: where the gateway sends requests, and what it tells the servers of who asked.

use std::sync::Arc;

use ipnet::IpNet;

use super::kinds::{Fault, choice, none_or, optional, quoted};
use super::section::Section;
use super::shape::{Shape, shaped};
use crate::authority::{Authority, Host, Scheme, Shown};

/// `routing`: the gateway, for requests that name no server of their own (origin-form).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Routing {
    /// Where requests go that no rule matches. Default none.
    pub default_backend: Option<Arc<Backend>>,
    /// The first rule that matches decides. Default none.
    pub rules: Vec<Rule>,
}

/// An entry of `routing.rules`: which requests, and where they go.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub host: Option<HostPattern>,
    pub path: Option<PathPattern>,
    pub backend: Arc<Backend>,
}

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

/// A server that the operator has named.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    pub scheme: Scheme,
    pub authority: Authority,
    pub host: HostField,
}

/// `routing.host_field` and `forward.host_field`: what a backend gets in Host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostField {
    /// What the client sent.
    #[default]
    Client,
    /// The backend's own name.
    Backend,
}

/// `forwarded`: what servers are told of who asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Forwarding {
    /// For requests of the gateway. Default x_forwarded.
    pub gateway: ForwardedFields,
    /// For requests of the explicit proxy. Default off.
    pub explicit: ForwardedFields,
    /// Proxies in front of weir, whose word counts. Default none.
    pub trusted: Vec<IpNet>,
}

/// Which fields say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedFields {
    /// None; what the client sent goes on as it is.
    Off,
    /// X-Forwarded-For, -Proto and -Host.
    XForwarded,
    /// Forwarded (RFC 7239).
    Forwarded,
    Both,
}

impl ForwardedFields {
    #[must_use]
    pub fn has_x(self) -> bool {
        matches!(self, Self::XForwarded | Self::Both)
    }

    #[must_use]
    pub fn has_standard(self) -> bool {
        matches!(self, Self::Forwarded | Self::Both)
    }
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { gateway: ForwardedFields::XForwarded, explicit: ForwardedFields::Off, trusted: Vec::new() }
    }
}

pub(super) fn routing(s: &mut Section<'_, '_>) -> Routing {
    let host = s.read("host_field", HostField::default(), choice(HOST_FIELDS));
    Routing {
        default_backend: s.read("default_backend", None, none_or(move |url: &str| backend(url, host))),
        rules: s.sections("rules", |s| rule(s, host)).into_iter().flatten().collect(),
    }
}

const HOST_FIELDS: &[(&str, HostField)] = &[("client", HostField::Client), ("backend", HostField::Backend)];

/// None: what is wrong was reported.
fn rule(s: &mut Section<'_, '_>, host_field: HostField) -> Option<Rule> {
    let (host, path) = s.section("match", |s| {
        let host = s.read("host", None, optional(host_pattern));
        let path = s.read("path", None, optional(path_pattern));
        if !s.has("host") && !s.has("path") {
            s.error(
                "no `host` and no `path`: it would match everything; that is what default_backend is for",
            );
        }
        (host, path)
    });
    let target = s.section("forward", |s| {
        let host_field = s.read("host_field", host_field, choice(HOST_FIELDS));
        s.required(
            "target",
            shaped(Shape::Pattern("^[hH][tT][tT][pP][sS]?://"), |text| backend(text, host_field)),
        )
    });
    target.map(|backend| Rule { host, path, backend })
}

pub(super) fn forwarding(s: &mut Section<'_, '_>) -> Forwarding {
    const FIELDS: &[(&str, ForwardedFields)] = &[
        ("off", ForwardedFields::Off),
        ("x_forwarded", ForwardedFields::XForwarded),
        ("forwarded", ForwardedFields::Forwarded),
        ("both", ForwardedFields::Both),
    ];

    let d = Forwarding::default();
    Forwarding {
        gateway: s.read("gateway", d.gateway, choice(FIELDS)),
        explicit: s.read("explicit", d.explicit, choice(FIELDS)),
        trusted: s.list("trusted", d.trusted, network),
    }
}

/// `http://host:port` or `https://host:port`.
fn backend(text: &str, host: HostField) -> Result<Arc<Backend>, Fault> {
    let fault = |message: &str| Fault::from(format!("{} {message}", quoted(text)));
    let Some((scheme, rest)) = text.split_once("://") else {
        let message = format!("{} is not a URL such as http://127.0.0.1:8080", quoted(text));
        return Err(Fault { message, nearest: Some(format!("http://{text}")) });
    };
    let scheme = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
        _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
        _ => return Err(fault("is neither an http:// nor an https:// URL")),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(fault(
            "has a path; a backend is a server: requests keep the path that the client asked for",
        ));
    }
    let authority = Authority::parse(authority, Some(scheme.default_port()))
        .map_err(|error| fault(&format!("names no server: {error}")))?;
    Ok(Arc::new(Backend { scheme, authority, host }))
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

/// An address, or a network such as 10.0.0.0/8.
fn network(text: &str) -> Result<IpNet, Fault> {
    let address = text.parse().map(|address: std::net::IpAddr| IpNet::from(address));
    address.or_else(|_| text.parse::<IpNet>().map(|network| network.trunc())).map_err(|_| {
        format!("{} is neither an IP address nor a network such as 10.0.0.0/8", quoted(text)).into()
    })
}

impl std::fmt::Display for Backend {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(text, "{}://{}", self.scheme, Shown(&self.authority, self.scheme))
    }
}

impl std::fmt::Display for Rule {
    /// As in the configuration: `host *.example.com, path /app/*`.
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.host.as_ref().map(|pattern| match pattern {
            HostPattern::Exact(host) => format!("host {host}"),
            HostPattern::Below(suffix) => format!("host *{suffix}"),
        });
        let path = self.path.as_ref().map(|pattern| match pattern {
            PathPattern::Exact(path) => format!("path {path}"),
            PathPattern::Below(path) => format!("path {path}/*"),
        });
        text.write_str(&host.into_iter().chain(path).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{check, load_files};

    #[test]
    fn routes() {
        for (line, expected) in [
            (
                "default_backend: 127.0.0.1:1",
                "20: routing.default_backend: `127.0.0.1:1` is not a URL such as http://127.0.0.1:8080 \
                 (did you mean `http://127.0.0.1:1`?)",
            ),
            (
                "default_backend: ftp://a",
                "20: routing.default_backend: `ftp://a` is neither an http:// nor an https:// URL",
            ),
            (
                "default_backend: http://a/b",
                "20: routing.default_backend: `http://a/b` has a path; a backend is a server: requests keep the path \
                 that the client asked for",
            ),
            (
                "default_backend: http://u@a",
                "20: routing.default_backend: `http://u@a` names no server: user information in an authority is not \
                 accepted (RFC 9110, section 4.2.4)",
            ),
            ("rules: [{match: {host: a}}]", "11: routing.rules.forward: no `target`, which it needs"),
            (
                "rules: [{forward: {target: 'http://a'}}]",
                "11: routing.rules.match: no `host` and no `path`: it would match everything; that is what \
                 default_backend is for",
            ),
            (
                "rules: [{mach: {}, match: {path: /}, forward: {target: 'http://a'}}]",
                "12: routing.rules.mach: unknown key (did you mean `match`?)",
            ),
            (
                "rules: [{match: {path: app/*}, forward: {target: 'http://a'}}]",
                "26: routing.rules.match.path: `app/*` is not a path such as /status or /app/*: it does not begin with / \
                 (did you mean `/app/*`?)",
            ),
            (
                "rules: [{match: {path: /a*b}, forward: {target: 'http://a'}}]",
                "26: routing.rules.match.path: `/a*b` is not a path such as /status or /app/*: `*` stands only at the end, \
                 after a /",
            ),
            (
                "rules: [{match: {host: '*a.b'}, forward: {target: 'http://a'}}]",
                "26: routing.rules.match.host: `*a.b` is not a host such as app.example.com or *.example.com: the host \
                 contains a character that no host name has",
            ),
            (
                "rules: {match: 1}",
                "10: routing.rules: not a list; write [a, b] or a line `- a` for each entry",
            ),
            ("rules: [x]", "11: routing.rules: not a section; write its keys below it, as `key: value`"),
        ] {
            let errors = load_files(&[format!("routing:\n  {line}\n").as_bytes()], &[], &[]).unwrap_err();
            assert_eq!(errors.lines().next().unwrap(), format!("a.yaml:2:{expected}"), "{line}");
        }
        check(
            "forwarded: {trusted: [10.0.0.0/8, 10.0.0.0/40]}",
            "a.yaml:1:35: forwarded.trusted: `10.0.0.0/40` is neither an IP address nor a network such as 10.0.0.0/8",
        );
        let config = load_files(&[], &[("DEFAULT_BACKEND", "http://a.example/")], &[]).unwrap();
        assert_eq!(config.routing.default_backend.unwrap().to_string(), "http://a.example");
    }
}
