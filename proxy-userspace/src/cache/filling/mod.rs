//! A response that is being stored while it arrives: one writer, any number of readers, each at its own pace.
//!
//! Readers never slow the writer down, as long as the response can be stored: a client that reads slowly must not keep
//! others waiting. If it turns out too large to be stored, only its first reader goes on, and sets the pace.
//!
//! What is too large for memory is written to disk as it arrives (`spooled`), and readers read it from there.

mod spooled;

pub use spooled::MEMORY as SPOOLED;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::Reservation;
use super::body::Body;
use super::entry::Stored;
use super::range::Span;
use super::store::disk::Spool;

/// A response under way.
#[derive(Debug)]
pub struct Filling {
    pub stored: Stored,
    /// Its Content-Length, if it has one, and that is not too large to store.
    pub length: Option<u64>,
    pub part: Option<(Span, u64)>,
    state: Mutex<State>,
    /// Counts what the writer does, and what the first reader takes.
    written: watch::Sender<u64>,
    taken: watch::Sender<u64>,
    /// Readers beside the first.
    followers: AtomicUsize,
    /// Where it is written to, if it is too large for memory, or once it is so.
    spool: Option<Spool>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that are on disk are empty here.
    pieces: Vec<Bytes>,
    /// The places of those that are on disk: the first so many.
    places: Vec<Place>,
    /// Somebody is writing them.
    writing: bool,
    /// What was written has become this.
    filed: Option<Body>,
    filled: u64,
    reserved: Option<Reservation>,
    /// It is written to disk.
    spooling: bool,
    /// Too large: pieces are dropped once the first reader has them.
    passing: bool,
    unread: u64,
    trailers: Option<Arc<[u8]>>,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Cut,
}

/// Where in a file something is.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub offset: u64,
    pub length: usize,
}

/// What a reader is given.
#[derive(Debug)]
pub enum Given {
    Piece(Bytes),
    /// To be read by [`Filling::read`].
    Filed(Place),
    Nothing,
    /// With what follows the body, if anything.
    Whole(Option<Arc<[u8]>>),
    Cut,
}

/// What a response may hold back in memory once it is only passed on.
const WINDOW: u64 = 256 << 10;

/// Pieces are cut from blocks of this size.
const BLOCK: usize = 64 << 10;

impl Filling {
    /// A response of which nothing has arrived yet; its writer, and its first reader.
    #[must_use]
    pub fn begin(
        stored: Stored,
        length: Option<u64>,
        part: Option<(Span, u64)>,
        reserved: Option<Reservation>,
        spool: Option<Spool>,
    ) -> (Writer, Reader) {
        // What is of unknown length may yet be small.
        let state = State { reserved, spooling: spool.is_some() && length.is_some(), ..State::default() };
        let filling = Arc::new(Self {
            stored,
            length,
            part,
            state: Mutex::new(state),
            written: watch::Sender::new(0),
            taken: watch::Sender::new(0),
            followers: AtomicUsize::new(0),
            spool,
        });
        let reader = Reader {
            written: filling.written.subscribe(),
            filling: Arc::clone(&filling),
            next: 0,
            first: true,
        };
        let taken = filling.taken.subscribe();
        (Writer { filling, block: BytesMut::new(), taken, most: u64::MAX, in_memory: u64::MAX }, reader)
    }

    /// A further reader, from the beginning. None if the response may yet turn out too large.
    #[must_use]
    pub fn follow(self: &Arc<Self>) -> Option<Reader> {
        self.length?;
        if self.state().passing {
            return None;
        }
        self.followers.fetch_add(1, Ordering::Relaxed);
        Some(Reader { written: self.written.subscribe(), filling: Arc::clone(self), next: 0, first: false })
    }

    /// What follows the body, once that is whole.
    #[must_use]
    pub fn trailers(&self) -> Option<Arc<[u8]>> {
        self.state().trailers.clone()
    }

    /// Whether it is to be stored, as far as is known yet.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        !self.state().passing
    }

    /// Whether somebody beside the first reader waits for it.
    #[must_use]
    pub fn has_followers(&self) -> bool {
        self.followers.load(Ordering::Relaxed) > 0
    }

    /// What has arrived of a response that has not ended well, and which part of it that is; if it is in memory, and its
    /// length is known.
    #[must_use]
    pub fn arrived(&self) -> Option<(Body, (Span, u64))> {
        let state = self.state();
        if state.passing || state.filled == 0 || state.spooling {
            return None;
        }
        let (start, length) = match self.part {
            Some((span, length)) => (span.start, length),
            None => (0, self.length?),
        };
        let span = Span { start, end: start + state.filled };
        // Nobody promised that no more comes than was announced.
        (span.end <= length).then(|| (Body::of(state.pieces.clone()), (span, length)))
    }

    fn has_room(&self) -> bool {
        let state = self.state();
        match (state.passing, state.spooling) {
            (true, _) => state.unread < WINDOW,
            (false, true) => state.unwritten() < spooled::WINDOW,
            (false, false) => true,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete before anything in it can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether memory is set aside for what has arrived. Where the length was not known, that grows with it.
    fn has_reserved(&mut self, most: u64) -> bool {
        let filled = self.filled;
        let Some(reserved) = &mut self.reserved else { return true };
        filled <= reserved.bytes() || reserved.resize(filled.max(2 * reserved.bytes()).min(most.max(filled)))
    }
}

/// Takes a response as it arrives. Dropped before its end, it leaves the readers with a response that is cut off.
#[derive(Debug)]
pub struct Writer {
    filling: Arc<Filling>,
    block: BytesMut,
    taken: watch::Receiver<u64>,
    most: u64,
    in_memory: u64,
}

impl Writer {
    /// Stores no more than so many bytes; what is longer is only passed on.
    #[must_use]
    pub fn limited_to(mut self, most: u64) -> Self {
        self.most = most;
        self
    }

    /// Keeps no more than so many bytes in memory; what is longer goes to disk, if there is one.
    #[must_use]
    pub fn in_memory_up_to(mut self, most: u64) -> Self {
        self.in_memory = most;
        self
    }

    #[must_use]
    pub fn filling(&self) -> &Arc<Filling> {
        &self.filling
    }

    /// Takes content, which readers see after [`Writer::show`].
    pub fn put(&mut self, mut content: &[u8]) {
        while !content.is_empty() {
            if self.block.capacity() == self.block.len() {
                self.show();
                let left =
                    self.filling.length.map(|length| length.saturating_sub(self.filling.state().filled));
                let wanted = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(BLOCK);
                self.block = BytesMut::with_capacity(wanted.clamp(content.len().min(BLOCK), BLOCK).max(1));
            }
            let room = self.block.capacity() - self.block.len();
            let (now, later) = content.split_at(room.min(content.len()));
            self.block.extend_from_slice(now);
            content = later;
        }
    }

    /// Lets readers have what was put.
    pub fn show(&mut self) {
        if self.block.is_empty() {
            return;
        }
        let piece = self.block.split().freeze();
        let mut state = self.filling.state();
        state.filled += piece.len() as u64;
        state.unread += piece.len() as u64;
        state.pieces.push(piece);
        if !state.spooling && (state.filled > self.in_memory || !state.has_reserved(self.in_memory)) {
            state.spooling = self.filling.spool.is_some();
            state.passing |= !state.spooling;
        }
        state.passing |= state.filled > self.most;
        let spooling = state.spooling;
        drop(state);
        self.filling.written.send_modify(|count| *count += 1);
        if spooling {
            self.filling.write_on();
        }
    }

    /// Waits while there is much that the disk has not taken yet; or, where the response is only passed on, its reader.
    pub async fn room(&mut self) {
        loop {
            self.taken.borrow_and_update();
            if self.filling.has_room() {
                return;
            }
            self.wait_for_taken().await;
        }
    }

    /// What follows the body; before it is complete.
    pub fn put_trailers(&mut self, section: &[u8]) {
        self.filling.state().trailers = Some(section.into());
    }

    /// The response is whole. Returns its body, unless it was too large to keep.
    #[must_use]
    pub fn complete(mut self) -> Option<Body> {
        self.show();
        let mut state = self.filling.state();
        state.end = Some(End::Whole);
        let body = match (state.passing, state.spooling) {
            (true, _) => None,
            (false, true) => state.filed.take(),
            (false, false) => Some(Body::of(state.pieces.clone())),
        };
        drop(state);
        self.filling.written.send_modify(|count| *count += 1);
        body
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.filling.state();
        if state.end.is_none() {
            state.end = Some(End::Cut);
            drop(state);
            self.filling.written.send_modify(|count| *count += 1);
        }
    }
}

/// Reads a response from its beginning, as far as it has arrived.
#[derive(Debug)]
pub struct Reader {
    filling: Arc<Filling>,
    written: watch::Receiver<u64>,
    next: usize,
    first: bool,
}

impl Reader {
    #[must_use]
    pub fn filling(&self) -> &Arc<Filling> {
        &self.filling
    }

    /// The next piece, if it has arrived.
    pub fn take(&mut self) -> Given {
        // Marked as seen before it is looked at: what comes in between wakes us again.
        self.written.borrow_and_update();
        let mut state = self.filling.state();
        let place = state.place(self.next);
        let behind = self.next + place.as_ref().map_or(1, |place| place.count);
        if state.spooling && state.is_last(behind, self.filling.length) {
            return Given::Nothing;
        }
        if let Some(place) = place {
            self.next += place.count;
            self.note_taken(state, place.at.length as u64);
            return Given::Filed(place.at);
        }
        let takes = state.passing && self.first;
        if let Some(piece) = state.pieces.get_mut(self.next) {
            let piece = if takes { std::mem::take(piece) } else { piece.clone() };
            if piece.is_empty() {
                // It has become too large for the store, or the store has failed: only the first reader has the rest.
                return Given::Cut;
            }
            self.next += 1;
            self.note_taken(state, piece.len() as u64);
            return Given::Piece(piece);
        }
        match state.end {
            None => Given::Nothing,
            Some(End::Whole) => Given::Whole(state.trailers.clone()),
            Some(End::Cut) => Given::Cut,
        }
    }

    /// The first reader tells the writer how far it is.
    fn note_taken(&self, mut state: MutexGuard<'_, State>, length: u64) {
        if self.first {
            state.unread = state.unread.saturating_sub(length);
            drop(state);
            self.filling.taken.send_modify(|count| *count += 1);
        }
    }

    /// Waits until there may be more.
    pub async fn more(&mut self) {
        // The filling has the sender.
        let _ = self.written.changed().await;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.first {
            self.filling.followers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
