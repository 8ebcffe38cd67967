//! Adds, sets and removes fields, as `security.header_rules` say.

use super::{Filter, Request, Response, Verdict};
use crate::config::{Direction, HeaderRule, PathPattern};
use crate::http::headers::Headers;
use crate::http::path;
use crate::target::Target;

pub(super) struct HeaderRules;

impl Filter for HeaderRules {
    fn request(&self, request: &Request<'_>) -> Verdict {
        let fits = |rule: &&HeaderRule| fits(rule, Direction::Request, request.target, request.path);
        let mut rules = request.rules.iter().filter(fits).peekable();
        if rules.peek().is_none() {
            return Verdict::Allow;
        }
        let mut head = request.head.clone();
        rules.for_each(|rule| apply(rule, &mut head.headers));
        Verdict::Modify(Box::new(head))
    }

    fn response(&self, response: &mut Response<'_>) {
        let Response { head, target, path, rules } = response;
        let fits = |rule: &&HeaderRule| fits(rule, Direction::Response, target, path);
        rules.iter().filter(fits).for_each(|rule| apply(rule, &mut head.headers));
    }
}

fn fits(rule: &HeaderRule, direction: Direction, target: &Target, path: &str) -> bool {
    let host = target.authority.as_ref().map(|authority| &authority.host);
    let host_fits = || host.is_some_and(|host| rule.hosts.iter().any(|pattern| pattern.matches(host)));
    let path_fits = || {
        let path = path::plain(path);
        rule.paths.iter().any(|pattern| match pattern {
            PathPattern::Exact(exact) => **exact == *path,
            PathPattern::Below(above) => {
                path.strip_prefix(&**above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        })
    };
    rule.direction == direction
        && (rule.hosts.is_empty() || host_fits())
        && (rule.paths.is_empty() || path_fits())
}

fn apply(rule: &HeaderRule, headers: &mut Headers) {
    let is_removed =
        |name: &[u8]| rule.remove.iter().any(|removed| name.eq_ignore_ascii_case(removed.as_bytes()));
    let is_set = |name: &[u8]| rule.set.iter().any(|field| name.eq_ignore_ascii_case(field.name.as_bytes()));
    headers.retain(|field| !is_removed(field.name) && !is_set(field.name));
    for field in rule.set.iter().chain(&rule.add) {
        headers.push(field.name.as_bytes(), field.value.as_bytes());
    }
}
