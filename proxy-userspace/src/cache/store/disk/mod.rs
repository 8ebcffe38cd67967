//! Entries on disk, which outlive weir. A record is a file, written as a whole and renamed into its place; a body too
//! large for memory is a file beside it, written while it arrives. Nothing is written through to the device: what a
//! crash of the machine tears is found by its checksums, and is a miss.
//!
//! What blocks is done by threads of the store's own. There is no journal and no database: the folder is all there is,
//! and the index of it is in memory.

mod filed;
mod files;
mod format;
mod index;
mod pool;
mod scan;
mod spool;
mod walk;
mod work;

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::counts::Counts;
use super::{Later, Report, Stored, Tier, hash};
use crate::cache;
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::purge::Purge;
use crate::http::headers::Headers;
pub use filed::{Filed, Opened};
pub use files::DiskError;
use files::Folder;
use index::{Gone, Index, Record};
use pool::Pool;
pub use spool::Spool;

/// The store.
#[derive(Debug)]
pub struct Disk(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    folder: Folder,
    index: Index,
    reading: Pool,
    writing: Pool,
    serial: AtomicU64,
    first_serial: u64,
    max_size: u64,
    max_object: u64,
    /// Bytes that wait to be written, and those of bodies that are written as they arrive.
    queued: AtomicU64,
    spooled: AtomicU64,
    /// Nothing is written before, in milliseconds since 1970-01-01 UTC, and when that was last told of.
    paused_until: AtomicU64,
    told: AtomicU64,
    /// The index has all that was there at the start.
    scanned: AtomicBool,
    counts: Counts,
}

/// Threads that read, and reads that may wait.
const READERS: usize = 4;
const MOST_READS: usize = 4096;

/// Threads that write.
const WRITERS: usize = 2;

/// Bytes that may wait to be written: more, and what comes is not stored on disk.
const MOST_QUEUED: u64 = 64 << 20;

/// The part of the store's size that is for bodies under way.
const SPOOLED_PART: u64 = 8;

/// How long nothing is written after that has failed, and how often it is told of.
const PAUSE: u64 = 2_000;
const TELL: u64 = 60_000;

impl Disk {
    /// The store in a folder, of up to `max_size` bytes, for bodies of up to `max_object`. What is there already is found
    /// in the background.
    ///
    /// # Errors
    /// [`DiskError`]
    pub fn open(path: &Path, max_size: u64, max_object: u64) -> Result<Self, DiskError> {
        Self::start(Folder::take(path)?, max_size, max_object)
    }

    /// As [`Disk::open`], of a folder that an earlier weir uses, which hands its lock over and writes nothing more.
    ///
    /// # Errors
    /// [`DiskError`]
    pub fn adopt(path: &Path, lock: OwnedFd, max_size: u64, max_object: u64) -> Result<Self, DiskError> {
        Self::start(Folder::adopt(path, lock)?, max_size, max_object)
    }

    /// The folder's lock, for the weir that takes this one's place.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn lock_descriptor(&self) -> io::Result<OwnedFd> {
        self.0.folder.lock_descriptor()
    }

    /// Writes nothing from now on: the folder is another weir's. What is there can be read and removed.
    pub fn retire(&self) {
        self.0.paused_until.store(u64::MAX, Ordering::Relaxed);
    }

    fn start(folder: Folder, max_size: u64, max_object: u64) -> Result<Self, DiskError> {
        let pool = |name, threads, most| Pool::start(name, threads, most).map_err(DiskError::Thread);
        let first_serial = cache::now() * 1000;
        let shared = Arc::new(Shared {
            index: Index::new(max_size - max_size / SPOOLED_PART),
            reading: pool("weir-disk-read", READERS, MOST_READS)?,
            writing: pool("weir-disk-write", WRITERS, usize::MAX)?,
            serial: AtomicU64::new(first_serial),
            first_serial,
            max_size,
            max_object,
            queued: AtomicU64::new(0),
            spooled: AtomicU64::new(0),
            paused_until: AtomicU64::new(0),
            told: AtomicU64::new(0),
            scanned: AtomicBool::new(false),
            counts: Counts::default(),
            folder,
        });
        let is_new = scan::is_new(shared.folder.path());
        if let Err(error) = shared.folder.probe() {
            shared.trouble(&error);
        }
        if is_new {
            shared.note(format::note(&shared.folder));
            shared.scanned.store(true, Ordering::Release);
        } else {
            let store = Arc::downgrade(&shared);
            let thread = std::thread::Builder::new().name("weir-disk-scan".into());
            thread.spawn(move || scan::scan(&store)).map_err(DiskError::Thread)?;
        }
        Ok(Self(shared))
    }

    /// The largest body that is stored.
    #[must_use]
    pub fn max_object(&self) -> u64 {
        self.0.max_object
    }

    /// A place for a body of so many bytes, as far as that is known, that is to be written as it arrives. None: there is
    /// none now.
    #[must_use]
    pub fn spool(&self, key: &Key, length: Option<u64>) -> Option<Spool> {
        let is_too_large = length.is_some_and(|length| length > self.0.max_object);
        if is_too_large || !key.outlives_boot() || self.0.is_paused() {
            return None;
        }
        Spool::begin(&self.0, hash(key), length)
    }
}

impl Tier for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn may_have(&self, key: &Key) -> bool {
        self.0.index.has(hash(key))
    }

    fn load<'a>(&'a self, key: &'a Key, request: &'a Headers) -> Later<'a, Option<Entry>> {
        let (shared, key, request) = (Arc::clone(&self.0), key.clone(), request.clone());
        Box::pin(async move {
            let reading = self.0.reading.ask(move || shared.find(&key, &request));
            reading.await.flatten()
        })
    }

    fn store(&self, key: &Key, entry: &Arc<Entry>) {
        if !key.outlives_boot() {
            return;
        }
        let shared = &self.0;
        let held = if entry.body.held().is_some() { entry.body.len() } else { 0 };
        let size = held + entry.stored.weight() as u64;
        let fits = |queued: u64| queued.checked_add(size).filter(|total| *total <= MOST_QUEUED);
        let takes = entry.part.is_none() && entry.body.len() <= shared.max_object && !shared.is_paused();
        if !takes || shared.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            shared.counts.dropped.fetch_add(1, Ordering::Relaxed);
            // What is there is older than what could not be stored.
            self.remove(key);
            return;
        }
        let ticket = shared.index.announce(hash(key), shared.next_serial());
        let (shared, key, entry) = (Arc::clone(shared), key.clone(), Arc::clone(entry));
        self.0.writing.run(move || {
            shared.write(&ticket, &key, &entry);
            shared.queued.fetch_sub(size, Ordering::Relaxed);
        });
    }

    fn remove(&self, key: &Key) -> bool {
        let gone = self.0.index.remove(hash(key), self.0.last_serial());
        let any = !gone.is_empty();
        self.0.remove_later(gone);
        any
    }

    fn purge<'a>(&'a self, purge: &'a Purge) -> Later<'a, HashSet<u128>> {
        let (shared, purge) = (Arc::clone(&self.0), purge.clone());
        Box::pin(async move {
            shared.index.doom_unfinished(shared.last_serial());
            let purging = self.0.reading.ask(move || shared.purge(&purge));
            purging.await.unwrap_or_default()
        })
    }

    fn select<'a>(&'a self, most: usize, wanted: &'a Purge) -> Later<'a, Vec<(Key, Stored)>> {
        let (shared, wanted) = (Arc::clone(&self.0), wanted.clone());
        Box::pin(async move {
            let selecting = self.0.reading.ask(move || shared.select(most, &wanted));
            selecting.await.unwrap_or_default()
        })
    }

    fn report(&self) -> Report {
        let (keys, bytes) = self.0.index.size();
        let state = match (self.0.scanned.load(Ordering::Acquire), self.0.is_paused()) {
            (_, true) => "paused",
            (false, false) => "reading in",
            (true, false) => "ready",
        };
        Report {
            keys: Some(keys),
            bytes: Some(bytes + self.0.spooled.load(Ordering::Relaxed)),
            max_bytes: Some(self.0.max_size),
            evictions: Some(self.0.index.evictions()),
            ..self.0.counts.report(self.name(), state)
        }
    }

    fn settle(&self) -> Later<'_, ()> {
        Box::pin(async {
            while self.0.writing.open() > 0 {
                tokio::time::sleep(LOOK).await;
            }
        })
    }
}

/// How often it is looked whether everything has been written.
const LOOK: Duration = Duration::from_millis(10);

impl Shared {
    fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn last_serial(&self) -> u64 {
        self.serial.load(Ordering::Relaxed)
    }

    fn most_spooled(&self) -> u64 {
        self.max_size / SPOOLED_PART
    }

    fn is_paused(&self) -> bool {
        cache::now() < self.paused_until.load(Ordering::Relaxed)
    }

    /// Something could not be written. Trying again at once would only cost.
    fn trouble(&self, error: &io::Error) {
        self.counts.errors.fetch_add(1, Ordering::Relaxed);
        let now = cache::now();
        self.paused_until.fetch_max(now + PAUSE, Ordering::Relaxed);
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            self.remove_files(&self.index.shrink());
        }
        if now.saturating_sub(self.told.swap(now, Ordering::Relaxed)) > TELL {
            let path = self.folder.path().display();
            tracing::warn!(%error, %path, "can't write to the disk store: what can't be stored there is not");
        }
    }

    /// Removes what turned out not to be what was written.
    fn drop_damaged(&self, key: u128, which: impl Fn(&Record) -> bool) {
        let gone = self.index.remove_one(key, which);
        self.counts.damaged.fetch_add(gone.len() as u64, Ordering::Relaxed);
        self.remove_files(&gone);
    }

    fn remove_later(self: &Arc<Self>, gone: Vec<Gone>) {
        if !gone.is_empty() {
            let shared = Arc::clone(self);
            // There are never more of these than records.
            self.writing.run(move || shared.remove_files(&gone));
        }
    }

    /// Blocks.
    fn remove_files(&self, gone: &[Gone]) {
        for Gone { name, keep_body } in gone {
            // The record first: one without a body is a miss, a body without a record only takes room.
            self.note(self.folder.remove(name));
            if name.body != 0 && !keep_body {
                self.note(self.folder.remove_body(name.key, name.body));
            }
        }
    }

    fn note(&self, done: io::Result<()>) {
        if let Err(error) = done {
            self.counts.errors.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%error, "a file of the disk store can't be removed");
        }
    }
}

/// Whether there is no such file, or something else in its place.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), NotFound | InvalidData | UnexpectedEof)
}

#[cfg(test)]
mod tests;
