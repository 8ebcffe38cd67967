//! The HTTP cache (RFC 9111). What may be stored, how long it is fresh and which request it answers are pure functions
//! over parsed heads, a file a rule. [`Cache`] is what all workers share: the store, and the requests under way.
//!
//! Nothing here reads from or writes to a connection: `pipeline::caching` does that.

pub mod body;
pub mod coded;
pub mod conditional;
pub mod date;
pub mod directives;
pub mod entry;
pub mod filling;
pub mod flights;
pub mod freshness;
pub mod headers;
pub mod key;
pub mod not_stored;
pub mod pages;
pub mod parts;
pub mod purge;
pub mod range;
pub mod report;
mod reservation;
pub mod storable;
pub mod store;
pub mod stored_head;
pub mod targeted;
pub mod vary;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use coded::Coded;
use entry::Entry;
use flights::{Flights, Lead};
use key::Key;
use not_stored::Notes;
use purge::Purge;
pub use reservation::Reservation;
use store::disk::{Disk, Spool};
use store::memory::Memory;
use store::{Tier, Variants};

use crate::http::headers::Headers;

/// What of the configuration the rules depend on.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The longest lifetime that is guessed, in seconds.
    pub default_ttl: u64,
    /// CDN-Cache-Control is meant for us.
    pub targeted: bool,
}

/// The cache of a weir.
#[derive(Debug)]
pub struct Cache {
    memory: Memory,
    /// Those that are asked for what memory does not have, in this order.
    lower: Vec<Arc<dyn Tier>>,
    disk: Option<Arc<Disk>>,
    flights: Arc<Flights>,
    /// Searches of the lower stores that are under way.
    loads: Arc<Flights>,
    /// Odd while something is being purged: nothing comes up from a lower store meanwhile.
    purges: AtomicU64,
    purging: tokio::sync::Mutex<()>,
    /// Why the last answers were not stored.
    notes: Notes,
    coded: Coded,
    /// Bytes that responses under way may take until their slowest reader is done, and the most of that.
    under_way: Arc<AtomicU64>,
    most_under_way: AtomicU64,
}

/// Makes a number odd for as long as it lives.
struct Odd<'a>(&'a AtomicU64);

impl<'a> Odd<'a> {
    fn begin(number: &'a AtomicU64) -> Self {
        number.fetch_add(1, Ordering::AcqRel);
        Self(number)
    }
}

impl Drop for Odd<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// Compressed forms of what is stored take up to this part of its memory, beside it.
const CODED_PART: u64 = 8;

impl Cache {
    /// An empty cache of `capacity` bytes, for objects of up to `max_object`.
    #[must_use]
    pub fn new(capacity: u64, max_object: u64) -> Self {
        Self {
            memory: Memory::new(capacity, max_object),
            lower: Vec::new(),
            disk: None,
            flights: Arc::default(),
            loads: Arc::default(),
            purges: AtomicU64::new(0),
            purging: tokio::sync::Mutex::default(),
            notes: Notes::default(),
            coded: Coded::new(capacity / CODED_PART),
            under_way: Arc::default(),
            most_under_way: AtomicU64::new(capacity / 2),
        }
    }

    /// From now on memory has room for `capacity` bytes, and for objects of up to `max_object`.
    pub fn set_capacity(&self, capacity: u64, max_object: u64) {
        self.memory.set_capacity(capacity, max_object);
        self.coded.set_capacity(capacity / CODED_PART);
        self.most_under_way.store(capacity / 2, Ordering::Relaxed);
    }

    /// The store on disk, if there is one.
    #[must_use]
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_deref()
    }

    /// It with a store on disk below memory.
    #[must_use]
    pub fn with_disk(mut self, disk: Disk) -> Self {
        let disk = Arc::new(disk);
        self.lower.push(Arc::clone(&disk) as Arc<dyn Tier>);
        self.disk = Some(disk);
        self
    }

    /// It with a further store, below those that it has.
    #[must_use]
    pub fn with(mut self, tier: Arc<dyn Tier>) -> Self {
        self.lower.push(tier);
        self
    }

    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The stores below memory.
    #[must_use]
    pub fn lower(&self) -> &[Arc<dyn Tier>] {
        &self.lower
    }

    #[must_use]
    pub fn flights(&self) -> &Arc<Flights> {
        &self.flights
    }

    #[must_use]
    pub fn loads(&self) -> &Arc<Flights> {
        &self.loads
    }

    /// What is stored for a key, in memory.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<Arc<Variants>> {
        self.memory.find(key)
    }

    /// Whether a lower store is worth asking for what memory does not have.
    #[must_use]
    pub fn may_be_below(&self, key: &Key) -> bool {
        self.lower.iter().any(|tier| tier.may_have(key))
    }

    /// Looks in the lower stores for what answers a request, and brings it up. `lead` is one of [`Cache::loads`].
    /// Returns whether there is something now that was not in memory before.
    pub async fn load(&self, lead: &Lead, request: &Headers) -> bool {
        let purges = self.purges.load(Ordering::Acquire);
        if !purges.is_multiple_of(2) {
            return false;
        }
        for (index, tier) in self.lower.iter().enumerate() {
            if !tier.may_have(lead.key()) {
                continue;
            }
            if let Some(entry) = tier.load(lead.key(), request).await {
                let mut risen = false;
                lead.land(|key| {
                    let entry = Arc::new(entry);
                    risen = self.purges.load(Ordering::Acquire) == purges && self.memory.promote(key, &entry);
                    if risen {
                        self.lower[..index].iter().for_each(|tier| tier.store(key, &entry));
                    }
                });
                return risen;
            }
        }
        false
    }

    /// A place on disk for a body that is too large for memory, or may become so if its length is not known. None: there
    /// is none.
    #[must_use]
    pub fn spool(&self, key: &Key, length: Option<u64>) -> Option<Spool> {
        self.disk.as_ref()?.spool(key, length)
    }

    /// Stores the answer to a request that was announced as under way.
    pub fn store(&self, lead: &Lead, entry: Entry) {
        let entry = Arc::new(entry);
        lead.land(|key| {
            self.memory.store(key, Arc::clone(&entry));
            self.lower.iter().for_each(|tier| tier.store(key, &entry));
        });
    }

    /// Stores a part of an answer. Lower stores have only what is whole.
    pub fn store_part(&self, lead: &Lead, part: Entry) {
        lead.land(|key| {
            if let Some(whole) = self.memory.store_part(key, part) {
                self.lower.iter().for_each(|tier| tier.store(key, &whole));
            }
        });
    }

    /// Puts `new` in the place of `old`, or nothing.
    pub fn replace(&self, key: &Key, old: &Arc<Entry>, new: Option<&Arc<Entry>>) {
        let is_whole = old.part.is_none();
        self.memory.replace(key, old, new, || {
            for tier in self.lower.iter().filter(|_| is_whole) {
                match new {
                    Some(new) => tier.store(key, new),
                    None => drop(tier.remove(key)),
                }
            }
        });
    }

    /// An entry has turned out not to be readable any more.
    pub fn forget(&self, key: &Key, lost: &Arc<Entry>) {
        self.memory.replace(key, lost, None, || {});
    }

    /// Forgets what is stored for a key, and what is just being fetched for it (RFC 9111 §4.4).
    pub fn invalidate(&self, key: &Key) -> bool {
        self.forget_in(key, |_| true)
    }

    /// The same for a key of which another weir has told that it is forgotten where both look.
    pub fn forget_here(&self, key: &Key) -> bool {
        self.forget_in(key, |tier| !tier.is_shared())
    }

    fn forget_in(&self, key: &Key, takes: impl Fn(&dyn Tier) -> bool) -> bool {
        self.flights.doom(key);
        if self.lower.is_empty() {
            return self.memory.remove(key, || false);
        }
        let tiers = self.lower.iter().filter(|tier| takes(tier.as_ref()));
        // Nothing can come up from a lower store before it is forgotten everywhere.
        self.loads.doom_with(key, || {
            self.memory.remove(key, || tiers.fold(false, |any, tier| tier.remove(key) | any))
        })
    }

    /// Forgets what an operator wants removed, and what is just being fetched of it. Returns how many URLs were stored.
    pub async fn purge(&self, purge: &Purge) -> usize {
        self.purge_in(purge, |_| true).await
    }

    /// The same for what another weir has removed where both look.
    pub async fn purge_here(&self, purge: &Purge) -> usize {
        self.purge_in(purge, |tier| !tier.is_shared()).await
    }

    async fn purge_in(&self, purge: &Purge, takes: impl Fn(&dyn Tier) -> bool) -> usize {
        let _one_at_a_time = self.purging.lock().await;
        // Odd from here on. Searches that have begun do not land.
        let during = Odd::begin(&self.purges);
        // A tag is known only of what is stored: anything under way may have it.
        let by_tag = matches!(purge, Purge::Tag(_));
        self.flights.doom_all(|key| by_tag || purge.wants_key(key));
        self.loads.doom_all(|_| true);
        // Memory first: then no validation that is under way renews what is in the lower stores.
        let in_memory = self.memory.purge(|key, variants| purge.wants(key, variants));
        let mut purged: HashSet<u128> = in_memory.iter().map(store::hash).collect();
        for tier in self.lower.iter().filter(|tier| takes(tier.as_ref())) {
            purged.extend(tier.purge(purge).await);
        }
        drop(during);
        purged.len()
    }

    /// Waits until the lower stores have what they were given.
    pub async fn settle(&self) {
        for tier in &self.lower {
            tier.settle().await;
        }
    }

    /// Sets memory aside. None: so much is under way that what comes now is only passed on, at its client's pace.
    #[must_use]
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        let total = Arc::clone(&self.under_way);
        let mut reservation =
            Reservation { bytes: 0, total, most: self.most_under_way.load(Ordering::Relaxed) };
        reservation.resize(bytes).then_some(reservation)
    }

    /// What compression has made of bodies.
    #[must_use]
    pub fn coded(&self) -> &Coded {
        &self.coded
    }

    /// Why answers were not stored.
    #[must_use]
    pub fn notes(&self) -> &Notes {
        &self.notes
    }
}

/// Milliseconds since 1970-01-01 UTC: ages outlive the process, so no monotonic clock will do.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::Rules;
    use crate::config::Limits;
    use crate::http::head::{RequestHead, ResponseHead};
    use crate::http::parse::{self, Parsed};

    /// Clients that read slowly can't make more of memory theirs than the operator has given.
    #[test]
    fn what_is_under_way_is_bounded() {
        let cache = super::Cache::new(8 << 20, 1 << 20);
        let held: Vec<_> = std::iter::from_fn(|| cache.reserve(1 << 20)).collect();
        assert_eq!(held.len(), 4);
        assert!(cache.reserve(1).is_none());
        drop(held);
        let mut one = cache.reserve(3 << 20).unwrap();
        let mut other = cache.reserve(1 << 20).unwrap();
        assert!(!other.resize(2 << 20) && other.bytes() == 1 << 20);
        assert!(one.resize(1) && other.resize(2 << 20));
        drop((one, other));
        assert!(cache.reserve(4 << 20).is_some());
    }

    pub(super) const RULES: Rules = Rules { default_ttl: 300, targeted: false };

    pub(super) fn request(target: &str, fields: &str) -> RequestHead {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
        match parse::request(text.as_bytes(), &Limits::default()) {
            Ok(Parsed::Complete(head, _)) => head,
            other => panic!("not a head: {text} {other:?}"),
        }
    }

    pub(super) fn response(status: u16, fields: &str) -> ResponseHead {
        let text = format!("HTTP/1.1 {status} OK\r\n{fields}\r\n");
        match parse::response(text.as_bytes(), &Limits::default()) {
            Ok(Parsed::Complete(head, _)) => head,
            other => panic!("not a head: {text} {other:?}"),
        }
    }
}
