//! A response that is written to disk as it arrives. What the disk has not taken yet is in memory, and bounded; if it
//! takes no more, the response goes on to its first reader alone.

use std::io;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use bytes::Bytes;

use super::{Filling, Place, State, Writer};
use crate::cache::body::Body;

/// What may be in memory because the disk has not taken it yet.
pub(super) const WINDOW: u64 = 512 << 10;

/// Memory that is set aside for such a response: what waits for the disk, and what is just being read.
pub const MEMORY: u64 = 2 * WINDOW;

/// How long a disk may take to do anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is given to a reader at once, of what is on disk.
const GIVEN: usize = 256 << 10;

/// Some pieces that stand one after the other on disk.
pub(super) struct Places {
    pub at: Place,
    pub count: usize,
}

impl State {
    /// Bytes that the disk has not taken yet.
    pub(super) fn unwritten(&self) -> u64 {
        self.filled - self.written()
    }

    fn written(&self) -> u64 {
        self.places.last().map_or(0, |place| place.offset + place.length as u64)
    }

    /// Where the piece `next` is on disk, and those behind it.
    pub(super) fn place(&self, next: usize) -> Option<Places> {
        let first = self.places.get(next)?;
        let mut found = Places { at: *first, count: 1 };
        for place in &self.places[next + 1..] {
            if found.at.length + place.length > GIVEN {
                break;
            }
            found.at.length += place.length;
            found.count += 1;
        }
        Some(found)
    }

    /// Whether the last of it is before this piece, and is not in store yet: nobody is to have all of a response that he
    /// would not find there.
    pub(super) fn is_last(&self, piece: usize, length: Option<u64>) -> bool {
        let is_underway = self.end.is_none() && !self.passing;
        is_underway && piece >= self.pieces.len() && length.is_some_and(|length| self.filled >= length)
    }

    fn next_to_write(&self) -> Option<Bytes> {
        let next = self.pieces.get(self.places.len()).filter(|_| !self.passing)?;
        (!next.is_empty()).then(|| next.clone())
    }
}

impl Filling {
    /// Reads what a reader was told is on disk.
    ///
    /// # Errors
    /// As the disk says it.
    pub async fn read(&self, place: Place) -> io::Result<Bytes> {
        let spool = self.spool.as_ref().ok_or(io::ErrorKind::NotFound)?;
        match tokio::time::timeout(PATIENCE, spool.read(place.offset, place.length)).await {
            Ok(read) => read,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Has what has arrived written, unless somebody does already.
    pub(super) fn write_on(self: &Arc<Self>) {
        let Some(spool) = &self.spool else { return };
        let mut state = self.state();
        if state.spooling && !state.writing && state.next_to_write().is_some() {
            state.writing = true;
            drop(state);
            let filling = Arc::clone(self);
            spool.run(move || filling.write());
        }
    }

    /// Writes until nothing is left. Blocks.
    fn write(&self) {
        let Some(spool) = &self.spool else { return };
        loop {
            let mut state = self.state();
            let Some(piece) = state.next_to_write() else {
                state.writing = false;
                break;
            };
            drop(state);
            let appended = spool.append(&piece);
            state = self.state();
            match appended {
                // Passed on meanwhile, it may have been taken; it is on disk all the same.
                Ok(()) => self.note_written(state, piece.len()),
                Err(_) => {
                    state.writing = false;
                    drop(state);
                    self.pass_on();
                    break;
                }
            }
        }
        self.taken.send_modify(|count| *count += 1);
    }

    fn is_spooling(&self) -> bool {
        self.state().spooling
    }

    /// It is not going to be stored: its first reader alone goes on.
    fn pass_on(&self) {
        self.state().passing = true;
        // Who was kept from the last of it is so no longer.
        self.written.send_modify(|count| *count += 1);
    }

    fn note_written(&self, mut state: MutexGuard<'_, State>, length: usize) {
        let (index, offset) = (state.places.len(), state.written());
        state.places.push(Place { offset, length });
        state.pieces[index] = Bytes::new();
        if self.length.is_none() && state.unwritten() < WINDOW {
            // What grew with it was written.
            if let Some(reserved) = &mut state.reserved {
                // It never fails to become less.
                let _ = reserved.resize(MEMORY.min(reserved.bytes()));
            }
        }
        drop(state);
        self.taken.send_modify(|count| *count += 1);
    }

    /// Makes the whole of what was written a body. Blocks.
    fn finish(&self) {
        let filed = self.spool.as_ref().and_then(|spool| spool.finish().ok());
        match filed {
            Some(file) => self.state().filed = Some(Body::filed(file)),
            None => self.pass_on(),
        }
        self.taken.send_modify(|count| *count += 1);
    }
}

impl Writer {
    /// Before anything is put: makes sure that there is room on disk. If there is not, the response is only passed on.
    pub async fn prepare(&mut self) {
        if !self.filling.is_spooling() {
            return;
        }
        let filling = Arc::clone(&self.filling);
        let job = move || filling.spool.as_ref().is_some_and(|spool| spool.prepare().is_ok());
        if self.done(job).await != Some(true) {
            self.filling.pass_on();
        }
    }

    /// After all was put: waits until it is on disk.
    pub async fn settle(&mut self) {
        self.show();
        while self.filling.is_spooling() && !self.is_settled() {
            self.taken.borrow_and_update();
            if !self.is_settled() {
                self.wait_for_taken().await;
            }
        }
        if self.filling.is_spooling() && self.filling.is_stored() {
            let filling = Arc::clone(&self.filling);
            if self.done(move || filling.finish()).await.is_none() {
                self.filling.pass_on();
            }
        }
    }

    /// Waits until the disk, or the first reader, has taken something. A disk that takes nothing is not waited for.
    pub(super) async fn wait_for_taken(&mut self) {
        let spools = self.filling.is_spooling() && self.filling.is_stored();
        // The filling, which has the sender, is ours too: it can't fail.
        if !spools {
            let _ = self.taken.changed().await;
        } else if tokio::time::timeout(PATIENCE, self.taken.changed()).await.is_err() {
            self.filling.pass_on();
        }
    }

    fn is_settled(&self) -> bool {
        let state = self.filling.state();
        state.passing || state.places.len() == state.pieces.len()
    }

    /// Has something done by a thread of the store.
    async fn done<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.filling.spool.as_ref()?.run(move || drop(answer.send(job())));
        tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()
    }
}
