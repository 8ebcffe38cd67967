//! Finds numbers by hash: one array, at most half full, so that what is not in it costs one look into memory.

/// Numbers by hash.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// 0 where nobody is; else the upper half of the hash, and the number plus 1.
    slots: Box<[u64]>,
}

impl Table {
    /// A table for `count` numbers.
    pub(super) fn for_count(count: usize) -> Self {
        let slots = if count == 0 { 0 } else { (count * 2).next_power_of_two() };
        Self { slots: vec![0; slots].into() }
    }

    /// Adds a number. There are never more than the table was made for.
    pub(super) fn insert(&mut self, hash: u64, number: u32) {
        let slot = (hash & !LOW) | (u64::from(number) + 1);
        let free = self.places(hash).find(|place| self.slots[*place] == 0);
        if let Some(free) = free {
            self.slots[free] = slot;
        }
    }

    /// The number with this hash for which `is` holds.
    pub(super) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        for place in self.places(hash) {
            let slot = self.slots[place];
            if slot == 0 {
                return None;
            }
            let number = u32::try_from((slot & LOW).wrapping_sub(1)).unwrap_or(u32::MAX);
            if slot & !LOW == hash & !LOW && is(number) {
                return Some(number);
            }
        }
        None
    }

    /// The places where a hash may be, in their order.
    fn places(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let count = self.slots.len();
        let first = usize::try_from(hash & LOW).unwrap_or(0);
        (0..count).map(move |step| first.wrapping_add(step) & (count - 1))
    }
}

const LOW: u64 = 0xffff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_is_found_and_nothing_else() {
        let hash = |number: u32| xxhash_rust::xxh3::xxh3_64(&number.to_ne_bytes());
        let mut table = Table::for_count(10_000);
        (0..10_000).for_each(|number| table.insert(hash(number), number));
        for number in 0..10_000 {
            assert_eq!(table.find(hash(number), |found| found == number), Some(number));
            assert_eq!(table.find(hash(number + 10_000), |found| found == number + 10_000), None);
        }
        assert_eq!(Table::for_count(0).find(hash(1), |_| true), None);
    }

    #[test]
    fn equal_hashes_are_told_apart() {
        let mut table = Table::for_count(3);
        (0..3).for_each(|number| table.insert(7, number));
        assert_eq!(table.find(7, |found| found == 2), Some(2));
        assert_eq!(table.find(7, |_| false), None);
    }
}
