//! `security.acl.rules`: the first rule that matches decides; where none does, everything may pass.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use chrono::{Datelike as _, Local, Timelike as _};

use super::filtering::{Patterns, Url};
use super::{By, Refusal, Subject};
use crate::authority::Host;
use crate::config::{Access, AccessRule, Domain, Prefix, TimeWindow};

/// The rules, in their order.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    name: String,
    clients: Vec<Prefix>,
    destinations: Vec<Prefix>,
    domains: Vec<Domain>,
    ports: Vec<RangeInclusive<u16>>,
    methods: Vec<String>,
    urls: Option<Patterns>,
    times: Vec<TimeWindow>,
    action: Access,
}

/// What the rules say.
#[derive(Debug)]
pub(super) enum Decision {
    /// No rule matches.
    None,
    /// `by_address`: the rule asks for the address.
    Allow {
        by_address: bool,
    },
    Deny(Refusal),
    /// That depends on the address.
    Unknown,
}

/// Whether a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    No,
    Yes,
    Unknown,
}

impl Rules {
    pub(super) fn new(rules: &[AccessRule]) -> Self {
        Self { rules: rules.iter().map(Rule::new).collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn allow_names(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.action == Access::Allow && !(rule.domains.is_empty() && rule.urls.is_none()))
    }

    pub(super) fn ask_names(&self) -> bool {
        self.rules.iter().any(|rule| !rule.domains.is_empty())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.name.as_str())
    }

    /// The first rule that matches. `address`, if it is known, is where it would be connected to.
    pub(super) fn decide(&self, subject: &Subject<'_>, address: Option<IpAddr>) -> Decision {
        let url = std::cell::OnceCell::new();
        for rule in &self.rules {
            match rule.fit(subject, address, &url) {
                Fit::No => {}
                Fit::Unknown => return Decision::Unknown,
                Fit::Yes => return rule.decision(subject, address),
            }
        }
        Decision::None
    }
}

impl Rule {
    fn new(rule: &AccessRule) -> Self {
        let urls = (!rule.urls.is_empty()).then(|| {
            let mut patterns = Patterns::default();
            rule.urls.iter().for_each(|url| patterns.push(url, false, super::filtering::Place::default()));
            patterns.finish(0);
            patterns
        });
        Self {
            name: rule.name.clone(),
            clients: rule.clients.clone(),
            destinations: rule.destinations.clone(),
            domains: rule.domains.clone(),
            ports: rule.ports.clone(),
            methods: rule.methods.clone(),
            urls,
            times: rule.times.clone(),
            action: rule.action,
        }
    }

    fn fit(
        &self,
        subject: &Subject<'_>,
        address: Option<IpAddr>,
        url: &std::cell::OnceCell<Option<Url>>,
    ) -> Fit {
        let client = || contains(&self.clients, subject.client);
        let name = || match subject.host {
            Some(Host::Name(name)) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                self.domains.iter().any(|domain| domain.admits(name))
            }
            _ => false,
        };
        let port = || subject.port.is_some_and(|port| self.ports.iter().any(|ports| ports.contains(&port)));
        let method = || subject.method.is_some_and(|method| self.methods.iter().any(|one| one == method));
        let url = || {
            let asked = url.get_or_init(|| {
                let (scheme, path) = subject.url?;
                Some(Url::new(scheme, subject.host, subject.port, path))
            });
            let patterns = self.urls.as_ref();
            asked.as_ref().zip(patterns).is_some_and(|(url, patterns)| patterns.find(url).is_some())
        };
        let fits = (self.clients.is_empty() || client())
            && (self.domains.is_empty() || name())
            && (self.ports.is_empty() || port())
            && (self.methods.is_empty() || method())
            && (self.urls.is_none() || url())
            && (self.times.is_empty() || is_now(&self.times));
        match (fits, address) {
            (false, _) => Fit::No,
            (true, _) if self.destinations.is_empty() => Fit::Yes,
            (true, None) => Fit::Unknown,
            (true, Some(address)) if contains(&self.destinations, address) => Fit::Yes,
            (true, Some(_)) => Fit::No,
        }
    }

    fn decision(&self, subject: &Subject<'_>, address: Option<IpAddr>) -> Decision {
        match self.action {
            Access::Allow => Decision::Allow { by_address: !self.destinations.is_empty() },
            Access::Deny => {
                let mut reason = match subject.method {
                    Some(method) => format!("{method} to {} is not allowed", subject.place()),
                    None => format!("a connection to {} is not allowed", subject.place()),
                };
                if let Some(address) = address.filter(|_| !self.destinations.is_empty()) {
                    reason = format!("{reason} (it is at {address})");
                }
                let rule = format!("rule `{}` of security.acl.rules", self.name);
                Decision::Deny(Refusal::new(403, By::Access, rule, reason))
            }
        }
    }
}

/// Addresses in every form that means the same one.
fn contains(prefixes: &[Prefix], address: IpAddr) -> bool {
    let address = Prefix::from(address.to_canonical());
    prefixes.iter().any(|prefix| prefix.contains(address))
}

fn is_now(times: &[TimeWindow]) -> bool {
    let now = Local::now();
    let day = u8::try_from(now.weekday().num_days_from_monday()).unwrap_or(0);
    let minute = u16::try_from(now.hour() * 60 + now.minute()).unwrap_or(0);
    times.iter().any(|window| window.holds(day, minute))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Scheme;
    use crate::config::tests::load_files;

    fn rules(yaml: &str) -> Rules {
        let config = load_files(&[yaml.as_bytes()], &[], &[]).unwrap();
        Rules::new(&config.security.acl.rules)
    }

    /// `METHOD host[/path] [address]`, and what decides.
    #[track_caller]
    fn check(rules: &Rules, client: &str, asked: &str, expected: &str) {
        let mut words = asked.split(' ');
        let (method, place, address) = (words.next(), words.next().unwrap(), words.next());
        let (host, path) = match place.split_once('/') {
            Some((host, path)) => (host, Some(format!("/{path}"))),
            None => (place, None),
        };
        let (host, port) = host.split_once(':').unwrap_or((host, "80"));
        let host = Host::parse(host).unwrap();
        let subject = Subject {
            client: client.parse().unwrap(),
            host: Some(&host),
            port: port.parse().ok(),
            original: None,
            method,
            url: path.as_deref().map(|path| (Scheme::Http, path)),
            identity: None,
        };
        let address = address.map(|address| address.parse().unwrap()).or(subject.address());
        let decided = match rules.decide(&subject, address) {
            Decision::None => "none".to_owned(),
            Decision::Unknown => "unknown".to_owned(),
            Decision::Allow { by_address } => format!("allow {by_address}"),
            Decision::Deny(refusal) => refusal.rule.split('`').nth(1).unwrap().to_owned(),
        };
        assert_eq!(decided, expected, "{asked}");
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = rules(
            "security:\n  acl:\n    rules:\n\
             \x20   - {name: lan, clients: [10.0.0.0/8], action: allow}\n\
             \x20   - {name: tls-only, methods: [CONNECT], ports: [1-442, 444-65535], action: deny}\n\
             \x20   - {name: local, destinations: [127.0.0.0/8, '::1'], ports: [3000], action: allow}\n\
             \x20   - {name: inside, destinations: [10.0.0.0/8], action: deny}\n\
             \x20   - {name: admin, urls: [/admin/*], methods: [POST, DELETE], action: deny}\n\
             \x20   - {name: names, domains: ['*.example'], action: deny}\n",
        );
        check(&rules, "10.1.1.1", "CONNECT a.example:22", "allow false");
        check(&rules, "::ffff:10.1.1.1", "CONNECT a.example:22", "allow false");
        check(&rules, "192.0.2.1", "CONNECT a.example:22", "tls-only");
        check(&rules, "192.0.2.1", "CONNECT a.test:443", "unknown");
        check(&rules, "192.0.2.1", "GET localhost:3000/ 127.0.0.1", "allow true");
        check(&rules, "192.0.2.1", "GET localhost:3000/ ::ffff:127.0.0.1", "allow true");
        check(&rules, "192.0.2.1", "GET localhost:3001/ 127.0.0.1", "none");
        check(&rules, "192.0.2.1", "GET a.test/ 10.2.3.4", "inside");
        check(&rules, "192.0.2.1", "GET 10.2.3.4/", "inside");
        check(&rules, "192.0.2.1", "GET 167904004/", "inside");
        check(&rules, "192.0.2.1", "POST a.test/x/%61dmin/y 192.0.2.2", "admin");
        check(&rules, "192.0.2.1", "GET a.test/admin/y 192.0.2.2", "none");
        check(&rules, "192.0.2.1", "GET A.EXAMPLE./ 192.0.2.2", "names");
    }

    #[test]
    fn a_rule_holds_at_its_times() {
        let all =
            rules("security: {acl: {rules: [{name: x, times: ['mon-sun 00:00-24:00'], action: deny}]}}");
        check(&all, "192.0.2.1", "GET a.test/", "x");
        let now = Local::now();
        // Two hours from now, for an hour: neither now nor, should it take long, soon.
        let from = (now.hour() + 2) % 24;
        let window = format!("{from:02}:00-{:02}:00", (from + 1) % 24);
        let later = rules(&format!("security: {{acl: {{rules: [{{times: ['{window}'], action: deny}}]}}}}"));
        check(&later, "192.0.2.1", "GET a.test/", "none");
    }
}
