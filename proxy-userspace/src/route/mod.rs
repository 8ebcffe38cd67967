//! Which way a target is reached: captured ones to their original destination, explicit ones to their authority,
//! perhaps through a parent proxy, and requests to the gateway by its rules: to a server, or to a group of them.
//!
//! It chooses; it connects to nobody, and what becomes of a request it is told by who has sent it.

mod affinity;
mod balance;
mod budget;
mod group;
mod health;
mod index;
mod member;

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{BackendGroup, Config, Exempt, Forward, Parent, ParentKind, Rule};
use crate::http::authority::{Authority, Host, Scheme};
use crate::http::headers::Headers;
use crate::target::{Front, Hop, Target};
pub use affinity::Affinity;
pub use group::{Group, NoMember, Tried, Turn};
use index::Index;
pub use member::{Counts, Member, State};

/// The routes of a configuration. All workers share it.
#[derive(Debug)]
pub struct Table {
    rules: Vec<Rule>,
    index: Index,
    default_backend: Option<Forward>,
    groups: HashMap<Arc<str>, Arc<Group>>,
    parent: Option<Arc<Parent>>,
    no_proxy: Vec<Exempt>,
}

/// What is asked of the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: &'a Headers,
}

/// Where a target leads.
#[derive(Debug)]
pub enum Way {
    Hop(Hop),
    /// To one of these.
    Group(Arc<Group>),
}

/// Which row of the table decided, and where it leads.
#[derive(Debug, PartialEq)]
pub enum Row<'a> {
    /// A rule, and its place in `routing.rules`, counted from 1.
    Rule(usize, &'a Rule),
    Default(&'a Forward),
}

impl Table {
    /// The table of a configuration, in the place of another if there is one: what is known of the members of its groups
    /// stays.
    #[must_use]
    pub fn new(config: &Config, before: Option<&Self>) -> Self {
        let routing = &config.routing;
        let group = |settings: &Arc<BackendGroup>| {
            let before = before.and_then(|before| before.groups.get(&settings.name));
            (Arc::clone(&settings.name), Group::new(settings, before))
        };
        Self {
            index: Index::new(&routing.rules),
            rules: routing.rules.clone(),
            default_backend: routing.default_backend.clone(),
            groups: routing.backends.iter().map(group).collect(),
            parent: config.upstream.parent.clone(),
            no_proxy: config.upstream.no_proxy.clone(),
        }
    }

    /// The way to a target. None if no row leads from there.
    #[must_use]
    pub fn way(&self, target: &Target, asked: Asked<'_>) -> Option<Way> {
        if target.front != Front::Gateway || target.original_destination.is_some() {
            return self.next_hop(target).map(Way::Hop);
        }
        let host = target.authority.as_ref().map(|authority| &authority.host);
        match self.gateway(host, asked)?.forward() {
            Forward::Server(backend) => Some(Way::Hop(Hop::Backend(Arc::clone(backend)))),
            Forward::Group(name) => self.groups.get(name).map(|group| Way::Group(Arc::clone(group))),
        }
    }

    /// The next hop for a target that is no request to the gateway. None if it has no authority either.
    #[must_use]
    pub fn next_hop(&self, target: &Target) -> Option<Hop> {
        let Some(address) = target.original_destination else {
            // What the gateway is asked for leads where the rules say, and nowhere else.
            if target.front == Front::Gateway {
                return None;
            }
            return target.authority.clone().map(|authority| self.outward(authority, target.scheme));
        };
        // A captured connection goes where the application meant it to go, whatever Host or SNI say.
        let name = target.authority.as_ref().filter(|_| target.intercepted);
        if let (Front::Explicit, Some(name)) = (target.front, name)
            && self.has_parent_for(&name.host)
        {
            // The parent proxy finds out for itself where that is.
            return Some(self.outward(name.clone(), target.scheme));
        }
        Some(Hop::Address(address, target.vantage.clone(), name.map(|name| name.host.clone())))
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
    pub fn gateway(&self, host: Option<&Host>, asked: Asked<'_>) -> Option<Row<'_>> {
        let path = crate::http::path::plain(asked.path);
        match self.index.first(host, &path, |number| holds(&self.rules[number], &path, asked)) {
            Some(index) => Some(Row::Rule(index + 1, &self.rules[index])),
            None => self.default_backend.as_ref().map(Row::Default),
        }
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups.get(name)
    }
}

impl Way {
    /// A hop that it may lead to, for those who want to know no more.
    #[must_use]
    pub fn any_hop(self) -> Option<Hop> {
        match self {
            Self::Hop(hop) => Some(hop),
            Self::Group(group) => {
                group.members().first().map(|member| Hop::Backend(Arc::clone(&member.server)))
            }
        }
    }
}

impl Row<'_> {
    #[must_use]
    pub fn forward(&self) -> &Forward {
        match self {
            Self::Rule(_, rule) => &rule.forward,
            Self::Default(forward) => forward,
        }
    }
}

/// Whether a rule that the index has found by host and path fits otherwise.
fn holds(rule: &Rule, path: &str, asked: Asked<'_>) -> bool {
    let matches = &rule.matches;
    (matches.methods.is_empty() || matches.methods.iter().any(|method| **method == *asked.method))
        && matches.path_regex.as_ref().is_none_or(|regex| regex.matches(path))
        && matches.headers.iter().all(|wanted| {
            asked.headers.iter().any(|field| {
                field.name.eq_ignore_ascii_case(wanted.name.as_bytes())
                    && wanted.value.as_ref().is_none_or(|value| value.as_bytes() == field.value.trim_ascii())
            })
        })
}

#[cfg(test)]
mod tests;
