//! Each in turn, as often as its weight says, and those with large weights not in a row: the smooth weighted round robin
//! that nginx has. Among members of one weight it is the plain one. All workers take turns together: the lock is held for
//! one pass over the members.

use std::sync::{Mutex, PoisonError};

use super::{Balance, Candidate};

/// What each member is still due, by its place in the group.
#[derive(Debug)]
pub(super) struct RoundRobin(Mutex<Vec<i64>>);

impl RoundRobin {
    pub(super) fn new(members: usize) -> Self {
        Self(Mutex::new(vec![0; members]))
    }
}

impl Balance for RoundRobin {
    fn choose(&self, candidates: &[Candidate], _: u64) -> usize {
        let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total = 0;
        let mut best = (0, i64::MIN);
        for (place, candidate) in candidates.iter().enumerate() {
            let weight = i64::from(candidate.weight);
            total += weight;
            due[candidate.index] += weight;
            if due[candidate.index] > best.1 {
                best = (place, due[candidate.index]);
            }
        }
        // Whoever is no candidate for a while is due nothing for that time, but keeps what it was due: at most one turn.
        due[candidates[best.0].index] -= total;
        best.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, chosen};
    use super::*;

    #[test]
    fn turns_are_taken_by_weight_and_not_in_a_row() {
        let turns = |weights: &[u32], turns: usize| {
            let (balance, candidates) = (RoundRobin::new(weights.len()), candidates(weights));
            (0..turns).map(|_| balance.choose(&candidates, 0)).collect::<Vec<_>>()
        };
        assert_eq!(turns(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(turns(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn one_that_comes_back_does_not_catch_up() {
        let (balance, all) = (RoundRobin::new(4), candidates(&[1, 1, 1, 1]));
        chosen(&balance, &all, 101);
        assert_eq!(chosen(&balance, &all[1..], 300), [100, 100, 100]);
        let counts = chosen(&balance, &all, 400);
        assert!(counts.iter().all(|count| (99..=101).contains(count)), "{counts:?}");
    }
}
