//! What the threads of the store do: read a record, write one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::files::Read;
use super::index::name;
use super::index::{Record, Ticket};
use super::{Filed, Shared, is_absence};
use crate::cache::body::Body;
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::purge::Hints;
use crate::cache::store::{hash, record};
use crate::http::headers::Headers;

/// Bodies in files of their own up to this are checked as a whole when they are first found; of larger ones, each part is
/// when it is delivered.
const CHECKED_WHOLE: u64 = 64 << 20;

impl Shared {
    /// What answers a request. Blocks.
    pub(super) fn find(self: &Arc<Self>, key: &Key, request: &Headers) -> Option<Entry> {
        let hash = hash(key);
        for record in &*self.index.find(hash)? {
            let name = name(hash, record);
            let is_it = |meta: &record::Meta| meta.key == *key && meta.stored.selection.matches(request);
            let body = match self.folder.read(&name, is_it) {
                Ok(Read::Other) => continue,
                Ok(Read::Record { meta, body: Some(body) }) => {
                    self.counts.read.fetch_add(body.len() as u64, Ordering::Relaxed);
                    Some((meta.stored, Body::whole(&body.into())))
                }
                Ok(Read::Record { meta, body: None }) => {
                    let record::Meta { stored, length, sums, .. } = *meta;
                    let file = Filed::new(Arc::clone(self), (hash, record.body), length, sums, true);
                    let good = match length {
                        0..=CHECKED_WHOLE => file.is_intact(),
                        _ => self.folder.open_body(hash, record.body, length).is_ok(),
                    };
                    good.then(|| (stored, Body::filed(file)))
                }
                Ok(Read::Damaged) => None,
                Err(error) if is_absence(&error) => None,
                Err(error) => {
                    // It may be there, and good.
                    self.counts.errors.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%error, %name, "a stored response can't be read");
                    continue;
                }
            };
            if let Some((stored, body)) = body {
                self.counts.hits.fetch_add(1, Ordering::Relaxed);
                return Some(Entry { stored, body, part: None });
            }
            self.drop_damaged(hash, |other| other.serial == record.serial);
        }
        None
    }

    /// Writes an entry. Blocks.
    pub(super) fn write(&self, ticket: &Ticket, key: &Key, entry: &Entry) {
        let file = entry.body.file().map(|(file, _)| file);
        let bytes = match file {
            Some(file) => {
                let body = (file.len(), file.serial());
                Some(record::begin(key, &entry.stored, file.sums(), body))
            }
            None => record::whole(key, entry),
        };
        let Some(bytes) = bytes else { return self.index.give_up(ticket) };
        let record = Record {
            selection: record::selection_hash(&entry.stored.selection),
            serial: ticket.serial,
            body: file.map_or(0, Filed::serial),
            hints: Hints::of(key, &entry.stored.head),
            size: bytes.len() as u64 + file.map_or(0, Filed::len),
        };
        match self.folder.write(&name(ticket.key, &record), &bytes) {
            Ok(()) => {
                if let Some(file) = file {
                    file.is_recorded();
                }
                self.counts.stores.fetch_add(1, Ordering::Relaxed);
                self.remove_files(&self.index.insert(ticket, record));
            }
            Err(error) => {
                self.index.give_up(ticket);
                let outdated = self.index.remove_one(ticket.key, |other| {
                    other.selection == record.selection && other.serial < record.serial
                });
                self.remove_files(&outdated);
                self.trouble(&error);
            }
        }
    }
}
