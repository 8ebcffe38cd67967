//! Two by chance, and of these the one with less to do: nearly as even as a look at all, at the price of two looks, and
//! without the herds that arise where several balancers see the same member idle (Mitzenmacher: The power of two choices
//! in randomized load balancing, IEEE TPDS 12(10), 2001).

use super::{Balance, Candidate, by_weight, random};

#[derive(Debug)]
pub(super) struct RandomTwo;

impl Balance for RandomTwo {
    fn choose(&self, candidates: &[Candidate], _: u64) -> usize {
        let one = by_weight(candidates, random());
        // Another one than the first: of the same two, one would be no choice.
        let rest = candidates.len() - 1;
        if rest == 0 {
            return one;
        }
        let mut other = by_weight(candidates, random());
        if other == one {
            other =
                (one + 1 + usize::try_from(random() % rest as u64).unwrap_or_default()) % candidates.len();
        }
        // By requests alone: the weights have had their say in who was drawn.
        if candidates[other].active < candidates[one].active { other } else { one }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, chosen};
    use super::*;

    #[test]
    fn the_busiest_of_all_is_never_chosen() {
        let mut all = candidates(&[1, 1, 1, 1]);
        all[2].active = 100;
        let counts = chosen(&RandomTwo, &all, 4_000);
        assert_eq!(counts[2], 0, "{counts:?}");
        assert!(counts.iter().enumerate().all(|(place, count)| place == 2 || *count > 1_000), "{counts:?}");
        assert_eq!(chosen(&RandomTwo, &candidates(&[7]), 5), [5]);
    }
}
