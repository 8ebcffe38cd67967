//! Finds the first rule that matches without a look at each: rules are found by host and by path, and only those that
//! fit both are asked for the rest. What a request costs grows with its own labels and segments, not with the rules.

use std::collections::HashMap;

use regex::{RegexSet, RegexSetBuilder};

use crate::config::{HostPattern, PathPattern, Rule};
use crate::http::authority::Host;

/// Rules by host.
#[derive(Debug, Default)]
pub(super) struct Index {
    exact: HashMap<Host, Paths>,
    /// By what follows the first label, from its dot on.
    below: HashMap<Box<str>, Paths>,
    any: Paths,
}

/// Rules of one host by path. Every list is in the order of the rules.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, Vec<usize>>,
    below: HashMap<Box<str>, Vec<usize>>,
    /// The longest key of `below`: longer parts of a path need not be looked up.
    longest: usize,
    any: Vec<usize>,
    regexes: Regexes,
}

/// All expressions are compared with a path at once.
#[derive(Debug, Default)]
struct Regexes {
    texts: Vec<Box<str>>,
    rules: Vec<usize>,
    /// None where one after the other has to do: they would be too large together.
    set: Option<RegexSet>,
}

/// The memory that all regular expressions of one host may take together, in bytes.
const REGEXES_SIZE: usize = 64 << 20;

/// The memory that a worker may use to compare with all of them in one pass; without it, that takes a thousand times as
/// long.
const REGEXES_CACHE: usize = 32 << 20;

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (number, rule) in rules.iter().enumerate() {
            let paths = match &rule.matches.host {
                None => &mut index.any,
                Some(HostPattern::Exact(host)) => index.exact.entry(host.clone()).or_default(),
                Some(HostPattern::Below(suffix)) => index.below.entry(suffix.clone()).or_default(),
            };
            paths.add(number, rule);
        }
        let all = index.exact.values_mut().chain(index.below.values_mut()).chain([&mut index.any]);
        all.for_each(|paths| paths.regexes.compile());
        index
    }

    /// The first rule for this host and path of which `holds` is true as well.
    pub(super) fn first(
        &self,
        host: Option<&Host>,
        path: &str,
        holds: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut best = usize::MAX;
        let mut look = |paths: &Paths| paths.improve(&mut best, path, &holds);
        look(&self.any);
        match host {
            None => {}
            Some(Host::Name(name)) => {
                // The root's dot changes nothing (RFC 3986 §3.2.2).
                let name = name.strip_suffix('.').unwrap_or(name);
                if !self.exact.is_empty()
                    && let Some(paths) = self.exact.get(&Host::Name(name.into()))
                {
                    look(paths);
                }
                if !self.below.is_empty() {
                    let dots = name.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
                    dots.filter_map(|at| self.below.get(&name[at..])).for_each(look);
                }
            }
            Some(address) => self.exact.get(address).into_iter().for_each(look),
        }
        (best != usize::MAX).then_some(best)
    }
}

impl Paths {
    fn add(&mut self, number: usize, rule: &Rule) {
        match (&rule.matches.path, &rule.matches.path_regex) {
            (Some(PathPattern::Exact(path)), _) => self.exact.entry(path.clone()).or_default().push(number),
            (Some(PathPattern::Below(path)), _) => {
                self.longest = self.longest.max(path.len());
                self.below.entry(path.clone()).or_default().push(number);
            }
            (None, Some(regex)) => {
                self.regexes.texts.push(regex.anchored().into());
                self.regexes.rules.push(number);
            }
            (None, None) => self.any.push(number),
        }
    }

    /// Lowers `best` to the first rule here that holds and comes before it.
    fn improve(&self, best: &mut usize, path: &str, holds: &impl Fn(usize) -> bool) {
        let mut look = |rules: &[usize]| {
            let earlier = rules.iter().take_while(|number| **number < *best);
            if let Some(found) = earlier.copied().find(|number| holds(*number)) {
                *best = found;
            }
        };
        look(&self.any);
        if !self.exact.is_empty() {
            self.exact.get(path).into_iter().for_each(|rules| look(rules));
        }
        if !self.below.is_empty() {
            // `/app/*` is for `/app` itself and for what has a slash behind it.
            let slashes = path.match_indices('/').map(|(at, _)| at).take_while(|at| *at <= self.longest);
            let whole = (path.len() <= self.longest).then_some(path.len());
            for end in slashes.chain(whole) {
                self.below.get(&path[..end]).into_iter().for_each(|rules| look(rules));
            }
        }
        if self.regexes.rules.first().is_some_and(|first| *first < *best) {
            self.regexes.improve(best, path, holds);
        }
    }
}

impl Regexes {
    fn compile(&mut self) {
        if !self.texts.is_empty() {
            let built = RegexSetBuilder::new(self.texts.iter().map(|text| &**text))
                .size_limit(REGEXES_SIZE)
                .dfa_size_limit(REGEXES_CACHE)
                .build();
            self.set = built.ok();
        }
    }

    fn improve(&self, best: &mut usize, path: &str, holds: &impl Fn(usize) -> bool) {
        let found = match &self.set {
            Some(set) => {
                let matches = set.matches(path);
                let mut rules = matches.iter().map(|index| self.rules[index]);
                rules.find(|number| *number < *best && holds(*number))
            }
            // `holds` compares the path as well.
            None => {
                self.rules.iter().copied().take_while(|number| *number < *best).find(|number| holds(*number))
            }
        };
        *best = found.unwrap_or(*best);
    }
}
