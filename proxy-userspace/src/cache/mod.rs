//! The HTTP cache (RFC 9111). What may be stored, how long it is fresh and which request it answers are pure functions
//! over parsed heads, a file a rule. [`Cache`] is what all workers share: the store, and the requests under way.
//!
//! Nothing here reads from or writes to a connection: `pipeline::caching` does that.

pub mod conditional;
pub mod date;
pub mod directives;
pub mod entry;
pub mod filling;
pub mod flights;
pub mod freshness;
pub mod headers;
pub mod key;
pub mod purge;
pub mod range;
pub mod report;
pub mod storable;
pub mod store;
pub mod stored_head;
pub mod targeted;
pub mod vary;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use entry::Entry;
use flights::{Flights, Lead};
use key::Key;
use purge::Purge;
use store::Variants;
use store::memory::Memory;

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
    flights: Arc<Flights>,
    /// Keys whose answers were not for everybody, and until when nobody need wait for one of them.
    personal: quick_cache::sync::Cache<Key, u64>,
}

/// Keys that are remembered as [`Cache::personal`], and for how many milliseconds.
const PERSONAL_KEYS: usize = 4096;
const PERSONAL_SPAN: u64 = 60_000;

impl Cache {
    /// An empty cache of `capacity` bytes, for objects of up to `max_object`.
    #[must_use]
    pub fn new(capacity: u64, max_object: u64) -> Self {
        Self {
            memory: Memory::new(capacity, max_object),
            flights: Arc::default(),
            personal: quick_cache::sync::Cache::new(PERSONAL_KEYS),
        }
    }

    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    #[must_use]
    pub fn flights(&self) -> &Arc<Flights> {
        &self.flights
    }

    /// What is stored for a key.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<Arc<Variants>> {
        self.memory.find(key)
    }

    /// Stores the answer to a request that was announced as under way.
    pub fn store(&self, lead: &Lead, entry: Entry) {
        lead.land(|key| self.memory.store(key, Arc::new(entry)));
    }

    /// Puts `new` in the place of `old`, or nothing.
    pub fn replace(&self, key: &Key, old: &Arc<Entry>, new: Option<Arc<Entry>>) {
        self.memory.replace(key, old, new);
    }

    /// Forgets what is stored for a key, and what is just being fetched for it (RFC 9111 §4.4).
    pub fn invalidate(&self, key: &Key) -> bool {
        self.flights.doom(key);
        self.memory.remove(key)
    }

    /// Forgets what an operator wants removed, and what is just being fetched of it. Returns how many URLs were stored.
    pub fn purge(&self, purge: &Purge) -> usize {
        // A tag is known only of what is stored: anything under way may have it.
        let by_tag = matches!(purge, Purge::Tag(_));
        self.flights.doom_all(|key| by_tag || purge.wants_key(key));
        self.memory.purge(|key, variants| purge.wants(key, variants)).len()
    }

    /// Remembers that the answers for a key are not stored: nobody need wait for another's.
    pub fn note_personal(&self, key: &Key, now: u64) {
        self.personal.insert(key.clone(), now + PERSONAL_SPAN);
    }

    /// Whether waiting for another's answer is likely to be in vain.
    #[must_use]
    pub fn is_personal(&self, key: &Key, now: u64) -> bool {
        self.personal.get(key).is_some_and(|until| now < until)
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
