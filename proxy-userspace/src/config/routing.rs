//! `routing`: where the gateway sends requests. Which requests: `matching`; groups of servers: `backends`.

use std::sync::Arc;

use super::backends::{self, BackendGroup};
use super::errors::nearest;
use super::kinds::{Fault, choice, none_or, quoted};
use super::matching::{self, Match};
use super::section::Section;
use crate::authority::{Authority, Scheme, Shown};

/// `routing`: the gateway, for requests that name no server of their own (origin-form).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Routing {
    /// Groups of servers, among which requests are balanced. Default none.
    pub backends: Vec<Arc<BackendGroup>>,
    /// Where requests go that no rule matches. Default none.
    pub default_backend: Option<Forward>,
    /// The first rule that matches decides. Default none.
    pub rules: Vec<Rule>,
}

/// An entry of `routing.rules`: which requests, and where they go.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub matches: Match,
    pub forward: Forward,
}

/// Where requests are sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Forward {
    Server(Arc<Backend>),
    /// One of `routing.backends`, by name.
    Group(Arc<str>),
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

/// The most entries of `routing.rules`.
const MAX_RULES: usize = 16_384;

/// The most rules of them with a `path_regex`: each costs memory, and a path may have to be compared with all.
const MAX_REGEXES: usize = 1024;

pub(super) fn routing(s: &mut Section<'_, '_>) -> Routing {
    let host = s.read("host_field", HostField::default(), choice(HOST_FIELDS));
    let backends = backends::read(s, host);
    let names: Vec<_> = backends.iter().map(|group| Arc::clone(&group.name)).collect();
    let default_backend = s.read("default_backend", None, none_or(|text: &str| forward(text, host, &names)));
    let rules: Vec<_> =
        s.sections_up_to("rules", MAX_RULES, |s| rule(s, host, &names)).into_iter().flatten().collect();
    if rules.iter().filter(|rule| rule.matches.path_regex.is_some()).count() > MAX_REGEXES {
        s.error(&format!("more than {MAX_REGEXES} rules have a `path_regex`; use `path` where that will do"));
    }
    Routing { backends, default_backend, rules }
}

pub(super) const HOST_FIELDS: &[(&str, HostField)] =
    &[("client", HostField::Client), ("backend", HostField::Backend)];

/// None: what is wrong was reported.
fn rule(s: &mut Section<'_, '_>, host_field: HostField, groups: &[Arc<str>]) -> Option<Rule> {
    let matches = s.section("match", matching::read);
    let forward = s.section("forward", |s| {
        let host_field = s.read("host_field", host_field, choice(HOST_FIELDS));
        s.required("target", |text: &str| forward(text, host_field, groups))
    });
    forward.map(|forward| Rule { matches, forward })
}

/// A URL, or a group's name.
fn forward(text: &str, host: HostField, groups: &[Arc<str>]) -> Result<Forward, Fault> {
    if let Some(group) = groups.iter().find(|group| ***group == *text) {
        return Ok(Forward::Group(Arc::clone(group)));
    }
    if !text.contains([':', '/', '.']) && !groups.is_empty() {
        let message = format!("{} is neither a URL nor one of routing.backends", quoted(text));
        let nearest = nearest(text, groups.iter().map(|group| &**group)).map(str::to_owned);
        return Err(Fault { message, nearest });
    }
    backend(text, host).map(Forward::Server)
}

/// `http://host:port` or `https://host:port`.
pub(super) fn backend(text: &str, host: HostField) -> Result<Arc<Backend>, Fault> {
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

impl std::fmt::Display for Backend {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(text, "{}://{}", self.scheme, Shown(&self.authority, self.scheme))
    }
}

impl std::fmt::Display for Forward {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server(backend) => write!(text, "{backend}"),
            Self::Group(name) => write!(text, "{name}"),
        }
    }
}

impl std::fmt::Display for Rule {
    /// As in the configuration: `host *.example.com, path /app/*`.
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(text, "{}", self.matches)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load_files;

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
                "11: routing.rules.match: nothing to match by: it would match everything; that is what \
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
        let config = load_files(&[], &[("DEFAULT_BACKEND", "http://a.example/")], &[]).unwrap();
        assert_eq!(config.routing.default_backend.unwrap().to_string(), "http://a.example");
    }
}
