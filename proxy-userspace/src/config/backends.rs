//! `routing.backends`: groups of servers, and how requests are balanced among them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::backend_health::{self, BackendHealth};
use super::kinds::{Fault, choice, duration, none_or, number, optional, quoted, word};
use super::matching::is_token;
use super::routing::{Backend, HOST_FIELDS, HostField, backend};
use super::section::Section;
use super::shape::Kind as _;

/// A group of servers that answer alike.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendGroup {
    pub name: Arc<str>,
    pub members: Vec<Member>,
    /// Default round_robin.
    pub balance: Algorithm,
    /// What `hash` goes by. Default client.
    pub hash_by: HashBy,
    /// How many percent of its share a member may have under way before `hash` goes on to the next. Default 125.
    pub hash_load: u32,
    /// The cookie by which a client stays with a member. Default none.
    pub sticky_cookie: Option<Arc<str>>,
    /// How long the share of a member that comes back grows until it is whole. Default 0s.
    pub slow_start: Duration,
    pub bounds: Bounds,
    pub health: BackendHealth,
}

/// One of its servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub name: Arc<str>,
    pub server: Arc<Backend>,
    /// Its share, in comparison with those of the others; 0 gets nothing. Default 1.
    pub weight: u32,
    /// It gets no new requests. Default off.
    pub drain: bool,
}

/// How many requests a group has under way, and how many wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// At one member, all workers together. Default 0, no limit.
    pub max_requests: usize,
    /// Requests that wait for a member; more → 503. Default 128.
    pub queue: usize,
    /// How long they wait; longer → 503. Default 5s.
    pub queue_timeout: Duration,
}

/// How a member is chosen. An algorithm is a file in `route/balance/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    RoundRobin,
    LeastRequests,
    RandomTwo,
    Hash,
}

/// As the configuration calls them.
pub(super) const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("round_robin", Algorithm::RoundRobin),
    ("least_requests", Algorithm::LeastRequests),
    ("random_two", Algorithm::RandomTwo),
    ("hash", Algorithm::Hash),
];

impl Algorithm {
    /// As the configuration calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        ALGORITHMS.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// What requests have in common that are to go to one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address.
    Client,
    /// A field of the request, in lower case.
    Header(Box<str>),
    Cookie(Box<str>),
}

/// The most members of all groups together: each is a few series of metrics, and a task of health checks.
const MAX_MEMBERS: usize = 1024;

/// The largest weight: that of HAProxy.
pub const MAX_WEIGHT: u32 = 256;

pub(super) fn read(s: &mut Section<'_, '_>, host: HostField) -> Vec<Arc<BackendGroup>> {
    let groups: Vec<_> = s.sections("backends", |s| group(s, host)).into_iter().flatten().collect();
    let mut names = HashSet::new();
    for group in &groups {
        if !names.insert(Arc::clone(&group.name)) {
            s.error(&format!("two of `backends` are called {}", quoted(&group.name)));
        }
    }
    if groups.iter().map(|group| group.members.len()).sum::<usize>() > MAX_MEMBERS {
        s.error(&format!("`backends` have more than {MAX_MEMBERS} members together"));
    }
    groups
}

/// None: what is wrong was reported.
fn group(s: &mut Section<'_, '_>, host: HostField) -> Option<Arc<BackendGroup>> {
    let name = s.required("name", group_name);
    let host = s.read("host_field", host, choice(HOST_FIELDS));
    let members: Vec<_> = s.sections("members", |s| member(s, host)).into_iter().flatten().collect();
    let mut names = HashSet::new();
    for member in &members {
        if !names.insert(Arc::clone(&member.name)) {
            s.error(&format!("two members are called {}; give them a `name`", quoted(&member.name)));
        }
    }
    if !s.has("members") {
        s.error("no `members`, which it needs");
    }
    let group = BackendGroup {
        name: name.unwrap_or_else(|| "".into()),
        members,
        balance: s.read("balance", Algorithm::RoundRobin, choice(ALGORITHMS)),
        hash_by: s.read("hash_by", HashBy::Client, hash_by),
        hash_load: s.read("hash_load", 125, number(101..=1000)),
        sticky_cookie: s.read("sticky_cookie", None, none_or(cookie_name)),
        slow_start: s.read("slow_start", Duration::ZERO, duration(Duration::ZERO..=HOUR)),
        bounds: Bounds {
            max_requests: s.read("max_requests", 0, number(0..=1_000_000)),
            queue: s.read("queue", 128, number(0..=100_000)),
            queue_timeout: s.read("queue_timeout", QUEUE_TIMEOUT, duration(MILLISECOND..=HOUR)),
        },
        health: backend_health::read(s),
    };
    (!group.name.is_empty()).then(|| Arc::new(group))
}

fn member(s: &mut Section<'_, '_>, host: HostField) -> Option<Member> {
    let server = s.required("url", |text: &str| backend(text, host));
    let name = s.read("name", None, optional(word()));
    let (weight, drain) =
        (s.read("weight", 1, number(0..=MAX_WEIGHT)), s.read("drain", false, super::kinds::switch()));
    let server = server?;
    let name = name.map_or_else(|| server.authority.to_string().into(), Into::into);
    Some(Member { name, server, weight, drain })
}

/// A word that is no URL, and no host either: then it is told what was meant.
fn group_name(text: &str) -> Result<Arc<str>, Fault> {
    let name = word().parse(text)?;
    if name.contains('.') {
        return Err(format!("{} could be a server's name; a group's has no dots", quoted(text)).into());
    }
    Ok(name.into())
}

fn cookie_name(text: &str) -> Result<Arc<str>, Fault> {
    if is_token(text) {
        Ok(text.into())
    } else {
        Err(format!("{} is not a cookie's name", quoted(text)).into())
    }
}

/// `client`, `header:Name` or `cookie:name`.
fn hash_by(text: &str) -> Result<HashBy, Fault> {
    match text.split_once(':') {
        None if text == "client" => Ok(HashBy::Client),
        Some(("header", name)) if is_token(name) => Ok(HashBy::Header(name.to_ascii_lowercase().into())),
        Some(("cookie", name)) if is_token(name) => Ok(HashBy::Cookie(name.into())),
        _ => Err(format!("{} is not client, header:NAME or cookie:NAME", quoted(text)).into()),
    }
}

impl std::fmt::Display for HashBy {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client => text.write_str("client"),
            Self::Header(name) => write!(text, "header:{name}"),
            Self::Cookie(name) => write!(text, "cookie:{name}"),
        }
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use crate::config::tests::load_files;

    #[track_caller]
    fn check(group: &str, expected: &str) {
        let text = format!("routing:\n  backends: [{group}]\n  default_backend: shop\n");
        let errors = load_files(&[text.as_bytes()], &[], &[]).unwrap_err();
        assert!(errors.contains(expected), "{group}:\n{errors}");
    }

    #[test]
    fn a_group() {
        let text = "routing:\n  backends:\n    - name: shop\n      balance: hash\n      hash_by: header:X-User\n      \
                    members:\n        - {url: 'http://a:1', weight: 3}\n        - {url: 'http://b:1', name: b, drain: true}\n  \
                    default_backend: shop\n  rules: [{match: {path: /x}, forward: {target: shop}}]\n";
        let routing = load_files(&[text.as_bytes()], &[], &[]).unwrap().routing;
        let group = &routing.backends[0];
        assert_eq!((group.balance.name(), group.hash_by.to_string()), ("hash", "header:x-user".into()));
        let names: Vec<_> =
            group.members.iter().map(|member| (&*member.name, member.weight, member.drain)).collect();
        assert_eq!(names, [("a:1", 3, false), ("b", 1, true)]);
        assert_eq!(routing.default_backend.unwrap().to_string(), "shop");
        assert_eq!(routing.rules[0].forward.to_string(), "shop");
    }

    #[test]
    fn wrong_groups() {
        check("{name: shop}", "no `members`, which it needs");
        check("{name: shop, members: [{weight: 1}]}", "routing.backends.members: no `url`, which it needs");
        check(
            "{name: shop, members: [{url: 'http://a'}, {url: 'http://a'}]}",
            "two members are called `a:80`",
        );
        check("{name: a.b, members: [{url: 'http://a'}]}", "`a.b` could be a server's name");
        check("{name: shop, members: [], balance: rr}", "`rr` is not one of round_robin, least_requests");
        check("{name: shop, members: [], hash_by: user}", "`user` is not client, header:NAME or cookie:NAME");
        check(
            "{name: shop, members: [{url: 'http://a'}]}, {name: shop, members: []}",
            "two of `backends` are called `shop`",
        );
        check(
            "{name: shpo, members: []}",
            "`shop` is neither a URL nor one of routing.backends (did you mean `shpo`?)",
        );
    }
}
