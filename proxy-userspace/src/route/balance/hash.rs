//! The same member for the same key, as long as it is there; and when one comes or goes, only its own keys move.
//!
//! Each member has a score for a key, and the highest one has it: rendezvous hashing (Thaler, Ravishankar: Using name-based
//! mappings to increase hit rates, IEEE/ACM ToN 6(1), 1998), with weights by -w / ln(u). It needs no table that would have
//! to be built anew, costs a few nanoseconds a member, and there are at most some hundreds.
//!
//! One key may be asked for more often than a member can bear. So none takes more than its share times `load` of what is
//! under way; the rest goes to the next score (Mirrokni, Thorup, Zadimoghaddam: Consistent hashing with bounded loads,
//! SODA 2018).

use super::{Balance, Candidate, mixed};

#[derive(Debug)]
pub(super) struct Hash {
    /// In percent of a member's share; above 100.
    pub(super) load: u32,
}

impl Balance for Hash {
    fn choose(&self, candidates: &[Candidate], key: u64) -> usize {
        let under_way: u128 = candidates.iter().map(|candidate| candidate.active as u128).sum();
        let weights: u128 = candidates.iter().map(|candidate| u128::from(candidate.weight)).sum();
        let has_room = |candidate: &Candidate| {
            let share = (under_way + 1) * u128::from(candidate.weight) * u128::from(self.load);
            // Rounded up: it may always have one.
            (candidate.active as u128) < share.div_ceil(weights * 100)
        };
        let scored = candidates.iter().enumerate().map(|(place, candidate)| (score(candidate, key), place));
        let with_room = scored.filter(|(_, place)| has_room(&candidates[*place]));
        // Somebody has room: all together have less than `load` percent of themselves.
        with_room.max_by(|one, other| one.0.total_cmp(&other.0)).map_or(0, |(_, place)| place)
    }
}

fn score(candidate: &Candidate, key: u64) -> f64 {
    let bits = mixed(candidate.id ^ mixed(key));
    // Above 0 and below 1, of 53 bits.
    let uniform = ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(candidate.weight) / uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, chosen};
    use super::*;

    const KEYS: u64 = 20_000;

    #[test]
    fn keys_are_spread_by_weight() {
        let counts = chosen(&Hash { load: 125 }, &candidates(&[1, 1, 2]), KEYS);
        for (count, share) in counts.iter().zip([0.25, 0.25, 0.5]) {
            let error = *count as f64 / KEYS as f64 - share;
            assert!(error.abs() < 0.02, "{counts:?}");
        }
    }

    /// What consistent hashing is for.
    #[test]
    fn only_the_keys_of_one_that_goes_move() {
        let (hash, all) = (Hash { load: 125 }, candidates(&[1, 1, 1, 1]));
        let without: Vec<_> = all.iter().copied().filter(|candidate| candidate.index != 2).collect();
        for key in 0..KEYS {
            let before = all[hash.choose(&all, key)].index;
            let after = without[hash.choose(&without, key)].index;
            assert!(before == 2 || before == after, "key {key} moved from {before} to {after}");
        }
    }

    #[test]
    fn nobody_has_more_than_its_bound() {
        let (hash, mut all) = (Hash { load: 125 }, candidates(&[1, 1, 1, 1]));
        // One key for all, none of which ends.
        (0..400).for_each(|_| {
            let place = hash.choose(&all, 7);
            all[place].active += 1;
        });
        let most = all.iter().map(|candidate| candidate.active).max();
        assert_eq!(most, Some(125), "{all:?}");
    }
}
