//! What is on disk, without its content: which records there are of a key, and how large they are. It decides what is
//! dropped when there is no room, and sees to it that what was removed while it was being written does not come back.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::files::Name;
use crate::cache::purge::Hints;
use crate::cache::store::MAX_VARIANTS;

/// A record on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub selection: u64,
    pub serial: u64,
    pub body: u64,
    pub hints: Hints,
    /// Bytes of its files.
    pub size: u64,
}

/// Those of one key, the newest first.
pub(super) type Records = Arc<[Record]>;

/// A record that is not wanted any longer: its files are to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone {
    pub name: Name,
    /// Another record has the same body.
    pub keep_body: bool,
}

#[derive(Debug)]
pub(super) struct Index {
    cache: Cache<u128, Records, Weigh, RandomState, Evicted>,
    evicted: Arc<Mutex<Vec<(u128, Records)>>>,
    evictions: AtomicU64,
    /// The keys of which something is being written.
    writing: Mutex<HashMap<u128, Writing>>,
    capacity: u64,
}

#[derive(Debug, Default)]
struct Writing {
    count: usize,
    /// What was announced before is not to be kept.
    doomed: u64,
}

/// One record that is being written. Each ends in [`Index::insert`] or [`Index::give_up`].
#[derive(Debug)]
pub(super) struct Ticket {
    pub key: u128,
    pub serial: u64,
}

/// Files take up whole blocks.
const BLOCK: u64 = 4096;

/// What a record is taken to weigh, for the size of the tables that remember evicted keys.
const TYPICAL_SIZE: u64 = 64 << 10;

impl Index {
    pub(super) fn new(capacity: u64) -> Self {
        let evicted = Arc::<Mutex<Vec<_>>>::default();
        let items = usize::try_from(capacity / TYPICAL_SIZE).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .shards(1)
            .weight_capacity(capacity)
            .estimated_items_capacity(items.clamp(64, 1 << 20))
            .hot_allocation(0.9)
            .build()
            .expect("both capacities are given");
        let noting = Evicted(Arc::clone(&evicted));
        let cache = Cache::with_options(options, Weigh, RandomState::new(), noting);
        Self { cache, evicted, evictions: AtomicU64::new(0), writing: Mutex::default(), capacity }
    }

    /// The records of a key; that counts as a use.
    pub(super) fn find(&self, key: u128) -> Option<Records> {
        self.cache.get(&key)
    }

    pub(super) fn has(&self, key: u128) -> bool {
        self.cache.contains_key(&key)
    }

    /// Keys, and bytes on disk.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.cache.len() as u64, self.cache.weight())
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    pub(super) fn all(&self) -> Vec<(u128, Records)> {
        self.cache.iter().collect()
    }

    /// Announces that a record is being written.
    pub(super) fn announce(&self, key: u128, serial: u64) -> Ticket {
        self.writing().entry(key).or_default().count += 1;
        Ticket { key, serial }
    }

    /// Notes a record that was written. What is to be removed for it is returned; that may be itself.
    pub(super) fn insert(&self, ticket: &Ticket, record: Record) -> Vec<Gone> {
        let mut writing = self.writing();
        let doomed = end(&mut writing, ticket);
        match doomed {
            true => vec![Gone { name: name(ticket.key, &record), keep_body: false }],
            false => self.place(ticket.key, record),
        }
    }

    /// Notes a record that was found on disk.
    pub(super) fn found(&self, key: u128, record: Record) -> Vec<Gone> {
        let _writing = self.writing();
        self.place(key, record)
    }

    pub(super) fn give_up(&self, ticket: &Ticket) {
        end(&mut self.writing(), ticket);
    }

    /// Forgets a key, and whatever is being written of it up to `serial`.
    pub(super) fn remove(&self, key: u128, serial: u64) -> Vec<Gone> {
        let mut writing = self.writing();
        if let Some(writing) = writing.get_mut(&key) {
            writing.doomed = serial;
        }
        let removed = self.cache.remove(&key);
        removed.map_or_else(Vec::new, |(key, records)| all_of(key, &records))
    }

    /// Forgets whatever is being written up to `serial`.
    pub(super) fn doom_unfinished(&self, serial: u64) {
        self.writing().values_mut().for_each(|writing| writing.doomed = serial);
    }

    /// Forgets one record, which was found to be damaged, or all that have this body.
    pub(super) fn remove_one(&self, key: u128, which: impl Fn(&Record) -> bool) -> Vec<Gone> {
        let _writing = self.writing();
        let Some(records) = self.cache.peek(&key) else { return Vec::new() };
        let (gone, kept): (Vec<Record>, Vec<Record>) = records.iter().partition(|record| which(record));
        let mut all: Vec<_> =
            gone.iter().map(|record| Gone { name: name(key, record), keep_body: false }).collect();
        match kept.is_empty() {
            true => drop(self.cache.remove(&key)),
            false => all.extend(self.replace(key, &records, kept)),
        }
        all
    }

    /// Drops some of what is used least: the disk holds less than was thought.
    pub(super) fn shrink(&self) -> Vec<Gone> {
        let _writing = self.writing();
        let weight = self.cache.weight();
        self.cache.set_capacity((weight - weight / 16).max(1));
        self.cache.set_capacity(self.capacity);
        self.take_evicted(|_, _| true)
    }

    /// Puts a record beside those of other selections, unless there is a newer one: several are written at a time.
    fn place(&self, key: u128, record: Record) -> Vec<Gone> {
        let current = self.cache.peek(&key).unwrap_or_default();
        let is_newer = |other: &&Record| other.selection == record.selection && other.serial > record.serial;
        if let Some(newer) = current.iter().find(is_newer) {
            let keep_body = record.body != 0 && record.body == newer.body;
            return vec![Gone { name: name(key, &record), keep_body }];
        }
        let (replaced, others): (Vec<Record>, Vec<Record>) =
            current.iter().partition(|other| other.selection == record.selection);
        let mut records = vec![record];
        records.extend(others.iter().take(MAX_VARIANTS - 1));
        let too_many = others.iter().skip(MAX_VARIANTS - 1);
        let gone = replaced.iter().chain(too_many);
        let gone = gone.filter(|other| other.serial != record.serial).map(|other| Gone {
            name: name(key, other),
            keep_body: other.body != 0 && other.body == record.body,
        });
        let mut gone: Vec<_> = gone.collect();
        gone.extend(self.replace(key, &current, records));
        gone
    }

    /// Puts `new` into the place of `old`. Returns what had to go for it.
    fn replace(&self, key: u128, old: &Records, new: Vec<Record>) -> Vec<Gone> {
        self.cache.insert(key, new.into());
        // What is replaced is told of, too.
        self.take_evicted(|other, records| other != key || !Arc::ptr_eq(records, old))
    }

    fn take_evicted(&self, counts: impl Fn(u128, &Records) -> bool) -> Vec<Gone> {
        let mut evicted = std::mem::take(&mut *self.evicted.lock().unwrap_or_else(PoisonError::into_inner));
        evicted.retain(|(key, records)| counts(*key, records));
        self.evictions.fetch_add(evicted.len() as u64, Ordering::Relaxed);
        evicted.iter().flat_map(|(key, records)| all_of(*key, records)).collect()
    }

    fn writing(&self) -> MutexGuard<'_, HashMap<u128, Writing>> {
        // Nothing under the lock panics half-way through a change.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the record of this ticket was removed while it was being written.
fn end(writing: &mut HashMap<u128, Writing>, ticket: &Ticket) -> bool {
    let Some(state) = writing.get_mut(&ticket.key) else { return false };
    let doomed = ticket.serial <= state.doomed;
    state.count -= 1;
    if state.count == 0 {
        writing.remove(&ticket.key);
    }
    doomed
}

fn all_of(key: u128, records: &Records) -> Vec<Gone> {
    // The oldest first: if weir is killed in between, what is left is what was valid last.
    let gone = |record| Gone { name: name(key, record), keep_body: false };
    records.iter().rev().map(gone).collect()
}

/// The name of a record's file.
pub(super) fn name(key: u128, record: &Record) -> Name {
    let Record { selection, serial, body, hints, .. } = *record;
    Name { key, selection, serial, body, hints }
}

#[derive(Debug, Clone)]
struct Weigh;

impl Weighter<u128, Records> for Weigh {
    fn weight(&self, _key: &u128, records: &Records) -> u64 {
        records.iter().map(|record| record.size.next_multiple_of(BLOCK)).sum()
    }
}

#[derive(Debug, Clone)]
struct Evicted(Arc<Mutex<Vec<(u128, Records)>>>);

impl Lifecycle<u128, Records> for Evicted {
    type RequestState = ();

    fn on_evict(&self, _state: &mut (), key: u128, records: Records) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((key, records));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(selection: u64, serial: u64) -> Record {
        Record { selection, serial, body: 0, hints: Hints(0), size: 100 }
    }

    fn put(index: &Index, key: u128, record: Record) -> Vec<u64> {
        let gone = index.insert(&index.announce(key, record.serial), record);
        gone.iter().map(|gone| gone.name.serial).collect()
    }

    #[test]
    fn a_record_replaces_its_like() {
        let index = Index::new(1 << 20);
        assert!(put(&index, 1, record(1, 1)).is_empty());
        assert!(put(&index, 1, record(2, 2)).is_empty());
        assert_eq!(put(&index, 1, record(1, 3)), [1_u64]);
        assert_eq!(
            index.find(1).unwrap().iter().map(|record| record.serial).collect::<Vec<u64>>(),
            [3_u64, 2]
        );
        assert_eq!(index.found(1, record(1, 2)).len(), 1);
        assert_eq!(index.remove(1, 4).len(), 2);
        assert!(!index.has(1));
    }

    #[test]
    fn a_renewed_record_keeps_its_body() {
        let index = Index::new(1 << 20);
        let (old, new) = (Record { body: 9, ..record(1, 1) }, Record { body: 9, ..record(1, 2) });
        index.insert(&index.announce(1, 1), old);
        let gone = index.insert(&index.announce(1, 2), new);
        assert_eq!((gone.len(), gone[0].keep_body, gone[0].name.serial), (1, true, 1));
        // One that was begun before, and is written after.
        let late = index.insert(&index.announce(1, 1), old);
        assert_eq!((late.len(), late[0].keep_body, late[0].name.serial), (1, true, 1));
        assert_eq!(index.find(1).unwrap()[0].serial, 2);
        assert!(!index.remove(1, 3)[0].keep_body);
    }

    #[test]
    fn what_is_removed_while_it_is_written_does_not_come_back() {
        let index = Index::new(1 << 20);
        let (first, second) = (index.announce(1, 1), index.announce(1, 2));
        index.remove(1, 2);
        let third = index.announce(1, 3);
        assert_eq!(index.insert(&first, record(1, 1)).len(), 1);
        assert_eq!(index.insert(&second, record(1, 2)).len(), 1);
        assert!(!index.has(1));
        assert!(index.insert(&third, record(1, 3)).is_empty());
        assert!(index.has(1) && index.writing().is_empty());
    }

    #[test]
    fn it_is_bounded_and_says_what_it_drops() {
        let index = Index::new(100 * BLOCK);
        let gone: usize = (0..1000).map(|number| put(&index, number, record(1, 1)).len()).sum();
        let (keys, bytes) = index.size();
        assert!(bytes <= 100 * BLOCK && keys > 50, "{keys} {bytes}");
        assert_eq!((gone as u64, index.evictions()), (1000 - keys, 1000 - keys));
        let shrunk = index.shrink().len() as u64;
        assert!(shrunk > 0 && index.size().0 == keys - shrunk, "{shrunk}");
        // Larger than all there is room for.
        let large = Record { size: 200 * BLOCK, ..record(1, 1) };
        assert_eq!(index.insert(&index.announce(5000, 1), large).len(), 1);
    }
}
