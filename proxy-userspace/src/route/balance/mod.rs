//! How a member is chosen among those that could be. An algorithm is a file here, its arm in [`of`], and its word in
//! `config/backends.rs`. It neither knows why others are no candidates, nor what becomes of the request.

mod hash;
mod least_requests;
mod random_two;
mod round_robin;

use std::cell::Cell;
use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};

use crate::config::{Algorithm, BackendGroup};

/// A member that could be chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Its place in the group.
    pub(super) index: usize,
    /// What it is called, as a number.
    pub(super) id: u64,
    /// Its share, in [`UNIT`]s; never 0.
    pub(super) weight: u32,
    /// Requests that it has under way.
    pub(super) active: usize,
}

/// A weight of 1. Smaller ones are those of members that have just come back.
pub(super) const UNIT: u32 = 256;

/// A way to choose.
pub(super) trait Balance: Debug + Send + Sync {
    /// The place among `candidates`, which are never none, of the one that is to have the request. `key`: what it has in
    /// common with others; random where it has nothing.
    fn choose(&self, candidates: &[Candidate], key: u64) -> usize;
}

pub(super) fn of(group: &BackendGroup) -> Box<dyn Balance> {
    match group.balance {
        Algorithm::RoundRobin => Box::new(round_robin::RoundRobin::new(group.members.len())),
        Algorithm::LeastRequests => Box::new(least_requests::LeastRequests),
        Algorithm::RandomTwo => Box::new(random_two::RandomTwo),
        Algorithm::Hash => Box::new(hash::Hash { load: group.hash_load }),
    }
}

impl Candidate {
    /// Whether it would have less to do for its weight than another, with one more request each.
    fn is_less_loaded_than(&self, other: &Self) -> bool {
        let load = |one: &Self, by: &Self| (one.active as u128 + 1) * u128::from(by.weight);
        load(self, other) < load(other, self)
    }
}

/// Any number: for chances, not for secrets.
pub(super) fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    mixed(state)
}

/// The finaliser of SplitMix64: each bit of the result depends on all of `bits`.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A candidate by chance, in proportion to the weights.
fn by_weight(candidates: &[Candidate], random: u64) -> usize {
    let total: u64 = candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
    // The upper half of the product is random in 0..total (Lemire: Fast random integer generation in an interval, 2019).
    let mut left = ((u128::from(random) * u128::from(total)) >> 64) as u64;
    for (place, candidate) in candidates.iter().enumerate() {
        match left.checked_sub(u64::from(candidate.weight)) {
            Some(less) => left = less,
            None => return place,
        }
    }
    0
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn candidates(weights: &[u32]) -> Vec<Candidate> {
        let of = |(index, weight): (usize, &u32)| Candidate {
            index,
            id: mixed(index as u64 + 1),
            weight: weight * UNIT,
            active: 0,
        };
        weights.iter().enumerate().map(of).collect()
    }

    /// How often each is chosen, in so many turns.
    pub(super) fn chosen(balance: &dyn Balance, candidates: &[Candidate], turns: u64) -> Vec<u64> {
        let mut counts = vec![0; candidates.len()];
        (0..turns).for_each(|turn| counts[balance.choose(candidates, mixed(turn))] += 1);
        counts
    }

    #[test]
    fn chance_follows_the_weights() {
        let candidates = candidates(&[1, 0, 3]);
        let mut counts = [0_u32; 3];
        (0..40_000).for_each(|_| counts[by_weight(&candidates, random())] += 1);
        assert!(counts[1] == 0 && (9_000..11_000).contains(&counts[0]), "{counts:?}");
        assert_eq!((by_weight(&candidates, 0), by_weight(&candidates, u64::MAX)), (0, 2));
    }
}
