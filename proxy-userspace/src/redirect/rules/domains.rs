//! The domain names that rules ask for: which rules admit a name. Pure; a look-up is a binary search for the name and
//! one for each domain above it, whatever their number.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use proxy_common::RuleSet;

use crate::config::Domain;

/// Most names of all rules together.
pub(super) const MAX_DOMAINS: usize = 4_000_000;

/// Names of all rules, as they are read.
#[derive(Debug, Default)]
pub(super) struct Named {
    text: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    length: u8,
    below: bool,
    /// A rule, and later the number of a set.
    value: u32,
}

impl Named {
    pub(super) fn push(&mut self, domain: &Domain, rule: u8) {
        // 4 million names of 253 bytes are less than 2^32.
        let start = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        let length = u8::try_from(domain.name.len()).unwrap_or(u8::MAX);
        self.text.extend_from_slice(domain.name.as_bytes());
        self.entries.push(Entry { start, length, below: domain.below, value: rule.into() });
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= MAX_DOMAINS
    }
}

/// Names and the rules that admit them.
#[derive(Debug, Default)]
pub(in crate::redirect) struct Domains {
    text: Vec<u8>,
    /// In the order of their names.
    exact: Vec<Entry>,
    below: Vec<Entry>,
    sets: Vec<RuleSet>,
}

impl Domains {
    pub(super) fn new(named: Named) -> Self {
        let Named { text, mut entries } = named;
        let name = |entry: &Entry| name_of(&text, entry);
        entries.sort_unstable_by(|a, b| (a.below, name(a)).cmp(&(b.below, name(b))));
        let mut domains = Self::default();
        let mut numbers = HashMap::new();
        for same in entries.chunk_by(|a, b| a.below == b.below && name(a) == name(b)) {
            let mut set = RuleSet::EMPTY;
            same.iter().for_each(|entry| set.insert(entry.value));
            let next = u32::try_from(domains.sets.len()).unwrap_or(u32::MAX);
            let number = *numbers.entry(set).or_insert(next);
            if number == next {
                domains.sets.push(set);
            }
            let list = if same[0].below { &mut domains.below } else { &mut domains.exact };
            list.push(Entry { value: number, ..same[0] });
        }
        domains.exact.shrink_to_fit();
        domains.below.shrink_to_fit();
        Self { text, ..domains }
    }

    /// The rules that name it, or a domain above it. `name`: in lower case, without a dot at the end.
    pub(in crate::redirect) fn rules_of(&self, name: &str) -> RuleSet {
        let mut rules = self.find(&self.exact, name);
        let mut rest = name;
        while let Some((_, above)) = rest.split_once('.') {
            rules.unite(&self.find(&self.below, above));
            rest = above;
        }
        rules
    }

    fn find(&self, list: &[Entry], name: &str) -> RuleSet {
        let found = list.binary_search_by(|entry| name_of(&self.text, entry).cmp(name.as_bytes()));
        let set = found.ok().and_then(|at| self.sets.get(list[at].value as usize));
        set.copied().unwrap_or(RuleSet::EMPTY)
    }
}

fn name_of<'a>(text: &'a [u8], entry: &Entry) -> &'a [u8] {
    let start = entry.start as usize;
    &text[start..start + usize::from(entry.length)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_rules_that_name_it_and_those_of_the_domains_above_it() {
        let mut named = Named::default();
        for (rule, domain) in
            [(0, "a.example"), (1, "*.example"), (2, "*.a.example"), (3, "a.example"), (4, "*.b.example")]
        {
            named.push(&domain.parse().unwrap(), rule);
        }
        let domains = Domains::new(named);
        for (name, expected) in [
            ("a.example", &[0, 1, 3][..]),
            ("x.a.example", &[1, 2]),
            ("y.x.a.example", &[1, 2]),
            ("b.example", &[1]),
            ("z.b.example", &[1, 4]),
            ("example", &[]),
            ("aexample", &[]),
            ("", &[]),
        ] {
            let mut set = RuleSet::EMPTY;
            expected.iter().for_each(|rule| set.insert(*rule));
            assert_eq!(domains.rules_of(name), set, "{name}");
        }
    }

    #[test]
    fn a_million_names_are_looked_up_as_fast_as_a_few() {
        let mut named = Named::default();
        for number in 0..1_000_000 {
            let domain =
                Domain { name: format!("host-{number}.d{}.example", number % 1000), below: number % 2 == 0 };
            named.push(&domain, 7);
        }
        let domains = Domains::new(named);
        assert_eq!(domains.exact.len() + domains.below.len(), 1_000_000);
        assert!(domains.rules_of("host-77777.d777.example").contains(7));
        assert!(domains.rules_of("x.host-77778.d778.example").contains(7));
        assert!(domains.rules_of("host-77778.d778.example").is_empty());
    }
}
