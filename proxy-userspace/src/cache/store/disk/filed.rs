//! A body in a file of its own: read in parts as it is delivered, each checked before it goes out.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::files::read;
use super::{Shared, is_absence};
use crate::cache::store::record::CHUNK;

/// The body, as long as somebody may read it. Its file is removed with it, unless a record on disk names it.
#[derive(Debug, Clone)]
pub struct Filed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    key: u128,
    serial: u64,
    length: u64,
    sums: Box<[u64]>,
    /// Open as long as somebody reads.
    file: Mutex<Weak<File>>,
    is_recorded: AtomicBool,
}

/// Keeps a body readable, even if its file is removed.
#[derive(Debug)]
pub struct Opened {
    _file: Arc<File>,
}

/// How long an answer waits for a file system to open or read a file.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

impl Filed {
    pub(super) fn new(
        shared: Arc<Shared>,
        (key, serial): (u128, u64),
        length: u64,
        sums: Box<[u64]>,
        is_recorded: bool,
    ) -> Self {
        let is_recorded = AtomicBool::new(is_recorded);
        Self(Arc::new(Inner { shared, key, serial, length, sums, file: Mutex::default(), is_recorded }))
    }

    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.length
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.length == 0
    }

    /// Bytes of memory, roughly.
    #[must_use]
    pub fn weight(&self) -> u64 {
        (size_of::<Inner>() + size_of_val(&*self.0.sums)) as u64
    }

    pub(super) fn serial(&self) -> u64 {
        self.0.serial
    }

    pub(super) fn sums(&self) -> &[u64] {
        &self.0.sums
    }

    /// A record names it: the index says how long it stays.
    pub(super) fn is_recorded(&self) {
        self.0.is_recorded.store(true, Ordering::Relaxed);
    }

    /// Opens it. None: it is gone, or is not what it was.
    pub async fn open(&self) -> Option<Opened> {
        if let Some(file) = self.0.open_file() {
            return Some(Opened { _file: file });
        }
        let inner = Arc::clone(&self.0);
        let opening = self.0.shared.reading.ask(move || inner.open());
        let opened = tokio::time::timeout(PATIENCE, opening).await.ok().flatten()?;
        opened.ok().map(|file| Opened { _file: file })
    }

    /// The part with this number, each of [`CHUNK`] bytes but for the last.
    ///
    /// # Errors
    /// It can't be read, or is not what was written.
    pub async fn chunk(&self, number: u64) -> io::Result<Bytes> {
        let inner = Arc::clone(&self.0);
        let reading = self.0.shared.reading.ask(move || inner.chunk(number));
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Some(read)) => read,
            Ok(None) => Err(io::Error::other("too many reads of stored responses wait")),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Whether all of it is what was written. Reads it as a whole.
    pub(super) fn is_intact(&self) -> bool {
        self.0
            .open()
            .is_ok_and(|_file| (0..self.0.sums.len() as u64).all(|number| self.0.chunk(number).is_ok()))
    }
}

impl Inner {
    fn open_file(&self) -> Option<Arc<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    fn open(&self) -> io::Result<Arc<File>> {
        if let Some(file) = self.open_file() {
            return Ok(file);
        }
        let opened = self.shared.folder.open_body(self.key, self.serial, self.length);
        let file = opened.inspect_err(|error| {
            if is_absence(error) {
                self.is_lost();
            }
        })?;
        let file = Arc::new(file);
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&file);
        Ok(file)
    }

    fn chunk(&self, number: u64) -> io::Result<Bytes> {
        let file = self.open()?;
        let offset = number * CHUNK;
        let length = CHUNK.min(self.length.saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        let is_whole = read(&file, &mut bytes, offset)?.is_some();
        let sum = usize::try_from(number).ok().and_then(|number| self.sums.get(number));
        if !is_whole || sum != Some(&xxh3_64(&bytes)) {
            self.is_lost();
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a stored body is damaged"));
        }
        self.shared.counts.read.fetch_add(length, Ordering::Relaxed);
        Ok(bytes.into())
    }

    /// It is not what it was: nobody is to be given it again.
    fn is_lost(&self) {
        self.shared.drop_damaged(self.key, |record| record.body == self.serial);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !*self.is_recorded.get_mut() {
            let (shared, key, serial) = (Arc::clone(&self.shared), self.key, self.serial);
            self.shared.writing.run(move || shared.note(shared.folder.remove_body(key, serial)));
        }
    }
}
