//! A body that is written while it arrives, because it is too large for memory. All but [`Spool::read`] blocks, and is
//! for the threads of the store.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
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
    length: u64,
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
    pub(super) fn begin(shared: &Arc<Shared>, key: u128, length: u64) -> Option<Self> {
        let most = shared.most_spooled();
        let fits = |spooled: u64| spooled.checked_add(length).filter(|total| *total <= most);
        shared.spooled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        let (shared, serial) = (Arc::clone(shared), shared.next_serial());
        Some(Self { shared, key, serial, length, state: Mutex::default() })
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
            let length = i64::try_from(self.length).map_err(io::Error::other)?;
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
        let file = state.file.clone().ok_or(io::ErrorKind::NotFound)?;
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
        if state.written != self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let sums = std::mem::take(&mut state.sums).finish();
        self.shared.folder.put_body(self.key, self.serial).inspect_err(|error| self.shared.trouble(error))?;
        state.is_finished = true;
        let place = (self.key, self.serial);
        Ok(Filed::new(Arc::clone(&self.shared), place, self.length, sums, false))
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
        self.shared.spooled.fetch_sub(self.length, Ordering::Relaxed);
        if !self.state().is_finished {
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
