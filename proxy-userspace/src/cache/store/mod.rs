//! Where entries are kept. Memory answers every lookup; what it has lost may still be found in lower tiers.

pub mod memory;

use std::sync::Arc;

use smallvec::SmallVec;

use super::entry::Entry;
use crate::http::headers::Headers;

/// The responses stored for one key: one for each selection that Vary makes (RFC 9111 §4.1). The newest is first.
#[derive(Debug, Clone, Default)]
pub struct Variants(SmallVec<[Arc<Entry>; 1]>);

/// Variants kept of one key: a client that varies a field at will must not fill the store with one URL.
pub const MAX_VARIANTS: usize = 16;

impl Variants {
    /// The one that answers this request, the newest if there are several (RFC 9111 §4.1).
    #[must_use]
    pub fn select(&self, request: &Headers) -> Option<&Arc<Entry>> {
        self.0.iter().find(|entry| entry.stored.selection.matches(request))
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
