//! Finds again what an earlier weir has stored, while this one serves already. Names and sizes are all that is looked at:
//! whether a record is whole shows when it is read. What was written in another format is removed.

use std::collections::HashMap;
use std::fs::{DirEntry, ReadDir};
use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::Ordering;

use super::files::{Name, parse_body, parse_temporary};
use super::index::{Gone, Record};
use super::{Shared, format};

/// Fills the index. Ends early when the store is gone.
pub(super) fn scan(shared: &Weak<Shared>) {
    let Some(store) = shared.upgrade() else { return };
    let shards: Vec<_> = store.folder.shards().collect();
    clear_unfinished(&store);
    let is_current = format::is_current(store.folder.path());
    drop(store);
    let mut dropped = 0;
    for shard in shards {
        let Some(store) = shared.upgrade() else { return };
        match std::fs::read_dir(&shard) {
            Ok(entries) if is_current => read_shard(&store, entries),
            Ok(entries) => dropped += drop_shard(&store, entries),
            Err(_) => {}
        }
    }
    if let Some(store) = shared.upgrade() {
        if !is_current {
            store.note(format::note(&store.folder));
        }
        if dropped > 0 {
            let path = store.folder.path().display();
            tracing::info!(%path, dropped, "the disk store was written by another version of weir: it begins anew");
        }
        store.scanned.store(true, Ordering::Release);
        let (keys, bytes) = store.index.size();
        tracing::info!(path = %store.folder.path().display(), keys, bytes, "the disk store has been read in");
    }
}

/// Removes what an earlier weir was writing when it ended.
fn clear_unfinished(shared: &Shared) {
    let Ok(entries) = std::fs::read_dir(shared.folder.unfinished()) else { return };
    for entry in entries.flatten() {
        let serial = entry.file_name().to_str().and_then(parse_temporary);
        if serial.is_some_and(|serial| serial < shared.first_serial) {
            shared.note(std::fs::remove_file(entry.path()));
        }
    }
}

fn read_shard(shared: &Shared, entries: ReadDir) {
    let (mut records, mut bodies) = (Vec::new(), HashMap::new());
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        // What this weir has written is in the index, or about to be.
        if let Some(name) = Name::parse(name).filter(|name| name.serial < shared.first_serial) {
            records.extend(size_of(&entry).map(|size| (name, size)));
        } else if let Some(body) = parse_body(name).filter(|(_, serial)| *serial < shared.first_serial) {
            bodies.extend(size_of(&entry).map(|size| (body, size)));
        }
    }
    records.sort_unstable_by_key(|(name, _)| name.serial);
    for (name, size) in &records {
        let body = match name.body {
            0 => Some(0),
            serial => bodies.get(&(name.key, serial)).copied(),
        };
        let gone = match body {
            Some(body) => {
                let Name { key, selection, serial, body: file, hints } = *name;
                shared.index.found(key, Record { selection, serial, body: file, hints, size: size + body })
            }
            None => vec![Gone { name: *name, keep_body: true }],
        };
        shared.remove_files(&gone);
    }
    // Bodies whose records were never written, or are gone.
    for (key, serial) in bodies.into_keys() {
        if !records.iter().any(|(name, _)| (name.key, name.body) == (key, serial)) {
            shared.note(shared.folder.remove_body(key, serial));
        }
    }
}

/// Removes what an earlier weir has stored. Returns how many files that were.
fn drop_shard(shared: &Shared, entries: ReadDir) -> u64 {
    let mut dropped = 0;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let serial = Name::parse(name).map(|name| name.serial).or(parse_body(name).map(|(_, serial)| serial));
        if serial.is_some_and(|serial| serial < shared.first_serial) {
            shared.note(std::fs::remove_file(entry.path()));
            dropped += 1;
        }
    }
    dropped
}

/// The size of a plain file.
fn size_of(entry: &DirEntry) -> Option<u64> {
    let about = entry.metadata().ok()?;
    about.is_file().then_some(about.len())
}

/// Whether nothing has been stored there yet: there is nothing to be read in.
pub(super) fn is_new(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}
