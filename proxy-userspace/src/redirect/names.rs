//! The names of addresses, as far as answers of DNS have told them; and what the kernel half needs of them: for each
//! address the rules that ask for one of its names.
//!
//! Userspace alone writes that map, so it knows what is in it: when rules are replaced, the names known are judged by
//! the new ones before these hold.
#![forbid(unsafe_code)]

use std::collections::{self, BTreeMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aya::maps::{HashMap, MapData};
use proxy_common::{NameKey, NameRules, RuleSet};

use super::original::words;
use super::rules::Domains;
use super::{RulesError, monotonic_ns};

/// Names of one address that are kept; the one known longest goes first.
const MAX_NAMES_EACH: usize = 64;

const NO_FLAGS: u64 = 0;

/// Handle to what is known; cheap to clone, for any thread.
#[derive(Debug, Clone)]
pub struct Names {
    known: Arc<Mutex<Known>>,
    /// What the kernel half calls weir's own network namespace.
    home: u64,
}

#[derive(Debug)]
pub(super) struct Known {
    map: HashMap<MapData, NameKey, NameRules>,
    in_force: Option<InForce>,
    capacity: usize,
    grace: Duration,
    addresses: collections::HashMap<Place, Address>,
    /// By the time of their last resolution.
    recent: BTreeMap<u64, Place>,
    resolutions: u64,
}

/// A network namespace's cookie, an address in it, and its names, each with the time (nanoseconds of CLOCK_MONOTONIC)
/// until which it is known.
pub type KnownNames = (u64, IpAddr, Vec<(Arc<str>, u64)>);

/// An address in a network namespace.
type Place = (u64, IpAddr);

#[derive(Debug)]
struct Address {
    /// With the time, in nanoseconds of CLOCK_MONOTONIC, until which each is known.
    names: Vec<(Arc<str>, u64)>,
    last: u64,
    /// The kernel half knows it.
    is_told: bool,
}

/// What rules ask for.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    pub(super) generation: u32,
    pub(super) domains: Arc<Domains>,
    /// The rules that ask for no name.
    pub(super) any: RuleSet,
}

impl Names {
    pub(super) fn new(
        map: HashMap<MapData, NameKey, NameRules>,
        capacity: u32,
        grace: Duration,
        home: u64,
    ) -> Self {
        let known = Known {
            map,
            in_force: None,
            capacity: capacity as usize,
            grace,
            addresses: collections::HashMap::new(),
            recent: BTreeMap::new(),
            resolutions: 0,
        };
        Self { known: Arc::new(Mutex::new(known)), home }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that these names, in lower case, lead to these addresses, each for the time given and
    /// `capture.dns.grace`. `netns`: where they were resolved; None is weir's own. When it returns, rules know it.
    pub fn learn(
        &self,
        netns: Option<u64>,
        names: &[&str],
        addresses: impl Iterator<Item = (IpAddr, Duration)>,
    ) {
        let Ok(now) = monotonic_ns() else { return };
        let names: Vec<Arc<str>> = names.iter().map(|name| Arc::from(*name)).collect();
        let mut known = self.lock();
        for (address, ttl) in addresses {
            let place = (netns.unwrap_or(self.home), address.to_canonical());
            let until = now.saturating_add(nanoseconds(ttl + known.grace));
            known.note(place, &names, until, now);
        }
    }

    /// All that is known, the address resolved last at the end: for the weir that takes this one's place.
    #[must_use]
    pub fn all(&self) -> Vec<KnownNames> {
        let known = self.lock();
        let places = known.recent.values().filter_map(|place| Some((place, known.addresses.get(place)?)));
        places.map(|(&(netns, address), known)| (netns, address, known.names.clone())).collect()
    }

    /// Takes note of what an earlier weir of this machine knew.
    pub fn adopt(&self, names: Vec<KnownNames>) {
        let Ok(now) = monotonic_ns() else { return };
        let mut known = self.lock();
        for (netns, address, names) in names {
            for (name, until) in names.into_iter().filter(|(_, until)| *until > now) {
                known.note((netns, address), &[name], until, now);
            }
        }
    }

    /// The names that an address has now, the one learned last at the end.
    #[must_use]
    pub fn of(&self, netns: Option<u64>, address: IpAddr) -> Vec<Arc<str>> {
        let now = monotonic_ns().unwrap_or(0);
        let known = self.lock();
        let address = known.addresses.get(&(netns.unwrap_or(self.home), address.to_canonical()));
        let names = address.into_iter().flat_map(|address| &address.names);
        names.filter(|(_, until)| *until > now).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// The rules that admit an address by its names.
    pub(super) fn rules_of(&self, netns: Option<u64>, address: IpAddr) -> Option<RuleSet> {
        let in_force = self.lock().in_force.clone()?;
        let mut rules = in_force.any;
        self.of(netns, address).iter().for_each(|name| rules.unite(&in_force.domains.rules_of(name)));
        Some(rules)
    }

    /// Forgets names that have expired. To be called every now and then.
    pub fn sweep(&self) {
        let Ok(now) = monotonic_ns() else { return };
        let mut known = self.lock();
        let expired = |address: &Address| address.names.iter().any(|(_, until)| *until <= now);
        let places = known.addresses.iter().filter(|(_, address)| expired(address));
        let places: Vec<Place> = places.map(|(place, _)| *place).collect();
        for place in places {
            known.expire(place, now);
        }
    }

    /// Forgets what was resolved in a network namespace that is gone.
    pub(super) fn forget(&self, netns: u64) {
        let mut known = self.lock();
        let places = known.addresses.keys().filter(|(its, _)| *its == netns);
        let places: Vec<Place> = places.copied().collect();
        for place in places {
            known.remove(place);
        }
    }

    /// How many addresses have names.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().addresses.len()
    }
}

impl Known {
    fn note(&mut self, place: Place, names: &[Arc<str>], until: u64, now: u64) {
        if !self.addresses.contains_key(&place)
            && self.addresses.len() >= self.capacity
            && let Some((_, oldest)) = self.recent.first_key_value()
        {
            let oldest = *oldest;
            self.remove(oldest);
        }
        self.resolutions += 1;
        let resolution = self.resolutions;
        let new = || Address { names: Vec::new(), last: resolution, is_told: false };
        let address = self.addresses.entry(place).or_insert_with(new);
        self.recent.remove(&address.last);
        self.recent.insert(resolution, place);
        address.last = resolution;
        address.names.retain(|(_, until)| *until > now);
        for name in names {
            let known = address.names.iter().position(|(its, _)| its == name);
            // Learned last stands last. Never sooner forgotten than was said before.
            let until = known.map_or(until, |at| address.names.remove(at).1.max(until));
            address.names.push((Arc::clone(name), until));
        }
        if let Some(too_many) = address.names.len().checked_sub(MAX_NAMES_EACH) {
            address.names.drain(..too_many);
        }
        self.tell(place);
    }

    fn expire(&mut self, place: Place, now: u64) {
        let Some(address) = self.addresses.get_mut(&place) else { return };
        address.names.retain(|(_, until)| *until > now);
        if address.names.is_empty() { self.remove(place) } else { self.tell(place) }
    }

    fn remove(&mut self, place: Place) {
        let Some(address) = self.addresses.remove(&place) else { return };
        self.recent.remove(&address.last);
        if let Some(in_force) = &self.in_force
            && address.is_told
        {
            let _ = self.map.remove(&key(in_force.generation, place));
        }
    }

    /// Brings what the kernel half knows of an address up to date.
    fn tell(&mut self, place: Place) {
        let Some(in_force) = self.in_force.clone() else { return };
        let Some(address) = self.addresses.get_mut(&place) else { return };
        let key = key(in_force.generation, place);
        match rules_of(&address.names, &in_force) {
            Some(rules) => {
                // There is room for `capacity` of each generation.
                address.is_told = self.map.insert(key, rules, NO_FLAGS).is_ok();
            }
            None if address.is_told => {
                let _ = self.map.remove(&key);
                address.is_told = false;
            }
            None => {}
        }
    }

    /// Writes what the rules that are about to hold say of all names that are known.
    pub(super) fn prepare(&mut self, next: &InForce) -> Result<(), RulesError> {
        for (place, address) in &self.addresses {
            if let Some(rules) = rules_of(&address.names, next) {
                let written = self.map.insert(key(next.generation, *place), rules, NO_FLAGS);
                written.map_err(|source| RulesError::Map { map: "NAMES", source })?;
            }
        }
        Ok(())
    }

    /// `next` holds from now on, or nothing that asks for names.
    pub(super) fn replace(&mut self, next: Option<InForce>) {
        let old = self.in_force.take();
        for (place, address) in &mut self.addresses {
            if let Some(old) = &old
                && address.is_told
            {
                let _ = self.map.remove(&key(old.generation, *place));
            }
            address.is_told = next.as_ref().is_some_and(|next| rules_of(&address.names, next).is_some());
        }
        self.in_force = next;
    }

    /// Takes back what `prepare` wrote.
    pub(super) fn clear(&mut self, generation: u32) {
        for place in self.addresses.keys() {
            let _ = self.map.remove(&key(generation, *place));
        }
    }

    pub(super) fn map(&self) -> &HashMap<MapData, NameKey, NameRules> {
        &self.map
    }
}

/// None: no rule asks for any of them. As long as one of them is known; `sweep` takes the others out in time.
fn rules_of(names: &[(Arc<str>, u64)], in_force: &InForce) -> Option<NameRules> {
    let (mut rules, mut expires) = (RuleSet::EMPTY, 0);
    for (name, until) in names {
        let its = in_force.domains.rules_of(name);
        if !its.is_empty() {
            rules.unite(&its);
            expires = expires.max(*until);
        }
    }
    if rules.is_empty() {
        return None;
    }
    rules.unite(&in_force.any);
    Some(NameRules { expires, rules })
}

fn key(generation: u32, (netns, address): Place) -> NameKey {
    NameKey { generation, padding: 0, netns, address: words(address) }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
