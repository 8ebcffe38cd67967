//! The ordered rules of the configuration, put into the kernel half's maps and replaced there as a whole.
//!
//! `Prepared` is a set of rules with its maps, filled, but not in force: that takes its time with a million
//! destinations, and nobody waits for it. `Table::install` then writes what is left and flips one number: a connection
//! is judged by the old rules or by the new ones, never by neither. Which rule matches is decided in proxy-ebpf.
#![forbid(unsafe_code)]

mod compile;
mod deciding;
mod domains;
mod error;
pub(super) mod host;
mod table;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use aya::maps::{Array, LpmTrie, MapData, MapError, lpm_trie};
use proxy_common::{
    ACTION_BYPASS, ACTION_DENY, ACTION_REDIRECT, ERRNO_REFUSED, ERRNO_UNREACHABLE, FAIL_CLOSED, FAIL_OPEN,
    IDENTITY_UID, Identity, MAX_CLASSES, PORTS, Policy, RuleSet,
};

use crate::config::{self, Action, CaptureRule, DenyErrno, FailMode, Protocol};

use super::{load, support};
use compile::{Compiled, Rule};
use domains::Named;
use host::{Look, Wanted};

pub(super) use deciding::Deciding;
pub(super) use domains::Domains;
pub use error::RulesError;
pub use table::RuleState;
pub(super) use table::{Question, Table};

/// Users, cgroups and executables of all rules together.
const MAX_IDENTITIES: usize = 8192;
/// Entries of the map `IDENTITIES`: both generations.
pub(super) const IDENTITY_CAPACITY: u32 = 2 * MAX_IDENTITIES as u32;

/// `BPF_F_NO_PREALLOC`, which the kernel wants for a trie.
const NO_PREALLOC: u32 = 1;
const NO_FLAGS: u64 = 0;

type Prefixes = LpmTrie<MapData, [u8; 16], u32>;
type PortClasses = Array<MapData, u32>;
type ClassSets = Array<MapData, RuleSet>;

/// Rules ready to be put in force. Not in force, they cost memory and nothing else.
pub struct Prepared {
    rules: Vec<RuleText>,
    compiled: Compiled,
    uids: Vec<(u32, Identity)>,
    wanted: Vec<(u32, Wanted)>,
    place: Place,
    domains: Arc<Domains>,
    prefixes: Option<Prefixes>,
    ports: Option<PortClasses>,
    classes: ClassSets,
}

/// What is told of a rule.
#[derive(Debug, Clone)]
struct RuleText {
    name: Arc<str>,
    action: Action,
    strict: bool,
}

impl RuleText {
    fn new(rule: &CaptureRule) -> Self {
        Self { name: rule.name.as_str().into(), action: rule.action, strict: rule.strict }
    }
}

/// Where cgroups are looked for.
#[derive(Debug, Clone)]
struct Place {
    mount: PathBuf,
    attach: PathBuf,
}

impl Prepared {
    /// Reads the destination files, finds users, and fills the maps that a generation has for itself.
    ///
    /// # Errors
    /// What is wrong with the rules, or that the kernel has no room for them.
    pub fn new(capture: &config::Capture) -> Result<Self, super::RedirectError> {
        let (mount, attach) = support::attach_cgroup(capture)?;
        let place = Place { mount: mount.point, attach: attach.path };
        Ok(Self::of_rules(capture, place)?)
    }

    /// Looks up what the rules name and must be there: users, and files with destinations and domains. Makes no map.
    ///
    /// # Errors
    /// What is wrong with the rules.
    pub fn check(capture: &config::Capture) -> Result<(), RulesError> {
        let (mut destinations, mut domains) = (Vec::new(), Named::default());
        for (number, rule) in (0..=u8::MAX).zip(&capture.rules) {
            host::destinations(rule, number, &mut destinations)?;
            host::domains(rule, number, &mut domains)?;
            host::uids(rule)?;
        }
        Ok(())
    }

    fn of_rules(capture: &config::Capture, place: Place) -> Result<Self, RulesError> {
        let (mut rules, mut destinations, mut uids, mut wanted) =
            <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
        let mut domains = Named::default();
        let by_executable = capture.rules.iter().find(|rule| !rule.executables.is_empty());
        if let Some(rule) = by_executable
            && load::task_layout().is_none()
        {
            return Err(RulesError::NoExecutables { rule: rule.name.clone() });
        }
        for (number, rule) in (0..=u8::MAX).zip(&capture.rules) {
            host::destinations(rule, number, &mut destinations)?;
            host::domains(rule, number, &mut domains)?;
            let its_uids = host::uids(rule)?;
            let number = u32::from(number);
            let identity =
                |uid: &u32| Identity { kind: IDENTITY_UID, id: u64::from(*uid), ..Identity::default() };
            uids.extend(its_uids.iter().map(|uid| (number, identity(uid))));
            wanted.extend(Wanted::of(rule).into_iter().map(|wanted| (number, wanted)));
            rules.push(compilable(rule, its_uids, capture));
        }
        let compiled = compile::compile(&rules, destinations)?;
        Ok(Self {
            rules: capture.rules.iter().map(RuleText::new).collect(),
            prefixes: prefixes_map(&compiled)?,
            ports: ports_map(&compiled)?,
            classes: classes_map(&compiled)?,
            domains: Arc::new(Domains::new(domains)),
            uids,
            wanted,
            place,
            compiled,
        })
    }

    /// Everybody whom the rules name and who exists, and what was not found.
    fn look(&self, generation: u32) -> (HashMap<Identity, RuleSet>, Vec<(u32, String)>) {
        look(&self.place, &self.uids, &self.wanted, &self.compiled, generation)
    }
}

fn look(
    place: &Place,
    uids: &[(u32, Identity)],
    wanted: &[(u32, Wanted)],
    compiled: &Compiled,
    generation: u32,
) -> (HashMap<Identity, RuleSet>, Vec<(u32, String)>) {
    let mut look = Look::new(&place.mount, &place.attach);
    let mut named = uids.to_vec();
    let mut missing = Vec::new();
    for (rule, wanted) in wanted {
        let found = look.find(wanted);
        if found.is_empty() {
            missing.push((*rule, wanted.describe()));
        }
        named.extend(found.into_iter().map(|identity| (*rule, identity)));
    }
    let named = named.into_iter().map(|(rule, identity)| (rule, Identity { generation, ..identity }));
    (compile::identities(named, &compiled.ruleset), missing)
}

fn compilable(rule: &CaptureRule, uids: Vec<u32>, capture: &config::Capture) -> Rule {
    Rule {
        policy: policy(decided(rule), rule.fail.unwrap_or(capture.fail), rule.errno.unwrap_or(capture.errno)),
        selected: rule.selected,
        not_tcp: rule.protocols == [Protocol::Udp],
        not_udp: rule.protocols == [Protocol::Tcp],
        uids,
        ports: rule.ports.clone(),
        by_destination: !(rule.destinations.is_empty() && rule.destination_files.is_empty()),
        by_cgroup: !(rule.cgroups.is_empty() && rule.units.is_empty()),
        by_executable: !rule.executables.is_empty(),
        by_domain: !(rule.domains.is_empty() && rule.domain_files.is_empty()),
    }
}

/// What a strict rule lets through, it lets through userspace, which looks at the names that are used.
fn decided(rule: &CaptureRule) -> Action {
    if rule.strict { Action::Redirect } else { rule.action }
}

/// As the kernel half reads it.
pub(super) fn policy(action: Action, fail: FailMode, errno: DenyErrno) -> Policy {
    Policy {
        action: match action {
            Action::Redirect => ACTION_REDIRECT,
            Action::Bypass => ACTION_BYPASS,
            Action::Deny => ACTION_DENY,
        },
        fail: match fail {
            FailMode::Open => FAIL_OPEN,
            FailMode::Closed => FAIL_CLOSED,
        },
        errno: match errno {
            DenyErrno::Refused => ERRNO_REFUSED,
            DenyErrno::HostUnreachable => ERRNO_UNREACHABLE,
        },
        rule: 0,
    }
}

fn prefixes_map(compiled: &Compiled) -> Result<Option<Prefixes>, RulesError> {
    if compiled.prefixes.is_empty() {
        return Ok(None);
    }
    let refused = |source| RulesError::Map { map: "PREFIXES", source };
    let entries = u32::try_from(compiled.prefixes.len()).unwrap_or(u32::MAX);
    let mut map = Prefixes::create(entries, NO_PREALLOC).map_err(refused)?;
    for (prefix, class) in &compiled.prefixes {
        let key = lpm_trie::Key::new(u32::from(prefix.length()), prefix.octets());
        map.insert(&key, class, NO_FLAGS).map_err(refused)?;
    }
    Ok(Some(map))
}

fn ports_map(compiled: &Compiled) -> Result<Option<PortClasses>, RulesError> {
    if compiled.ports.is_empty() {
        return Ok(None);
    }
    let refused = |source| RulesError::Map { map: "PORT_CLASSES", source };
    let mut map = PortClasses::create(PORTS, 0).map_err(refused)?;
    for (port, class) in &compiled.ports {
        map.set(u32::from(*port), class, NO_FLAGS).map_err(refused)?;
    }
    Ok(Some(map))
}

fn classes_map(compiled: &Compiled) -> Result<ClassSets, RulesError> {
    let refused = |source| RulesError::Map { map: "CLASSES", source };
    let mut map = ClassSets::create(MAX_CLASSES, 0).map_err(refused)?;
    for (class, set) in (0..).zip(&compiled.classes) {
        map.set(class, set, NO_FLAGS).map_err(refused)?;
    }
    Ok(map)
}

// The kernel half is told numbers; elsewhere they may be others.
const _: () = assert!(ERRNO_REFUSED == libc::ECONNREFUSED.cast_unsigned());
const _: () = assert!(ERRNO_UNREACHABLE == libc::EHOSTUNREACH.cast_unsigned());

/// Whether the key was not there.
fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}
