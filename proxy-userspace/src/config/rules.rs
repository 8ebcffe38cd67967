//! `capture.rules`: one rule of the kernel half as it is written. What it comes to on this host (ids of cgroups, users
//! and files) is for `redirect::rules`.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::dns::domain;
use super::keys::{ERRNOS, FAIL_MODES};
use super::kinds::{Fault, choice, optional, path, port_range, prefix, switch, word};
use super::section::Section;
use super::{DenyErrno, Domain, FailMode, Prefix};

/// Most rules; the kernel half keeps a bit for each.
pub const MAX_RULES: usize = proxy_common::MAX_RULES as usize;

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It goes to the proxy.
    Redirect,
    /// It goes direct.
    Bypass,
    /// connect() fails.
    Deny,
}

/// What a rule can ask for; others are judged by none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    /// Each datagram of an unconnected socket, and each connect(). `redirect` lets it pass, but for QUIC.
    Udp,
}

/// One rule. It matches a connection that has every property it asks for; of a list, one must fit.
#[derive(Debug, Clone, PartialEq)]
pub struct CaptureRule {
    /// Told by `weir explain`, events and counters. Default `rule-` and its place, from 1.
    pub name: String,
    /// Only connections of `weir exec` programs and of what is selected as they are. Default false: all.
    pub selected: bool,
    /// cgroup v2 directories; what is below them matches too.
    pub cgroups: Vec<PathBuf>,
    /// Names of cgroups as systemd gives them to units: `nginx.service`.
    pub units: Vec<String>,
    /// Names or numbers of users.
    pub users: Vec<String>,
    /// Files that the process executes.
    pub executables: Vec<PathBuf>,
    pub destinations: Vec<Prefix>,
    /// Files with more destinations, one a line.
    pub destination_files: Vec<PathBuf>,
    /// Names that the destination was resolved from.
    pub domains: Vec<Domain>,
    /// Files with more domains, one a line.
    pub domain_files: Vec<PathBuf>,
    pub ports: Vec<RangeInclusive<u16>>,
    /// Default both.
    pub protocols: Vec<Protocol>,
    pub action: Action,
    /// The client's own words, SNI or Host, must name one of `domains`, too. Default false.
    pub strict: bool,
    /// Default `capture.fail`.
    pub fail: Option<FailMode>,
    /// Default `capture.errno`.
    pub errno: Option<DenyErrno>,
}

pub(super) fn read(s: &mut Section<'_, '_>) -> Vec<CaptureRule> {
    let mut rules = s.sections("rules", rule);
    for (index, rule) in rules.iter_mut().enumerate().filter(|(_, rule)| rule.name.is_empty()) {
        rule.name = format!("rule-{}", index + 1);
    }
    rules
}

fn rule(s: &mut Section<'_, '_>) -> CaptureRule {
    const ACTIONS: &[(&str, Action)] =
        &[("redirect", Action::Redirect), ("bypass", Action::Bypass), ("deny", Action::Deny)];
    const PROTOCOLS: &[(&str, Protocol)] = &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    CaptureRule {
        name: s.read("name", String::new(), word()),
        selected: s.read("selected", false, switch()),
        cgroups: s.list("cgroups", Vec::new(), path()),
        units: s.list("units", Vec::new(), unit),
        users: s.list("users", Vec::new(), word()),
        executables: s.list("executables", Vec::new(), path()),
        destinations: s.list("destinations", Vec::new(), prefix()),
        destination_files: s.list("destination_files", Vec::new(), path()),
        domains: s.list("domains", Vec::new(), domain),
        domain_files: s.list("domain_files", Vec::new(), path()),
        ports: s.list("ports", Vec::new(), port_range()),
        protocols: s.list("protocols", Vec::new(), choice(PROTOCOLS)),
        // What stands in is of no account: that it is missing has been reported.
        action: s.required("action", choice(ACTIONS)).unwrap_or(Action::Deny),
        strict: s.read("strict", false, switch()),
        fail: s.read("fail", None, optional(choice(FAIL_MODES))),
        errno: s.read("errno", None, optional(choice(ERRNOS))),
    }
}

/// A directory's name: `nginx.service`, `user.slice`.
fn unit(text: &str) -> Result<String, Fault> {
    if text.is_empty() || text.contains(['/', '\0']) || text == "." || text == ".." {
        return Err(format!("`{text}` is not the name of a unit, such as nginx.service").into());
    }
    Ok(text.to_owned())
}
