//! A body that is written while it arrives, because it is too large for memory. All but [`Spool::read`] blocks, and is
//! for the threads of the store.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use nix::fcntl::{FallocateFlags, fallocate};

use super::Shared;
use super::filed::Filed;
use super::files::read;
use crate::cache::store::record::Sums;

/// The body. What was written is removed with it, unless it was finished.
#[derive(Debug)]
pub struct Spool {
    shared: Arc<Shared>,
    key: u128,
    serial: u64,
    /// None: it is as long as it turns out to be.
    length: Option<u64>,
    /// Bytes of the store's room for such bodies.
    taken: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<Arc<File>>,
    sums: Sums,
    written: u64,
    is_finished: bool,
}

impl Spool {
    /// None: there is no room for it now.
    pub(super) fn begin(shared: &Arc<Shared>, key: u128, length: Option<u64>) -> Option<Self> {
        let (shared, serial) = (Arc::clone(shared), shared.next_serial());
        let spool = Self { shared, key, serial, length, taken: AtomicU64::new(0), state: Mutex::default() };
        spool.take(length.unwrap_or(0)).then_some(spool)
    }

    /// Takes so many bytes more of the room.
    fn take(&self, bytes: u64) -> bool {
        let most = self.shared.most_spooled();
        let fits = |spooled: u64| spooled.checked_add(bytes).filter(|total| *total <= most);
        let fits = self.shared.spooled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if fits {
            self.taken.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Does `job`, which may block, on a thread of the store.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.writing.run(job);
    }

    /// Makes the file, and has the file system set its room aside: whoever begins to read it is to get all of it.
    ///
    /// # Errors
    /// There is no room, or nothing can be written.
    pub fn prepare(&self) -> io::Result<()> {
        let made = self.shared.folder.begin(self.serial).and_then(|file| {
            let Some(length) = self.length else { return Ok(file) };
            let length = i64::try_from(length).map_err(io::Error::other)?;
            match fallocate(&file, FallocateFlags::empty(), 0, length) {
                // Some file systems can't.
                Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => Ok(file),
                Err(errno) => Err(errno.into()),
            }
        });
        let file = made.inspect_err(|error| self.shared.trouble(error))?;
        self.state().file = Some(Arc::new(file));
        Ok(())
    }

    /// Writes what comes next.
    ///
    /// # Errors
    /// It could not be written.
    pub fn append(&self, content: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let file = match (&state.file, self.length) {
            (Some(file), _) => Arc::clone(file),
            (None, Some(_)) => return Err(io::ErrorKind::NotFound.into()),
            (None, None) => {
                drop(state);
                self.prepare()?;
                state = self.state();
                state.file.clone().ok_or(io::ErrorKind::NotFound)?
            }
        };
        let grows = self.length.is_none();
        let is_too_large = state.written + content.len() as u64 > self.shared.max_object;
        if grows && (is_too_large || !self.take(content.len() as u64)) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // No lock is held while the disk works: readers want to know the file.
        drop(state);
        (&*file).write_all(content).inspect_err(|error| self.shared.trouble(error))?;
        state = self.state();
        state.sums.update(content);
        state.written += content.len() as u64;
        Ok(())
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// That can't be done, or something of it is missing.
    pub fn finish(&self) -> io::Result<Filed> {
        let mut state = self.state();
        let length = state.written;
        if self.length.is_some_and(|announced| announced != length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let sums = std::mem::take(&mut state.sums).finish();
        self.shared.folder.put_body(self.key, self.serial).inspect_err(|error| self.shared.trouble(error))?;
        state.is_finished = true;
        let place = (self.key, self.serial);
        Ok(Filed::new(Arc::clone(&self.shared), place, length, sums, false))
    }

    /// Reads some of what was written.
    ///
    /// # Errors
    /// As the file system says it.
    pub async fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let file = self.state().file.clone().ok_or(io::ErrorKind::NotFound)?;
        let reading = self.shared.reading.ask(move || {
            let mut bytes = vec![0; length];
            read(&file, &mut bytes, offset)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(bytes.into())
        });
        reading.await.unwrap_or_else(|| Err(io::Error::other("too many reads of stored responses wait")))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.shared.spooled.fetch_sub(*self.taken.get_mut(), Ordering::Relaxed);
        let was_begun = self.length.is_some() || self.state().file.is_some();
        if was_begun && !self.state().is_finished {
            let (shared, serial) = (Arc::clone(&self.shared), self.serial);
            self.shared.writing.run(move || shared.folder.abandon(serial));
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        text.debug_struct("State").field("written", &self.written).finish_non_exhaustive()
    }
}
