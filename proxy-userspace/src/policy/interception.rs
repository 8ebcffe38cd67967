//! `tls`: which TLS is intercepted, which is refused because nobody can tell where it leads, and which clients have refused
//! weir's certificates. How a session is made is not known here.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use super::auth::Identity;
use crate::authority::{Authority, Host};
use crate::config::{InterceptAction, InterceptRule, OnFailure, Prefix, Tls, Unreadable};
use crate::target::{Client, Target};

/// Refusals that are remembered.
const MAX_REMEMBERED: usize = 4096;

/// What is asked of TLS that passes. One for all workers.
#[derive(Debug)]
pub struct Interception {
    settings: Tls,
    /// What holds for contexts that want it.
    of_contexts: InterceptRule,
    /// When a client's refusal is forgotten.
    refused: Cache<(Who, Authority), Instant>,
}

/// Whose refusal it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Address(IpAddr),
    /// A captured program: its cgroup and name.
    Program(u64, String),
}

/// A connection, as far as it is known what it is.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub client: &'a Client,
    pub identity: Option<&'a Identity>,
    pub target: &'a Target,
    /// The name in its ClientHello.
    pub server_name: Option<&'a str>,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict<'a> {
    /// Client and server see to it themselves.
    Pass,
    Intercept(&'a InterceptRule),
    /// Nobody can tell where it leads.
    Refuse(&'static str),
}

impl Interception {
    /// What the configuration wants. None where it wants nothing: then nobody looks at a ClientHello.
    #[must_use]
    pub fn new(settings: &Tls) -> Option<Self> {
        let mut settings = settings.clone();
        if !settings.intercept.enabled {
            settings.intercept.rules.clear();
        }
        let refuses = [settings.no_sni, settings.ech].contains(&Unreadable::Refuse);
        let intercepts =
            settings.intercept.rules.iter().any(|rule| rule.action == InterceptAction::Intercept);
        // Contexts may come that want it.
        let of_contexts = InterceptRule::of_contexts(settings.intercept.on_failure);
        let refused = Cache::new(MAX_REMEMBERED);
        (refuses || intercepts || settings.intercept.enabled).then(|| Self { settings, of_contexts, refused })
    }

    /// Whether a connection has to be looked at before it is known what becomes of it. `asked` has no server name yet.
    #[must_use]
    pub fn concerns(&self, asked: &Asked<'_>) -> bool {
        let refuses = [self.settings.no_sni, self.settings.ech].contains(&Unreadable::Refuse);
        // A ClientHello may name another server than the one that was asked for.
        let may_match = |rule: &InterceptRule| {
            rule.action == InterceptAction::Intercept && matches_but_for_name(rule, asked)
        };
        refuses
            || wanted(asked) == Some(true)
            || wanted(asked).is_none() && self.settings.intercept.rules.iter().any(may_match)
    }

    /// The verdict on a ClientHello. `has_ech`: there is, or seems to be, an encrypted one in it.
    #[must_use]
    pub fn judge(&self, asked: &Asked<'_>, has_ech: bool) -> Verdict<'_> {
        let names = names(asked);
        if names.iter().all(Option::is_none) && self.settings.no_sni == Unreadable::Refuse {
            return Verdict::Refuse("the client names no server (no SNI), and tls.no_sni is refuse");
        }
        let first = self.settings.intercept.rules.iter().find(|rule| {
            let fits = |name: &str| rule.domains.iter().any(|domain| domain.admits(name));
            matches_but_for_name(rule, asked)
                && (rule.domains.is_empty() || names.into_iter().flatten().any(fits))
        });
        // What a context wants for itself, but for what rules pass.
        let first = match (wanted(asked), first) {
            (Some(true), Some(rule)) if rule.action == InterceptAction::Pass => Some(rule),
            (Some(true), found) => Some(found.unwrap_or(&self.of_contexts)),
            (Some(false), _) => None,
            (None, found) => found,
        };
        match first {
            Some(rule) if rule.action == InterceptAction::Intercept && !self.has_refused(asked, rule) => {
                // Who answers in the server's place has no key for what is encrypted: the client hears that ECH is off.
                Verdict::Intercept(rule)
            }
            _ if has_ech && self.settings.ech == Unreadable::Refuse => {
                Verdict::Refuse("the client hides the server's name (ECH), and tls.ech is refuse")
            }
            _ => Verdict::Pass,
        }
    }

    /// Remembers that this client does not take weir's certificates for this server, if the rule wants to pass it through
    /// then.
    pub fn note_refusal(&self, asked: &Asked<'_>, rule: &InterceptRule) {
        let remember = self.settings.intercept.remember;
        if rule.on_failure == OnFailure::PassThrough
            && remember > Duration::ZERO
            && let Some(place) = place(asked)
        {
            self.refused.insert((who(asked.client), place), Instant::now() + remember);
        }
    }

    fn has_refused(&self, asked: &Asked<'_>, rule: &InterceptRule) -> bool {
        if rule.on_failure != OnFailure::PassThrough || self.refused.is_empty() {
            return false;
        }
        let remembered = place(asked).and_then(|place| self.refused.get(&(who(asked.client), place)));
        remembered.is_some_and(|until| until > Instant::now())
    }
}

/// What the client's context wants for itself.
fn wanted(asked: &Asked<'_>) -> Option<bool> {
    asked.identity?.context.as_ref()?.intercept
}

fn who(client: &Client) -> Who {
    match &client.process {
        Some(process) => Who::Program(process.cgroup, process.comm.clone()),
        None => Who::Address(client.address.ip()),
    }
}

/// The server, as the client's own checks will call it.
fn place(asked: &Asked<'_>) -> Option<Authority> {
    let port = asked.target.original_destination.map(|original| original.port());
    let host = asked.server_name.and_then(|name| Host::parse(name).ok());
    match (host, &asked.target.authority) {
        (Some(host), authority) => {
            let port = port.or(authority.as_ref().map(|authority| authority.port))?;
            Some(Authority { host, port })
        }
        (None, Some(authority)) => Some(authority.clone()),
        (None, None) => asked
            .target
            .original_destination
            .map(|original| Authority { host: Host::Address(original.ip()), port: original.port() }),
    }
}

/// What the server is called: in the ClientHello, and by whoever asked for the connection.
fn names<'a>(asked: &Asked<'a>) -> [Option<&'a str>; 2] {
    let plain = |name: &'a str| name.strip_suffix('.').unwrap_or(name);
    let asked_for = match asked.target.authority.as_ref().map(|authority| &authority.host) {
        Some(Host::Name(name)) => Some(plain(name)),
        Some(Host::Address(_)) | None => None,
    };
    [asked.server_name.map(plain), asked_for]
}

fn matches_but_for_name(rule: &InterceptRule, asked: &Asked<'_>) -> bool {
    let Asked { client, identity, target, .. } = asked;
    let port = target.original_destination.map(|original| original.port());
    let port = port.or(target.authority.as_ref().map(|authority| authority.port));
    let address = Prefix::from(client.address.ip().to_canonical());
    let label = || identity.and_then(|identity| identity.context.as_ref()?.label.as_deref());
    let container = || client.process.as_ref().and_then(|process| Some(&*process.container.as_ref()?.name));
    let captured_by = || target.rule.as_ref().map(|rule| &**rule.name());
    let is_one =
        |list: &[String], found: Option<&str>| found.is_some_and(|found| list.iter().any(|one| one == found));
    (rule.ports.is_empty() || port.is_some_and(|port| rule.ports.iter().any(|ports| ports.contains(&port))))
        && (rule.clients.is_empty() || rule.clients.iter().any(|prefix| prefix.contains(address)))
        && (rule.users.is_empty() || is_one(&rule.users, identity.map(|identity| &*identity.name)))
        && (rule.contexts.is_empty() || is_one(&rule.contexts, label()))
        && (rule.containers.is_empty() || is_one(&rule.containers, container()))
        && (rule.captured_by.is_empty() || is_one(&rule.captured_by, captured_by()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::load_files;
    use crate::target::{Container, Front, Process};
    use std::sync::Arc;

    fn interception(yaml: &str) -> Interception {
        let config = load_files(&[yaml.as_bytes()], &[], &[]).unwrap();
        Interception::new(&config.tls).expect("there is something to look for")
    }

    fn client(container: Option<&str>) -> Client {
        let process = container.map(|name| {
            let container = Container { id: "1".into(), name: name.into(), image: "x".into() };
            Arc::new(Process {
                pid: 1,
                uid: 0,
                cgroup: 7,
                container: Some(Arc::new(container)),
                comm: "curl".into(),
            })
        });
        Client { address: "192.0.2.9:1".parse().unwrap(), process }
    }

    fn said(verdict: &Verdict<'_>) -> String {
        match verdict {
            Verdict::Pass => "pass".to_owned(),
            Verdict::Intercept(rule) => rule.name.clone(),
            Verdict::Refuse(why) => (*why).to_owned(),
        }
    }

    /// `place [server name] [container]`, and the rule that intercepts.
    #[track_caller]
    fn check(interception: &Interception, asked: &str, expected: &str) {
        let mut words = asked.split(' ');
        let authority = Authority::parse(words.next().unwrap(), None).unwrap();
        let (server_name, container) = (words.next().filter(|word| *word != "-"), words.next());
        let target = Target { authority: Some(authority), ..Target::of(Front::Explicit) };
        let client = client(container);
        let asked = Asked { client: &client, identity: None, target: &target, server_name };
        assert_eq!(said(&interception.judge(&asked, false)), expected, "{asked:?}");
    }

    const RULES: &str = "tls:\n  intercept:\n    enabled: true\n    rules:\n\
        \x20   - {name: bank, domains: ['*.bank.example'], action: pass}\n\
        \x20   - {name: all, domains: ['*.example'], ports: [443], action: intercept}\n\
        \x20   - {name: web, containers: [web], action: intercept, on_failure: pass_through}\n";

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = interception(RULES);
        check(&rules, "a.example:443 a.example", "all");
        check(&rules, "A.example.:443 a.example", "all");
        check(&rules, "a.example:443 -", "all");
        check(&rules, "192.0.2.1:443 a.example", "all");
        check(&rules, "a.example:8443 a.example", "pass");
        check(&rules, "www.bank.example:443 www.bank.example", "pass");
        check(&rules, "192.0.2.1:443 -", "pass");
        check(&rules, "other.test:443 other.test", "pass");
        check(&rules, "other.test:443 other.test web", "web");
        check(&rules, "other.test:443 other.test db", "pass");
        // What either of the two names is intercepted for: the two don't agree, which is found out inside.
        check(&rules, "other.test:443 a.example", "all");
    }

    #[test]
    fn a_refusal_is_remembered_for_whom_it_was_and_where_the_rule_wants_that() {
        let rules = interception(RULES);
        let (web, other) = (client(Some("web")), client(None));
        let target = |name: &str| Target {
            authority: Authority::parse(name, None).ok(),
            ..Target::of(Front::Explicit)
        };
        let (pinned, plain) = (target("pinned.test:443"), target("plain.test:443"));
        let of = |client, target| Asked { client, identity: None, target, server_name: None };
        let asked = of(&web, &pinned);
        let Verdict::Intercept(rule) = rules.judge(&asked, false) else { panic!("intercepted") };
        rules.note_refusal(&asked, rule);
        assert_eq!(rules.judge(&asked, false), Verdict::Pass);
        assert_eq!(said(&rules.judge(&of(&web, &plain), false)), "web");
        let there = target("a.example:443");
        let asked = of(&other, &there);
        let Verdict::Intercept(rule) = rules.judge(&asked, false) else { panic!("intercepted") };
        rules.note_refusal(&asked, rule);
        assert_eq!(said(&rules.judge(&asked, false)), "all");
    }

    #[test]
    fn what_nobody_can_read_is_refused_where_that_is_wanted() {
        let strict = interception("tls: {no_sni: refuse, ech: refuse}");
        check(&strict, "192.0.2.1:443 -", "the client names no server (no SNI), and tls.no_sni is refuse");
        check(&strict, "192.0.2.1:443 a.example", "pass");
        check(&strict, "a.example:443 -", "pass");
        let client = client(None);
        let target =
            Target { authority: Authority::parse("a.example:443", None).ok(), ..Target::of(Front::Explicit) };
        let asked =
            Asked { client: &client, identity: None, target: &target, server_name: Some("a.example") };
        assert!(matches!(strict.judge(&asked, true), Verdict::Refuse(_)));
        assert!(Interception::new(&Tls::default()).is_none());
    }
}
