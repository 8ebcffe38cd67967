//! From rules to what the kernel half looks up: a set of rules for each prefix, port and identity. Pure; asks nothing of
//! this host, and makes no map.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ops::RangeInclusive;

use proxy_common::{
    CLASS_ANY, IDENTITY_CGROUP, IDENTITY_EXECUTABLE, IDENTITY_UID, Identity, MAX_CLASSES, Policy, RuleSet,
    Ruleset, USES_CGROUP, USES_DESTINATION, USES_DOMAIN, USES_EXECUTABLE, USES_LOOPBACK, USES_PORT, USES_UID,
};

use crate::config::Prefix;

use super::RulesError;

/// A rule, as far as it doesn't depend on what exists on this host at the moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Rule {
    pub(super) policy: Policy,
    pub(super) selected: bool,
    /// It does not admit these.
    pub(super) not_tcp: bool,
    pub(super) not_udp: bool,
    pub(super) uids: Vec<u32>,
    pub(super) ports: Vec<RangeInclusive<u16>>,
    /// It asks for a destination; which ones is in the list of prefixes.
    pub(super) by_destination: bool,
    pub(super) by_cgroup: bool,
    pub(super) by_executable: bool,
    /// It asks for a name; which ones is in [`super::Domains`].
    pub(super) by_domain: bool,
}

/// Everything of a generation but the identities that come and go: cgroups and executables.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    pub(super) ruleset: Ruleset,
    pub(super) policies: Vec<Policy>,
    /// The rules of each class; entry 0 is no class.
    pub(super) classes: Vec<RuleSet>,
    /// Prefixes and their classes, no two alike.
    pub(super) prefixes: Vec<(Prefix, u32)>,
    /// Ports whose class is not `CLASS_ANY`.
    pub(super) ports: Vec<(u16, u32)>,
}

/// `prefixes`: each with the rule that names it, in any order.
///
/// # Errors
/// `TooManyClasses`.
pub(super) fn compile(rules: &[Rule], prefixes: Vec<(Prefix, u8)>) -> Result<Compiled, RulesError> {
    let mut ruleset = ruleset(rules);
    for (_, rule) in prefixes.iter().filter(|(prefix, _)| prefix.is_loopback()) {
        ruleset.loopback.insert(u32::from(*rule));
        ruleset.uses |= USES_LOOPBACK;
    }
    let mut classes = Classes::new();
    Ok(Compiled {
        prefixes: fold_prefixes(prefixes, &ruleset.any_destination, &mut classes)?,
        ports: fold_ports(rules, &ruleset.any_port, &mut classes)?,
        classes: classes.sets,
        policies: rules.iter().map(|rule| rule.policy).collect(),
        ruleset,
    })
}

fn ruleset(rules: &[Rule]) -> Ruleset {
    let mut set = Ruleset { rules: u32::try_from(rules.len()).unwrap_or(u32::MAX), ..Ruleset::default() };
    for (index, rule) in (0..).zip(rules) {
        for (admitted, set) in [
            (!rule.selected, &mut set.unselected),
            (!rule.not_tcp, &mut set.tcp),
            (!rule.not_udp, &mut set.udp),
        ] {
            if admitted {
                set.insert(index);
            }
        }
        for (asked, uses, any) in [
            (rule.by_destination, USES_DESTINATION, &mut set.any_destination),
            (!rule.ports.is_empty(), USES_PORT, &mut set.any_port),
            (!rule.uids.is_empty(), USES_UID, &mut set.any_uid),
            (rule.by_cgroup, USES_CGROUP, &mut set.any_cgroup),
            (rule.by_executable, USES_EXECUTABLE, &mut set.any_executable),
            (rule.by_domain, USES_DOMAIN, &mut set.any_domain),
        ] {
            if asked {
                set.uses |= uses;
            } else {
                any.insert(index);
            }
        }
    }
    set
}

/// Who is named, by kind, id and device; with the rules that admit it. The kernel half unites those of a cgroup and of
/// the ones above it, with `any_cgroup` too; of the others it finds one or none.
pub(super) fn identities(
    named: impl IntoIterator<Item = (u32, Identity)>,
    ruleset: &Ruleset,
) -> HashMap<Identity, RuleSet> {
    let mut identities: HashMap<Identity, RuleSet> = HashMap::new();
    for (rule, identity) in named {
        let base = match identity.kind {
            IDENTITY_UID => ruleset.any_uid,
            IDENTITY_EXECUTABLE => ruleset.any_executable,
            IDENTITY_CGROUP => RuleSet::EMPTY,
            other => unreachable!("identities of kind {other} are not made"),
        };
        identities.entry(identity).or_insert(base).insert(rule);
    }
    identities
}

/// Sets of rules by number, each once.
struct Classes {
    sets: Vec<RuleSet>,
    numbers: HashMap<RuleSet, u32>,
}

impl Classes {
    fn new() -> Self {
        Self { sets: vec![RuleSet::EMPTY], numbers: HashMap::new() }
    }

    fn number(&mut self, set: RuleSet, any: &RuleSet) -> Result<u32, RulesError> {
        if set == *any {
            return Ok(CLASS_ANY);
        }
        if let Some(number) = self.numbers.get(&set) {
            return Ok(*number);
        }
        let number = u32::try_from(self.sets.len()).unwrap_or(MAX_CLASSES);
        if number >= MAX_CLASSES {
            return Err(RulesError::TooManyClasses);
        }
        self.sets.push(set);
        self.numbers.insert(set, number);
        Ok(number)
    }
}

/// Gives each prefix the rules of those around it, too, so that the longest one tells everything. Those that would
/// tell nothing new are left out.
fn fold_prefixes(
    mut named: Vec<(Prefix, u8)>,
    any: &RuleSet,
    classes: &mut Classes,
) -> Result<Vec<(Prefix, u32)>, RulesError> {
    // Sorted, a prefix comes before all that it contains.
    named.sort_unstable();
    let mut folded = Vec::with_capacity(named.len() + 1);
    let mut around: Vec<(Prefix, RuleSet, u32)> = Vec::new();
    let mut mapped = false;
    for same in named.chunk_by(|a, b| a.0 == b.0) {
        let prefix = same[0].0;
        if !mapped && prefix >= Prefix::ALL_V4 {
            mapped = true;
            enter(Prefix::ALL_V4, *any, &mut around, &mut folded, any, classes)?;
        }
        while around.last().is_some_and(|(outer, ..)| !outer.contains(prefix)) {
            around.pop();
        }
        let mut set = around.last().map_or(*any, |(_, set, _)| *set);
        same.iter().for_each(|(_, rule)| set.insert(u32::from(*rule)));
        enter(prefix, set, &mut around, &mut folded, any, classes)?;
    }
    if !mapped {
        enter(Prefix::ALL_V4, *any, &mut around, &mut folded, any, classes)?;
    }
    Ok(folded)
}

fn enter(
    prefix: Prefix,
    set: RuleSet,
    around: &mut Vec<(Prefix, RuleSet, u32)>,
    folded: &mut Vec<(Prefix, u32)>,
    any: &RuleSet,
    classes: &mut Classes,
) -> Result<(), RulesError> {
    while around.last().is_some_and(|(outer, ..)| !outer.contains(prefix)) {
        around.pop();
    }
    let class = classes.number(set, any)?;
    let same_as_outer = around.last().map_or(CLASS_ANY, |(_, _, class)| *class) == class;
    around.push((prefix, set, class));
    match folded.last_mut() {
        // 0.0.0.0/0 was entered as the end of IPv6's rules, and is named as well.
        Some((last, its_class)) if *last == prefix => *its_class = class,
        _ if same_as_outer => {}
        _ => folded.push((prefix, class)),
    }
    Ok(())
}

fn fold_ports(rules: &[Rule], any: &RuleSet, classes: &mut Classes) -> Result<Vec<(u16, u32)>, RulesError> {
    if rules.iter().all(|rule| rule.ports.is_empty()) {
        return Ok(Vec::new());
    }
    let mut ports = Vec::new();
    for port in 0..=u16::MAX {
        let mut set = *any;
        for (index, rule) in (0..).zip(rules) {
            if rule.ports.iter().any(|range| range.contains(&port)) {
                set.insert(index);
            }
        }
        match classes.number(set, any)? {
            CLASS_ANY => {}
            class => ports.push((port, class)),
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rules: &[u32]) -> RuleSet {
        let mut set = RuleSet::EMPTY;
        rules.iter().for_each(|rule| set.insert(*rule));
        set
    }

    /// The rules of a destination, as the kernel half would find them: the longest prefix's class.
    fn rules_of(compiled: &Compiled, address: &str) -> RuleSet {
        let address: Prefix = address.parse().unwrap();
        let longest = compiled.prefixes.iter().filter(|(prefix, _)| prefix.contains(address));
        match longest.max_by_key(|(prefix, _)| prefix.length()) {
            Some((_, class)) if *class != CLASS_ANY => compiled.classes[*class as usize],
            _ => compiled.ruleset.any_destination,
        }
    }

    #[track_caller]
    fn check(named: &[(&str, u8)], rules: usize, expected: &[(&str, &[u32])]) {
        let by_destination = |index: usize| named.iter().any(|(_, rule)| usize::from(*rule) == index);
        let rules: Vec<Rule> = (0..rules)
            .map(|index| Rule { by_destination: by_destination(index), ..Rule::default() })
            .collect();
        for reversed in [false, true] {
            let mut prefixes: Vec<_> =
                named.iter().map(|(prefix, rule)| (prefix.parse().unwrap(), *rule)).collect();
            if reversed {
                prefixes.reverse();
            }
            let compiled = compile(&rules, prefixes).unwrap();
            for (address, expected) in expected {
                assert_eq!(rules_of(&compiled, address), set(expected), "{address} in {named:?}");
            }
        }
    }

    #[test]
    fn the_longest_prefix_has_the_rules_of_all_around_it() {
        check(
            &[("10.0.0.0/8", 0), ("10.1.0.0/16", 1), ("10.1.2.3", 0), ("10.1.0.0/16", 3), ("11.0.0.0/8", 1)],
            4,
            &[
                ("10.9.9.9", &[0, 2]),
                ("10.1.2.3", &[0, 1, 2, 3]),
                ("10.1.2.4", &[0, 1, 2, 3]),
                ("11.1.1.1", &[1, 2]),
                ("12.1.1.1", &[2]),
                ("2001:db8::1", &[2]),
            ],
        );
    }

    #[test]
    fn all_of_ipv6_is_not_all_of_ipv4() {
        let both: &[(&str, &[u32])] = &[("192.0.2.1", &[1]), ("2001:db8::1", &[0])];
        check(&[("::/0", 0), ("0.0.0.0/0", 1)], 2, both);
        check(&[("::/0", 0), ("192.0.2.0/24", 1)], 2, both);
        check(&[("::/0", 0), ("::/90", 0), ("128.0.0.0/1", 1), ("2001:db8::/32", 0)], 2, both);
        check(&[("::/0", 0)], 1, &[("192.0.2.1", &[]), ("2001:db8::1", &[0])]);
        check(&[("2001:db8::/32", 0)], 1, &[("192.0.2.1", &[]), ("2001:db8::1", &[0])]);
    }

    #[test]
    fn what_tells_nothing_new_is_left_out() {
        let rules = [Rule { by_destination: true, ..Rule::default() }];
        let prefixes = ["10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/16", "10.1.2.3"];
        let prefixes = prefixes.iter().map(|prefix| (prefix.parse().unwrap(), 0)).collect();
        let compiled = compile(&rules, prefixes).unwrap();
        assert_eq!(compiled.prefixes, [("10.0.0.0/8".parse().unwrap(), 1)]);
    }

    #[test]
    fn rules_that_name_loopback_are_known() {
        let rules = vec![Rule { by_destination: true, ..Rule::default() }; 4];
        let prefixes = [("0.0.0.0/0", 0), ("127.0.0.0/8", 1), ("::1", 2), ("::/0", 0), ("::/127", 3)];
        let prefixes = prefixes.iter().map(|(prefix, rule)| (prefix.parse().unwrap(), *rule)).collect();
        let ruleset = compile(&rules, prefixes).unwrap().ruleset;
        assert_eq!((ruleset.loopback, ruleset.uses), (set(&[1, 2]), USES_DESTINATION | USES_LOOPBACK));
        let named = compile(&rules, vec![("127.8.0.1".parse().unwrap(), 3)]).unwrap().ruleset;
        assert_eq!(named.loopback, set(&[3]));
        assert_eq!(compile(&rules, Vec::new()).unwrap().ruleset.uses & USES_LOOPBACK, 0);
    }

    #[test]
    fn ports_have_the_rules_that_name_them_and_those_that_name_none() {
        let rules = [
            Rule { ports: vec![80..=81, 443..=443], ..Rule::default() },
            Rule::default(),
            Rule { ports: vec![81..=90], ..Rule::default() },
        ];
        let compiled = compile(&rules, Vec::new()).unwrap();
        let of = |port: u16| {
            let class = compiled.ports.iter().find(|(entry, _)| *entry == port).map(|(_, class)| *class);
            class.map_or(compiled.ruleset.any_port, |class| compiled.classes[class as usize])
        };
        assert_eq!(of(80), set(&[0, 1]));
        assert_eq!(of(81), set(&[0, 1, 2]));
        assert_eq!(of(90), set(&[1, 2]));
        assert_eq!(of(443), set(&[0, 1]));
        assert_eq!(of(444), set(&[1]));
        assert_eq!(compiled.ruleset.uses, USES_PORT);
    }

    #[test]
    fn sets_find_their_first_rule() {
        for rule in 0..proxy_common::MAX_RULES {
            assert_eq!(set(&[rule, 255]).first(), rule);
            assert!(set(&[rule]).contains(rule));
        }
        assert_eq!(RuleSet::EMPTY.first(), proxy_common::MAX_RULES);
    }
}
