//! Where entries are kept. Memory answers every lookup; what it does not have may be found in a lower tier, each of
//! which is a file or folder here and a line in [`super::Cache`]'s making.

mod counts;
pub mod disk;
pub mod memory;
pub mod record;
#[cfg(feature = "redis")]
pub mod redis;

use std::collections::HashSet;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use smallvec::SmallVec;

use super::entry::{self, Entry};
use super::key::Key;
use super::purge::Purge;
use crate::http::headers::Headers;

/// What takes a while.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store below memory. It may be slow, full, damaged or gone: then it has nothing, and is never an error.
pub trait Tier: Debug + Send + Sync {
    /// Its name in statistics and metrics.
    fn name(&self) -> &'static str;

    /// Whether other weirs have it, too.
    fn is_shared(&self) -> bool {
        false
    }

    /// Whether it is worth asking. Never waits.
    fn may_have(&self, key: &Key) -> bool;

    /// What it has for a request with these fields, checked and whole.
    fn load<'a>(&'a self, key: &'a Key, request: &'a Headers) -> Later<'a, Option<Entry>>;

    /// Takes an entry, in the place of that for the same selection. Never waits: what can't be stored is not.
    fn store(&self, key: &Key, entry: &Arc<Entry>);

    /// Forgets a key, and what is just being stored for it: from now on nothing of it is found. Returns whether
    /// there was something, as far as that is known at once.
    fn remove(&self, key: &Key) -> bool;

    /// Forgets what an operator wants removed. Returns the hashes of the keys, once that is done.
    fn purge<'a>(&'a self, purge: &'a Purge) -> Later<'a, HashSet<u128>>;

    /// Up to `most` of the responses that an operator asks for.
    fn select<'a>(&'a self, most: usize, wanted: &'a Purge) -> Later<'a, Vec<(Key, Stored)>>;

    /// What it has done, and how it is.
    fn report(&self) -> Report;

    /// Waits until what it was given is stored.
    fn settle(&self) -> Later<'_, ()>;
}

/// A response in a store below memory.
#[derive(Debug, Clone)]
pub struct Stored {
    pub stored: entry::Stored,
    pub bytes: u64,
}

/// The statistics of a store; None: it does not know.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub store: &'static str,
    pub state: &'static str,
    pub keys: Option<u64>,
    pub bytes: Option<u64>,
    pub max_bytes: Option<u64>,
    pub evictions: Option<u64>,
    /// How often it was given up on, to be tried again later.
    pub opened: Option<u64>,
    pub hits: u64,
    pub stores: u64,
    pub bytes_read: u64,
    /// Not stored, for want of room or time.
    pub dropped: u64,
    pub errors: u64,
    /// Found not to be what was stored.
    pub damaged: u64,
}

/// The number by which keys are told apart where their text is too long. Stores compare the text, too.
#[must_use]
pub fn hash(key: &Key) -> u128 {
    xxhash_rust::xxh3::xxh3_128(key.as_str().as_bytes())
}

/// The responses stored for one key: one for each selection that Vary makes (RFC 9111 §4.1). The newest is first.
#[derive(Debug, Clone, Default)]
pub struct Variants(SmallVec<[Arc<Entry>; 1]>);

/// Variants kept of one key: a client that varies a field at will must not fill the store with one URL.
pub const MAX_VARIANTS: usize = 16;

impl Variants {
    /// The whole response for this request, the newest if there are several (RFC 9111 §4.1).
    #[must_use]
    pub fn select(&self, request: &Headers) -> Option<&Arc<Entry>> {
        self.0.iter().find(|entry| entry.part.is_none() && entry.stored.selection.matches(request))
    }

    /// Parts for this request.
    pub fn parts<'a>(&'a self, request: &'a Headers) -> impl Iterator<Item = &'a Arc<Entry>> + Clone {
        self.selected(request).filter(|entry| entry.part.is_some())
    }

    /// All for this request: the whole response and parts of it.
    pub fn selected<'a>(&'a self, request: &'a Headers) -> impl Iterator<Item = &'a Arc<Entry>> + Clone {
        self.0.iter().filter(|entry| entry.stored.selection.matches(request))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> + Clone {
        self.0.iter()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one in the place of that for the same selection, and drops the oldest if there are too many.
    #[must_use]
    pub fn with(&self, entry: Arc<Entry>) -> Self {
        let selection = &entry.stored.selection;
        let others = self.0.iter().filter(|other| other.stored.selection != *selection).cloned();
        let others: SmallVec<[_; 1]> = others.take(MAX_VARIANTS - 1).collect();
        let mut variants: SmallVec<[_; 1]> = SmallVec::with_capacity(1 + others.len());
        variants.push(entry);
        variants.extend(others);
        Self(variants)
    }

    /// Adds one from below behind all others, if there are not too many.
    #[must_use]
    pub fn with_older(&self, entry: Arc<Entry>) -> Self {
        Self(self.0.iter().take(MAX_VARIANTS - 1).cloned().chain([entry]).collect())
    }

    /// All without this one.
    #[must_use]
    pub fn without(&self, entry: &Arc<Entry>) -> Self {
        Self(self.0.iter().filter(|other| !Arc::ptr_eq(other, entry)).cloned().collect())
    }

    /// Bytes of memory, roughly.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.0.iter().map(|entry| entry.weight()).sum()
    }
}

impl FromIterator<Arc<Entry>> for Variants {
    fn from_iter<I: IntoIterator<Item = Arc<Entry>>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cache::body::Body;
    use crate::cache::directives::ResponseDirectives;
    use crate::cache::freshness::{Exchanged, Freshness};
    use crate::cache::storable::Storable;
    use crate::cache::tests::{RULES, request, response};
    use crate::cache::vary::Selection;

    /// A response that varies by the field X.
    pub(in crate::cache) fn entry(vary: &str, body: &[u8]) -> Arc<Entry> {
        let response = response(200, "Vary: X\r\nETag: \"a\"\r\nCache-Control: max-age=60\r\n");
        let directives = ResponseDirectives::of(&response.headers);
        let exchanged = Exchanged { sent: 0, received: 0 };
        let freshness = Freshness::of(&response, &directives, false, exchanged, &RULES);
        let selection = Selection::of(&wants(vary), &response.headers);
        let storable = Storable { freshness, selection: selection.unwrap(), directives };
        let body = Body::of(vec![Bytes::copy_from_slice(body)]);
        Arc::new(Entry { stored: entry::Stored::of(&response, storable), body, part: None })
    }

    /// The fields of a request for it.
    pub(in crate::cache) fn wants(vary: &str) -> Headers {
        request("/", &format!("X: {vary}\r\n")).headers
    }

    pub(in crate::cache) fn key(path: &str) -> Key {
        Key::from_text(&format!("http://a.example:80{path}"))
    }
}
