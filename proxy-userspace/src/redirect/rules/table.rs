//! The rules in force: the kernel half's maps, and what userspace has to know of them.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{
    Array, ArrayOfMaps, HashMap as KernelMap, Map, MapData, PerCpuArray, PerCpuValues, lpm_trie,
};
use proxy_common::{
    CLASS_ANY, GENERATIONS, IDENTITY_CGROUP, IDENTITY_UID, Identity, MAX_RULES, Policy, RuleSet, Ruleset,
    USES_DOMAIN, rule_number,
};
use serde::Serialize;

use crate::config::{Action, Protocol};
use crate::redirect::error::RedirectError;
use crate::redirect::load::{map_fd, take_map};
use crate::redirect::names::{InForce, Names};
use crate::redirect::sys;

use super::{
    ClassSets, Deciding, MAX_IDENTITIES, NO_FLAGS, PortClasses, Prefixes, Prepared, RuleText, RulesError,
    is_absent, look,
};

/// A rule in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleState {
    pub name: String,
    /// `redirect`, `bypass` or `deny`.
    pub action: &'static str,
    /// How often it was the first to match.
    pub hits: u64,
    /// What it names and this host doesn't have at the moment: cgroups, units, executables.
    pub missing: Vec<String>,
}

/// What is asked of the rules in place of a connection.
pub(in crate::redirect) struct Question {
    pub(in crate::redirect) destination: SocketAddr,
    pub(in crate::redirect) protocol: Protocol,
    pub(in crate::redirect) uid: u32,
    /// Its cgroup and those above it.
    pub(in crate::redirect) cgroups: Vec<u64>,
    pub(in crate::redirect) selected: bool,
    pub(in crate::redirect) executable: Option<Identity>,
    /// The rules that admit its destination by its names; None where no rule asks for one.
    pub(in crate::redirect) by_name: Option<RuleSet>,
    /// Only rules that name loopback hold.
    pub(in crate::redirect) by_loopback: bool,
}

pub(in crate::redirect) struct Table {
    active: Array<MapData, u32>,
    rulesets: Array<MapData, Ruleset>,
    rules: Array<MapData, Policy>,
    hits: PerCpuArray<MapData, u64>,
    identities: KernelMap<MapData, Identity, RuleSet>,
    prefixes: ArrayOfMaps<MapData, Prefixes>,
    ports: ArrayOfMaps<MapData, PortClasses>,
    classes: ArrayOfMaps<MapData, ClassSets>,
    /// The maps of maps again, to take entries out.
    of_maps: Vec<OwnedFd>,
    /// For whoever accepts what rules redirect.
    deciding: Deciding,
    installed: Option<Installed>,
}

/// What is in force.
struct Installed {
    generation: u32,
    prepared: Prepared,
    identities: HashMap<Identity, RuleSet>,
    missing: Vec<(u32, String)>,
}

const OF_MAPS: [&str; 3] = ["PREFIXES", "PORT_CLASSES", "CLASSES"];

impl Table {
    pub(in crate::redirect) fn new(ebpf: &mut Ebpf) -> Result<Self, RedirectError> {
        let of_maps = OF_MAPS.map(|name| match ebpf.map(name) {
            Some(Map::ArrayOfMaps(map)) => map_fd(map),
            _ => Err(RedirectError::Mismatch(name)),
        });
        Ok(Self {
            of_maps: of_maps.into_iter().collect::<Result<_, _>>()?,
            active: take_map(ebpf, "ACTIVE")?,
            rulesets: take_map(ebpf, "RULESETS")?,
            rules: take_map(ebpf, "RULES")?,
            hits: take_map(ebpf, "RULE_HITS")?,
            identities: take_map(ebpf, "IDENTITIES")?,
            prefixes: take_map(ebpf, "PREFIXES")?,
            ports: take_map(ebpf, "PORT_CLASSES")?,
            classes: take_map(ebpf, "CLASSES")?,
            deciding: Deciding::default(),
            installed: None,
        })
    }

    /// Puts the rules in force, in place of those that are.
    ///
    /// # Errors
    /// The kernel refuses; those in force stay.
    pub(in crate::redirect) fn install(
        &mut self,
        prepared: Prepared,
        names: &Names,
    ) -> Result<(), RulesError> {
        let generation = self.installed.as_ref().map_or(0, |old| (old.generation + 1) % GENERATIONS);
        let (identities, missing) = prepared.look(generation);
        if identities.len() > MAX_IDENTITIES {
            return Err(RulesError::TooManyIdentities);
        }
        // Before a record may name them.
        self.deciding.replace(generation, &prepared.rules, &prepared.domains);
        // Nothing is learned meanwhile.
        let mut known = names.lock();
        let by_name = prepared.by_name(generation);
        let written = by_name.as_ref().map_or(Ok(()), |next| known.prepare(next));
        let written = written.and_then(|()| self.write(generation, &prepared, &identities));
        let flipped =
            written.and_then(|()| self.active.set(0, generation, NO_FLAGS).map_err(refused("ACTIVE")));
        if let Err(error) = flipped {
            known.clear(generation);
            self.clear(generation, identities.keys());
            return Err(error);
        }
        known.replace(by_name);
        drop(known);
        let new = Installed { generation, prepared, identities, missing };
        let Some(old) = self.installed.replace(new) else { return Ok(()) };
        // Setting an entry of a map of maps returns when no program runs any more that may have begun with the old
        // generation (`maybe_wait_bpf_programs` of the kernel's bpf/syscall.c): it can go.
        if let Some(new) = &self.installed {
            self.classes.set(generation, &new.prepared.classes, NO_FLAGS).map_err(refused("CLASSES"))?;
        }
        self.clear(old.generation, old.identities.keys());
        Ok(())
    }

    fn write(
        &mut self,
        generation: u32,
        prepared: &Prepared,
        identities: &HashMap<Identity, RuleSet>,
    ) -> Result<(), RulesError> {
        if let Some(prefixes) = &prepared.prefixes {
            self.prefixes.set(generation, prefixes, NO_FLAGS).map_err(refused("PREFIXES"))?;
        }
        if let Some(ports) = &prepared.ports {
            self.ports.set(generation, ports, NO_FLAGS).map_err(refused("PORT_CLASSES"))?;
        }
        self.classes.set(generation, &prepared.classes, NO_FLAGS).map_err(refused("CLASSES"))?;
        for (identity, rules) in identities {
            self.identities.insert(identity, rules, NO_FLAGS).map_err(refused("IDENTITIES"))?;
        }
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| aya::maps::MapError::IoError(error));
        let cpus = cpus.map_err(refused("RULE_HITS"))?;
        for (rule, policy) in (0..).zip(&prepared.compiled.policies) {
            let index = generation * MAX_RULES + rule;
            let policy = Policy { rule: rule_number(generation, rule), ..*policy };
            self.rules.set(index, policy, NO_FLAGS).map_err(refused("RULES"))?;
            let zero = PerCpuValues::try_from(vec![0; cpus]).map_err(aya::maps::MapError::IoError);
            let zero = zero.map_err(refused("RULE_HITS"))?;
            self.hits.set(index, zero, NO_FLAGS).map_err(refused("RULE_HITS"))?;
        }
        self.rulesets.set(generation, prepared.compiled.ruleset, NO_FLAGS).map_err(refused("RULESETS"))
    }

    /// Frees what a generation that isn't in force holds. What the kernel won't give back stays until the next time.
    fn clear<'a>(&mut self, generation: u32, identities: impl Iterator<Item = &'a Identity>) {
        for map in &self.of_maps {
            let _ = sys::delete(map.as_fd(), &generation);
        }
        for identity in identities {
            let _ = self.identities.remove(identity);
        }
    }

    /// Looks again for cgroups and executables that the rules name. To be called every now and then.
    ///
    /// # Errors
    /// The kernel refuses to take note of what was found.
    pub(in crate::redirect) fn refresh(&mut self) -> Result<(), RulesError> {
        let Some(installed) = &mut self.installed else { return Ok(()) };
        let prepared = &installed.prepared;
        if prepared.wanted.is_empty() {
            return Ok(());
        }
        let (found, missing) =
            look(&prepared.place, &prepared.uids, &prepared.wanted, &prepared.compiled, installed.generation);
        installed.missing = missing;
        if found.len() > MAX_IDENTITIES {
            return Err(RulesError::TooManyIdentities);
        }
        for (identity, rules) in &found {
            if installed.identities.get(identity) != Some(rules) {
                self.identities.insert(identity, rules, NO_FLAGS).map_err(refused("IDENTITIES"))?;
            }
        }
        for identity in installed.identities.keys().filter(|identity| !found.contains_key(identity)) {
            let _ = self.identities.remove(identity);
        }
        installed.identities = found;
        Ok(())
    }

    pub(in crate::redirect) fn deciding(&self) -> Deciding {
        self.deciding.clone()
    }

    pub(in crate::redirect) fn identities(&self) -> &KernelMap<MapData, Identity, RuleSet> {
        &self.identities
    }

    pub(in crate::redirect) fn state(&self) -> Vec<RuleState> {
        let Some(installed) = &self.installed else { return Vec::new() };
        let missing = |rule| {
            let its = installed.missing.iter().filter(move |(number, _)| *number == rule);
            its.map(|(_, what)| what.clone()).collect()
        };
        let state = |(rule, text): (u32, &RuleText)| RuleState {
            name: text.name.to_string(),
            action: action_name(text.action),
            hits: self.hits(installed.generation * MAX_RULES + rule),
            missing: missing(rule),
        };
        (0..).zip(&installed.prepared.rules).map(state).collect()
    }

    /// The first rule that would match, asked of the same maps.
    pub(in crate::redirect) fn first_match(&self, question: &Question) -> Option<(String, Policy)> {
        let installed = self.installed.as_ref()?;
        let ruleset = &installed.prepared.compiled.ruleset;
        let mut matching = ruleset.any_cgroup;
        for id in &question.cgroups {
            let identity = Identity { kind: IDENTITY_CGROUP, id: *id, ..Identity::default() };
            if let Some(rules) = installed.rules_of(identity) {
                matching.unite(&rules);
            }
        }
        if !question.selected {
            matching.intersect(&ruleset.unselected);
        }
        if question.by_loopback {
            matching.intersect(&ruleset.loopback);
        }
        matching.intersect(&ruleset.of_transport(question.protocol == Protocol::Udp));
        matching.intersect(&installed.of_destination(question.destination.ip()));
        matching.intersect(&installed.of_port(question.destination.port()));
        let uid = Identity { kind: IDENTITY_UID, id: u64::from(question.uid), ..Identity::default() };
        matching.intersect(&installed.rules_of(uid).unwrap_or(ruleset.any_uid));
        let executable = question.executable.and_then(|identity| installed.rules_of(identity));
        matching.intersect(&executable.unwrap_or(ruleset.any_executable));
        matching.intersect(&question.by_name.unwrap_or(ruleset.any_domain));
        let rule = matching.first() as usize;
        let text = installed.prepared.rules.get(rule)?;
        Some((text.name.to_string(), *installed.prepared.compiled.policies.get(rule)?))
    }

    fn hits(&self, index: u32) -> u64 {
        self.hits.get(&index, NO_FLAGS).map_or(0, |per_cpu| per_cpu.iter().sum())
    }
}

impl Prepared {
    /// What is to be known of names; None: no rule asks for one.
    fn by_name(&self, generation: u32) -> Option<InForce> {
        let ruleset = &self.compiled.ruleset;
        let asked = ruleset.uses & USES_DOMAIN != 0;
        asked.then(|| InForce { generation, domains: Arc::clone(&self.domains), any: ruleset.any_domain })
    }
}

impl Installed {
    fn rules_of(&self, identity: Identity) -> Option<RuleSet> {
        self.identities.get(&Identity { generation: self.generation, ..identity }).copied()
    }

    fn of_destination(&self, address: IpAddr) -> RuleSet {
        let any = self.prepared.compiled.ruleset.any_destination;
        let Some(prefixes) = &self.prepared.prefixes else { return any };
        let octets = match address.to_canonical() {
            // As `arrival` in proxy-ebpf's local.rs.
            IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.octets(),
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        match prefixes.get(&lpm_trie::Key::new(u128::BITS, octets), NO_FLAGS) {
            Ok(class) => self.class(class, any),
            Err(error) => {
                debug_assert!(is_absent(&error), "{error}");
                any
            }
        }
    }

    fn of_port(&self, port: u16) -> RuleSet {
        let any = self.prepared.compiled.ruleset.any_port;
        let class = self.prepared.ports.as_ref().and_then(|map| map.get(&u32::from(port), NO_FLAGS).ok());
        class.map_or(any, |class| self.class(class, any))
    }

    fn class(&self, class: u32, any: RuleSet) -> RuleSet {
        if class == CLASS_ANY {
            return any;
        }
        self.prepared.compiled.classes.get(class as usize).copied().unwrap_or(any)
    }
}

fn action_name(action: Action) -> &'static str {
    match action {
        Action::Redirect => "redirect",
        Action::Bypass => "bypass",
        Action::Deny => "deny",
    }
}

fn refused(map: &'static str) -> impl Fn(aya::maps::MapError) -> RulesError {
    move |source| RulesError::Map { map, source }
}
