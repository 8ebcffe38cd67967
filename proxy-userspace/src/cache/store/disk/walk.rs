//! What needs more of records than the index has: their keys and heads. Reads the head of each that may be meant, and is
//! for operators' requests only: a pattern without a host takes some time.

use std::collections::HashSet;
use std::sync::Arc;

use super::Shared;
use super::files::Read;
use super::index::name;
use crate::cache::body::Body;
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::purge::Purge;
use crate::cache::store::{Stored, Variants};

impl Shared {
    /// Removes what is unwanted, and returns the hashes of its keys. Blocks.
    pub(super) fn purge(&self, purge: &Purge) -> HashSet<u128> {
        let mut purged = HashSet::new();
        for (hash, records) in self.index.all() {
            let unwanted = *purge == Purge::All
                || records.iter().any(|record| self.wants(hash, record, purge).is_some());
            if unwanted {
                let gone = self.index.remove(hash, self.last_serial());
                purged.extend((!gone.is_empty()).then_some(hash));
                self.remove_files(&gone);
            }
        }
        purged
    }

    /// Some of what is wanted. Blocks.
    pub(super) fn select(&self, most: usize, wanted: &Purge) -> Vec<(Key, Stored)> {
        let mut found = Vec::new();
        for (hash, records) in self.index.all() {
            found.extend(records.iter().filter_map(|record| self.wants(hash, record, wanted)));
            if found.len() >= most {
                break;
            }
        }
        found.truncate(most);
        found
    }

    fn wants(&self, hash: u128, record: &super::Record, wanted: &Purge) -> Option<(Key, Stored)> {
        if !record.hints.may_be(wanted) {
            return None;
        }
        let mut found = None;
        // Nothing is the right one: only the head is read.
        let read = self.folder.read(&name(hash, record), |meta| {
            let head = Entry { stored: meta.stored.clone(), body: Body::default(), part: None };
            if wanted.wants(&meta.key, &Variants::default().with(Arc::new(head))) {
                let stored = Stored { stored: meta.stored.clone(), bytes: meta.length };
                found = Some((meta.key.clone(), stored));
            }
            false
        });
        if matches!(read, Ok(Read::Damaged)) {
            self.drop_damaged(hash, |other| other.serial == record.serial);
        }
        found
    }
}
