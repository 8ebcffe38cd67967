//! Whoever has the fewest requests under way for its weight; among equals any, so that those at the front of the list do
//! not get all while there is little to do.

use super::{Balance, Candidate, random};

#[derive(Debug)]
pub(super) struct LeastRequests;

impl Balance for LeastRequests {
    fn choose(&self, candidates: &[Candidate], _: u64) -> usize {
        let (mut best, mut equals) = (0, 1);
        for (place, candidate) in candidates.iter().enumerate().skip(1) {
            if candidate.is_less_loaded_than(&candidates[best]) {
                (best, equals) = (place, 1);
            } else if !candidates[best].is_less_loaded_than(candidate) {
                // Of n equals each stays with one chance in n.
                equals += 1;
                if random().is_multiple_of(equals) {
                    best = place;
                }
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, chosen};
    use super::*;

    #[test]
    fn the_least_loaded_for_its_weight() {
        let mut all = candidates(&[1, 2, 1]);
        (all[0].active, all[1].active, all[2].active) = (3, 3, 2);
        assert_eq!(chosen(&LeastRequests, &all, 10), [0, 10, 0]);
        all[1].active = 9;
        assert_eq!(chosen(&LeastRequests, &all, 10), [0, 0, 10]);
        let counts = chosen(&LeastRequests, &candidates(&[1, 1, 1]), 3_000);
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
