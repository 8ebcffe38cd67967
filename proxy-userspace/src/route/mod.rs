//! Which way a target is reached: captured ones to their original destination, explicit ones to their authority,
//! perhaps through a parent proxy, and
//! requests to the gateway by its rules. Balanced groups become further rows.

use std::sync::Arc;

use crate::config::{Backend, Config, Exempt, Parent, ParentKind, PathPattern, Rule};
use crate::http::authority::{Authority, Host, Scheme};
use crate::target::{Front, Hop, Target};

/// The routes of a configuration.
#[derive(Debug, Clone)]
pub struct Table {
    rules: Vec<Rule>,
    default_backend: Option<Arc<Backend>>,
    parent: Option<Arc<Parent>>,
    no_proxy: Vec<Exempt>,
}

/// Which row of the table decided, and where it leads.
#[derive(Debug, PartialEq)]
pub enum Row<'a> {
    /// A rule, and its place in `routing.rules`, counted from 1.
    Rule(usize, &'a Rule),
    Default(&'a Arc<Backend>),
}

impl Table {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            rules: config.routing.rules.clone(),
            default_backend: config.routing.default_backend.clone(),
            parent: config.upstream.parent.clone(),
            no_proxy: config.upstream.no_proxy.clone(),
        }
    }

    /// The next hop for a target and the path of its request. None if no row leads from there.
    #[must_use]
    pub fn next_hop(&self, target: &Target, path: &str) -> Option<Hop> {
        match (target.original_destination, target.front) {
            // A captured connection goes where the application meant it to go, whatever Host or SNI say.
            (Some(address), front) => {
                let name = target.authority.as_ref().filter(|_| target.intercepted);
                if let (Front::Explicit, Some(name)) = (front, name)
                    && self.has_parent_for(&name.host)
                {
                    // The parent proxy finds out for itself where that is.
                    return Some(self.outward(name.clone(), target.scheme));
                }
                Some(Hop::Address(address, target.vantage.clone(), name.map(|name| name.host.clone())))
            }
            (None, Front::Gateway) => {
                let host = target.authority.as_ref().map(|authority| &authority.host);
                self.gateway(host, path).map(|row| Hop::Backend(Arc::clone(row.backend())))
            }
            (None, _) => target.authority.clone().map(|authority| self.outward(authority, target.scheme)),
        }
    }

    /// To a server that a client has named: through the parent proxy, if there is one for it.
    fn outward(&self, authority: Authority, scheme: Scheme) -> Hop {
        match &self.parent {
            Some(parent) if self.has_parent_for(&authority.host) => {
                let tunnel = scheme == Scheme::Https || parent.kind == ParentKind::Socks5;
                Hop::Parent { parent: Arc::clone(parent), authority, scheme, tunnel }
            }
            _ => Hop::Authority(authority, scheme),
        }
    }

    fn has_parent_for(&self, host: &Host) -> bool {
        self.parent.is_some() && !self.no_proxy.iter().any(|exempt| exempt.matches(host))
    }

    /// The row for a request to the gateway: that of the first rule that matches, else the default.
    #[must_use]
    pub fn gateway(&self, host: Option<&Host>, path: &str) -> Option<Row<'_>> {
        let path = crate::http::path::plain(path);
        let found = self.rules.iter().position(|rule| matches(rule, host, &path));
        match found {
            Some(index) => Some(Row::Rule(index + 1, &self.rules[index])),
            None => self.default_backend.as_ref().map(Row::Default),
        }
    }
}

impl Row<'_> {
    #[must_use]
    pub fn backend(&self) -> &Arc<Backend> {
        match self {
            Self::Rule(_, rule) => &rule.backend,
            Self::Default(backend) => backend,
        }
    }
}

fn matches(rule: &Rule, host: Option<&Host>, path: &str) -> bool {
    let host_fits = rule.host.as_ref().is_none_or(|pattern| host.is_some_and(|host| pattern.matches(host)));
    host_fits && rule.path.as_ref().is_none_or(|pattern| path_matches(pattern, path))
}

fn path_matches(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Exact(exact) => **exact == *path,
        PathPattern::Below(above) => {
            path.strip_prefix(&**above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn table() -> Table {
        let rules = "[{match: {host: api.example, path: /v1/*}, forward: {target: 'http://v1:1'}},\
                      {match: {host: '*.example'}, forward: {target: 'http://sub:1'}},\
                      {match: {path: /exact}, forward: {target: 'http://exact:1'}},\
                      {match: {path: /app/*}, forward: {target: 'http://app:1'}},\
                      {match: {host: '[::1]'}, forward: {target: 'http://six:1'}}]";
        let overrides =
            vec!["routing.default_backend=http://default:1".to_owned(), format!("routing.rules={rules}")];
        let sources = config::Sources { overrides, ..config::Sources::default() };
        Table::new(&config::load(&sources).unwrap())
    }

    #[track_caller]
    fn check(host: &str, path: &str, expected: &str) {
        let host = (!host.is_empty()).then(|| Authority::parse(host, Some(80)).unwrap().host);
        let table = table();
        let row = table.gateway(host.as_ref(), path).unwrap();
        assert_eq!(row.backend().to_string(), format!("http://{expected}:1"), "{host:?} {path}");
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        check("api.example", "/v1/x?y", "v1");
        check("API.example.:81", "/v1", "v1");
        check("api.example", "/v10", "sub");
        check("a.b.example", "/app/", "sub");
        check("example", "/", "default");
        check("notexample", "/", "default");
        check("other", "/exact", "exact");
        check("other", "/exact?q=/app/", "exact");
        check("other", "/exact/", "default");
        check("other", "/app", "app");
        check("other", "/app/x/y", "app");
        check("other", "/apple", "default");
        check("", "/app/x", "app");
        check("", "*", "default");
        check("[::1]:8080", "/", "six");
        check("127.0.0.1", "/", "default");
    }

    #[test]
    fn a_path_is_matched_as_a_server_will_read_it() {
        check("other", "/x/../app/y", "app");
        check("other", "/%61pp/y", "app");
        check("other", "/app/../y", "default");
        check("other", "/app/%2e%2E/y", "default");
        check("other", "/./exact", "exact");
    }

    #[test]
    fn without_rules_there_is_no_way() {
        assert_eq!(Table::new(&Config::default()).gateway(None, "/"), None);
    }
}
