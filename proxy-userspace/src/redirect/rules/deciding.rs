//! The rule behind a captured connection, for userspace: what it is called, and with `strict` which names its clients may
//! use. The kernel half records a number; two generations of rules have numbers of their own.
#![forbid(unsafe_code)]

use std::sync::{Arc, PoisonError, RwLock};

use proxy_common::{GENERATIONS, MAX_RULES, rule_number};

use crate::target::Rule;

use super::{Domains, RuleText};

/// Handle to the rules by number; cheap to clone, for any thread.
#[derive(Debug, Clone, Default)]
pub(in crate::redirect) struct Deciding(Arc<RwLock<[Vec<Arc<Decided>>; GENERATIONS as usize]>>);

#[derive(Debug)]
struct Decided {
    name: Arc<str>,
    number: u32,
    /// None: any name may be used.
    names: Option<Arc<Domains>>,
}

impl Rule for Decided {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn is_strict(&self) -> bool {
        self.names.is_some()
    }

    fn admits(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.names.as_ref().is_none_or(|names| names.rules_of(&name).contains(self.number))
    }
}

impl Deciding {
    /// The rules of a generation from now on.
    pub(super) fn replace(&self, generation: u32, rules: &[RuleText], domains: &Arc<Domains>) {
        let decided = |(number, text): (u32, &RuleText)| {
            let names = text.strict.then(|| Arc::clone(domains));
            Arc::new(Decided { name: Arc::clone(&text.name), number, names })
        };
        let rules = (0..).zip(rules).map(decided).collect();
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(its) = all.get_mut(generation as usize) {
            *its = rules;
        }
    }

    /// The rule that a record names; None: none did decide.
    pub(in crate::redirect) fn rule(&self, number: u32) -> Option<Arc<dyn Rule>> {
        let index = number.checked_sub(rule_number(0, 0))?;
        let (generation, rule) = (index / MAX_RULES, index % MAX_RULES);
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let rule = all.get(generation as usize)?.get(rule as usize)?;
        Some(Arc::clone(rule) as Arc<dyn Rule>)
    }
}
