//! `tls`: what becomes of TLS that passes through, and where weir takes the server's place in it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::defaults::default_authority_folder;
use super::dns::domain;
use super::keys::hours;
use super::kinds::{auto_or, choice, duration, number, path, port_range, prefix, switch, word};
use super::section::Section;
use super::{Domain, Prefix};

/// `tls`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Clients that name no server. Default pass.
    pub no_sni: Unreadable,
    /// ClientHellos that are encrypted (ECH), or look so. Default pass.
    pub ech: Unreadable,
    pub intercept: Intercept,
}

/// What becomes of a client that can't be told where it wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    Pass,
    Refuse,
}

/// `tls.intercept`.
#[derive(Debug, Clone, PartialEq)]
pub struct Intercept {
    /// Default off.
    pub enabled: bool,
    /// Where weir's certificate authority is kept. Default /var/lib/weir/ca; a folder of the user's own unless root.
    pub folder: PathBuf,
    /// How long a certificate holds. Default 30d.
    pub lifetime: Duration,
    /// Certificates that are kept. Default 1024.
    pub certificates: usize,
    /// What follows where there is no session with either side. Default refuse.
    pub on_failure: OnFailure,
    /// How long a client's refusal is remembered, for `pass_through`. Default 10min.
    pub remember: Duration,
    /// The first that matches decides; what matches none passes through. Default none.
    pub rules: Vec<InterceptRule>,
}

/// One rule. It matches what has every property it asks for; of a list, one must fit.
#[derive(Debug, Clone, PartialEq)]
pub struct InterceptRule {
    /// Default `rule-` and its place, from 1.
    pub name: String,
    /// The server's names.
    pub domains: Vec<Domain>,
    pub ports: Vec<RangeInclusive<u16>>,
    pub clients: Vec<Prefix>,
    /// Names of users, and of contexts.
    pub users: Vec<String>,
    /// Labels of contexts.
    pub contexts: Vec<String>,
    /// Names of captured containers.
    pub containers: Vec<String>,
    /// Names of `capture.rules`, by which it was captured.
    pub captured_by: Vec<String>,
    pub action: InterceptAction,
    pub on_failure: OnFailure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterceptAction {
    Intercept,
    Pass,
}

/// What follows where weir and the server, or weir and the client, don't come to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The client is told what is wrong with the server.
    Refuse,
    /// Client and server see to it themselves.
    PassThrough,
}

impl Default for Tls {
    fn default() -> Self {
        Self { no_sni: Unreadable::Pass, ech: Unreadable::Pass, intercept: Intercept::default() }
    }
}

impl Default for Intercept {
    fn default() -> Self {
        Self {
            enabled: false,
            folder: default_authority_folder(),
            lifetime: hours(30 * 24),
            certificates: 1024,
            on_failure: OnFailure::Refuse,
            remember: Duration::from_secs(600),
            rules: Vec::new(),
        }
    }
}

impl InterceptRule {
    /// Everything of a context that wants it for itself.
    #[must_use]
    pub fn of_contexts(on_failure: OnFailure) -> Self {
        Self {
            name: "its context".to_owned(),
            domains: Vec::new(),
            ports: Vec::new(),
            clients: Vec::new(),
            users: Vec::new(),
            contexts: Vec::new(),
            containers: Vec::new(),
            captured_by: Vec::new(),
            action: InterceptAction::Intercept,
            on_failure,
        }
    }
}

const UNREADABLE: &[(&str, Unreadable)] = &[("pass", Unreadable::Pass), ("refuse", Unreadable::Refuse)];
const ON_FAILURE: &[(&str, OnFailure)] =
    &[("refuse", OnFailure::Refuse), ("pass_through", OnFailure::PassThrough)];

pub(super) fn read(s: &mut Section<'_, '_>) -> Tls {
    let d = Tls::default();
    Tls {
        no_sni: s.read("no_sni", d.no_sni, choice(UNREADABLE)),
        ech: s.read("ech", d.ech, choice(UNREADABLE)),
        intercept: s.section("intercept", intercept),
    }
}

fn intercept(s: &mut Section<'_, '_>) -> Intercept {
    let d = Intercept::default();
    let on_failure = s.read("on_failure", d.on_failure, choice(ON_FAILURE));
    // Programs take no certificate that holds for more than 398 days (CA/Browser Forum, Baseline Requirements §6.3.2).
    let lifetime = hours(1)..=hours(397 * 24);
    let mut rules = s.sections("rules", |s| rule(s, on_failure));
    for (index, rule) in rules.iter_mut().enumerate().filter(|(_, rule)| rule.name.is_empty()) {
        rule.name = format!("rule-{}", index + 1);
    }
    Intercept {
        enabled: s.read("enabled", d.enabled, switch()),
        folder: s.read("folder", d.folder, auto_or(default_authority_folder, path())),
        lifetime: s.read("lifetime", d.lifetime, duration(lifetime)),
        certificates: s.read("certificates", d.certificates, number(1..=1_000_000)),
        on_failure,
        remember: s.read("remember", d.remember, duration(Duration::ZERO..=hours(24))),
        rules,
    }
}

fn rule(s: &mut Section<'_, '_>, on_failure: OnFailure) -> InterceptRule {
    const ACTIONS: &[(&str, InterceptAction)] =
        &[("intercept", InterceptAction::Intercept), ("pass", InterceptAction::Pass)];
    InterceptRule {
        name: s.read("name", String::new(), word()),
        domains: s.list("domains", Vec::new(), domain),
        ports: s.list("ports", Vec::new(), port_range()),
        clients: s.list("clients", Vec::new(), prefix()),
        users: s.list("users", Vec::new(), word()),
        contexts: s.list("contexts", Vec::new(), word()),
        containers: s.list("containers", Vec::new(), word()),
        captured_by: s.list("captured_by", Vec::new(), word()),
        // What stands in is of no account: that it is missing has been reported.
        action: s.required("action", choice(ACTIONS)).unwrap_or(InterceptAction::Pass),
        on_failure: s.read("on_failure", on_failure, choice(ON_FAILURE)),
    }
}
