//! Entries in memory, shared by all workers. A hit takes a read lock of one of several shards and copies a reference;
//! who is kept is decided by quick_cache (a Clock-PRO variant with a ghost list, resistant to scans), by weight.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::Variants;
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::{self, parts};

/// The store.
#[derive(Debug)]
pub struct Memory {
    cache: Cache<Key, Arc<Variants>, Weigh, std::hash::RandomState, Count>,
    /// Reading a key's variants and writing them with one more is one step under its lock. Lookups need none.
    writing: [Mutex<()>; WRITE_LOCKS],
    hasher: std::hash::RandomState,
    evictions: Arc<AtomicU64>,
    /// The most that is kept of parts of one representation.
    max_object: AtomicU64,
}

const WRITE_LOCKS: usize = 32;

/// What an entry is taken to weigh, for the size of the tables that remember evicted keys.
const TYPICAL_WEIGHT: u64 = 16 << 10;

/// So many objects of the largest size fit into a shard at least.
const OBJECTS_PER_SHARD: u64 = 4;

impl Memory {
    /// A store of `capacity` bytes, in which objects have up to `max_object`.
    #[must_use]
    pub fn new(capacity: u64, max_object: u64) -> Self {
        let evictions = Arc::<AtomicU64>::default();
        let most_shards = (capacity / (max_object * OBJECTS_PER_SHARD).max(1)).max(1);
        let workers = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let shards = most_shards.min(4 * workers);
        // Rounded down to a power of two: it would be rounded up.
        let shards = 1 << shards.ilog2();
        let options = OptionsBuilder::new()
            .shards(shards)
            .weight_capacity(capacity)
            .estimated_items_capacity(
                usize::try_from(capacity / TYPICAL_WEIGHT).unwrap_or(usize::MAX).max(64),
            )
            .hot_allocation(0.9)
            .build()
            .expect("both capacities are given");
        let cache =
            Cache::with_options(options, Weigh, std::hash::RandomState::new(), Count(Arc::clone(&evictions)));
        Self {
            cache,
            writing: Default::default(),
            hasher: std::hash::RandomState::new(),
            evictions,
            max_object: AtomicU64::new(max_object),
        }
    }

    /// From now on there is so much room, and objects have up to `max_object`; what no longer has room goes.
    pub fn set_capacity(&self, capacity: u64, max_object: u64) {
        self.cache.set_capacity(capacity);
        self.max_object.store(max_object, Ordering::Relaxed);
    }

    /// What is stored for a key.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<Arc<Variants>> {
        self.cache.get(key)
    }

    /// The same, without counting as a use.
    #[must_use]
    pub fn peek(&self, key: &Key) -> Option<Arc<Variants>> {
        self.cache.peek(key)
    }

    /// Stores an entry beside other variants of its key.
    pub fn store(&self, key: &Key, entry: Arc<Entry>) {
        self.change(key, |variants| Some(variants.with(entry)));
    }

    /// Stores a part, beside others or as one with them. Returns what has become whole by that.
    pub fn store_part(&self, key: &Key, part: Entry) -> Option<Arc<Entry>> {
        let mut whole = None;
        self.change(key, |variants| {
            let added = parts::added(variants, part, self.max_object.load(Ordering::Relaxed), cache::now())?;
            whole = added.whole;
            Some(added.variants)
        });
        whole
    }

    /// Stores what was found in a lower store, unless there is something newer. Returns whether it was stored.
    pub fn promote(&self, key: &Key, entry: &Arc<Entry>) -> bool {
        let mut risen = false;
        self.change(key, |variants| {
            let selection = &entry.stored.selection;
            risen = variants.iter().all(|other| other.stored.selection != *selection || other.part.is_some());
            risen.then(|| variants.with_older(Arc::clone(entry)))
        });
        risen
    }

    /// Stores `new` if `old` is still there: a validation must not bring back what was removed meanwhile. Does `also`
    /// in one step with it.
    pub fn replace(&self, key: &Key, old: &Arc<Entry>, new: Option<&Arc<Entry>>, also: impl FnOnce()) {
        self.change(key, |variants| {
            if !variants.iter().any(|entry| Arc::ptr_eq(entry, old)) {
                return None;
            }
            also();
            let rest = variants.without(old);
            Some(match new {
                Some(new) => rest.with(Arc::clone(new)),
                None => rest,
            })
        });
    }

    /// Forgets a key. Does `also` in one step with it. Returns whether something was stored, here or as `also` says.
    pub fn remove(&self, key: &Key, also: impl FnOnce() -> bool) -> bool {
        let _writing = self.lock(key);
        self.cache.remove(key).is_some() | also()
    }

    /// Forgets what `unwanted` says. Returns the keys.
    pub fn purge(&self, unwanted: impl Fn(&Key, &Variants) -> bool) -> Vec<Key> {
        let found: Vec<Key> =
            self.cache.iter().filter(|(key, variants)| unwanted(key, variants)).map(|(key, _)| key).collect();
        found.into_iter().filter(|key| self.remove(key, || false)).collect()
    }

    /// Up to `most` of what `wanted` says.
    #[must_use]
    pub fn select(&self, most: usize, wanted: impl Fn(&Key, &Variants) -> bool) -> Vec<(Key, Arc<Variants>)> {
        self.cache.iter().filter(|(key, variants)| wanted(key, variants)).take(most).collect()
    }

    /// Keys stored, and their bytes.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        (self.cache.len() as u64, self.cache.weight())
    }

    /// Keys dropped for want of room since the start.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Writes what `change` makes of a key's variants; None leaves them.
    fn change(&self, key: &Key, change: impl FnOnce(&Variants) -> Option<Variants>) {
        let _writing = self.lock(key);
        let current = self.cache.peek(key).unwrap_or_default();
        match change(&current) {
            Some(variants) if variants.is_empty() => drop(self.cache.remove(key)),
            Some(variants) => {
                self.cache.insert(key.clone(), Arc::new(variants));
                if !current.is_empty() {
                    // quick_cache tells of what is replaced, too.
                    self.evictions.fetch_sub(1, Ordering::Relaxed);
                }
            }
            None => {}
        }
    }

    fn lock(&self, key: &Key) -> std::sync::MutexGuard<'_, ()> {
        let hash = std::hash::BuildHasher::hash_one(&self.hasher, key);
        // A panic under the lock leaves nothing half-written: what it protects is one insertion.
        self.writing[hash as usize % WRITE_LOCKS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone)]
struct Weigh;

impl Weighter<Key, Arc<Variants>> for Weigh {
    fn weight(&self, key: &Key, variants: &Arc<Variants>) -> u64 {
        variants.weight() + key.as_str().len() as u64 + PER_KEY
    }
}

/// What a key costs beside its text and its entries: the tables' own, and the allocations around it.
const PER_KEY: u64 = 128;

#[derive(Debug, Clone)]
struct Count(Arc<AtomicU64>);

impl Lifecycle<Key, Arc<Variants>> for Count {
    type RequestState = ();

    fn on_evict(&self, _state: &mut (), _key: Key, _variants: Arc<Variants>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::store::MAX_VARIANTS;
    use crate::cache::store::tests::{entry, key, wants};

    fn select(store: &Memory, path: &str, vary: &str) -> Option<Vec<u8>> {
        let variants = store.find(&key(path))?;
        let entry = variants.select(&wants(vary))?;
        Some(entry.body.held()?.concat())
    }

    #[test]
    fn variants_stand_beside_each_other_and_replace_their_like() {
        let store = Memory::new(1 << 20, 1 << 10);
        store.store(&key("/"), entry("1", b"a"));
        store.store(&key("/"), entry("2", b"b"));
        store.store(&key("/"), entry("1", b"c"));
        assert_eq!(select(&store, "/", "1").as_deref(), Some(b"c".as_slice()));
        assert_eq!(select(&store, "/", "2").as_deref(), Some(b"b".as_slice()));
        assert_eq!(select(&store, "/", "3"), None);
        assert!(store.remove(&key("/"), || false));
        assert!(!store.remove(&key("/"), || false));
    }

    #[test]
    fn the_variants_of_one_key_are_bounded() {
        let store = Memory::new(1 << 20, 1 << 10);
        (0..100).for_each(|number| store.store(&key("/"), entry(&number.to_string(), b"a")));
        assert_eq!(store.evictions(), 0);
        assert_eq!(store.find(&key("/")).unwrap().iter().count(), MAX_VARIANTS);
        assert!(select(&store, "/", "99").is_some());
    }

    #[test]
    fn a_replacement_does_not_bring_back_what_was_removed() {
        let store = Memory::new(1 << 20, 1 << 10);
        let old = entry("1", b"old");
        store.store(&key("/"), Arc::clone(&old));
        store.replace(&key("/"), &old, Some(&entry("1", b"new")), || {});
        assert_eq!(select(&store, "/", "1").as_deref(), Some(b"new".as_slice()));
        store.replace(&key("/"), &old, Some(&entry("1", b"late")), || {});
        assert_eq!(select(&store, "/", "1").as_deref(), Some(b"new".as_slice()));
        store.remove(&key("/"), || false);
        store.replace(&key("/"), &old, Some(&entry("1", b"late")), || {});
        assert_eq!(select(&store, "/", "1"), None);
    }

    #[test]
    fn the_weight_is_bounded_and_what_is_used_stays() {
        let store = Memory::new(4 << 20, 64 << 10);
        store.store(&key("/hot"), entry("1", &[0; 1000]));
        for number in 0..20_000 {
            store.store(&key(&format!("/{number}")), entry("1", &[0; 1000]));
            assert!(select(&store, "/hot", "1").is_some(), "lost after {number}");
        }
        let (keys, bytes) = store.size();
        assert!(bytes <= 4 << 20, "{bytes}");
        assert!(keys > 1_000, "{keys}");
        assert!(store.evictions() > 10_000);
    }

    #[test]
    fn an_object_of_the_largest_size_is_kept() {
        let store = Memory::new(64 << 20, 8 << 20);
        for number in 0..3 {
            store.store(&key(&format!("/{number}")), entry("1", &vec![0; 8 << 20]));
            assert!(select(&store, &format!("/{number}"), "1").is_some());
        }
    }

    #[test]
    fn purging_says_what_it_removed() {
        let store = Memory::new(1 << 20, 1 << 10);
        ["/a", "/b"].iter().for_each(|path| store.store(&key(path), entry("1", b"x")));
        assert_eq!(store.purge(|key, _| key.as_str().ends_with("/a")), [key("/a")]);
        assert_eq!((select(&store, "/a", "1"), select(&store, "/b", "1").is_some()), (None, true));
    }
}
