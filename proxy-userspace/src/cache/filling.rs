//! A response that is being stored while it arrives: one writer, any number of readers, each at its own pace.
//!
//! Readers never slow the writer down, as long as the response can be stored: a client that reads slowly must not keep
//! others waiting. If it turns out too large to be stored, only its first reader goes on, and sets the pace.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::entry::{Body, Stored};
use super::range::Span;

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
}

#[derive(Debug, Default)]
struct State {
    pieces: Vec<Bytes>,
    filled: u64,
    /// Too large: pieces are dropped once the first reader has them.
    passing: bool,
    unread: u64,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Cut,
}

/// What a reader is given.
#[derive(Debug)]
pub enum Given {
    Piece(Bytes),
    Nothing,
    Whole,
    Cut,
}

/// What a response may hold back in memory once it is only passed on.
const WINDOW: u64 = 256 << 10;

/// Pieces are cut from blocks of this size.
const BLOCK: usize = 64 << 10;

impl Filling {
    /// A response of which nothing has arrived yet; its writer, and its first reader.
    #[must_use]
    pub fn begin(stored: Stored, length: Option<u64>, part: Option<(Span, u64)>) -> (Writer, Reader) {
        let filling = Arc::new(Self {
            stored,
            length,
            part,
            state: Mutex::default(),
            written: watch::Sender::new(0),
            taken: watch::Sender::new(0),
            followers: AtomicUsize::new(0),
        });
        let reader = Reader {
            written: filling.written.subscribe(),
            filling: Arc::clone(&filling),
            next: 0,
            first: true,
        };
        let taken = filling.taken.subscribe();
        (Writer { filling, block: BytesMut::new(), taken, most: u64::MAX }, reader)
    }

    /// A further reader, from the beginning. None if the response may yet turn out too large.
    #[must_use]
    pub fn follow(self: &Arc<Self>) -> Option<Reader> {
        self.length?;
        self.followers.fetch_add(1, Ordering::Relaxed);
        Some(Reader { written: self.written.subscribe(), filling: Arc::clone(self), next: 0, first: false })
    }

    /// Whether somebody beside the first reader waits for it.
    #[must_use]
    pub fn has_followers(&self) -> bool {
        self.followers.load(Ordering::Relaxed) > 0
    }

    fn has_room(&self) -> bool {
        let state = self.state();
        !state.passing || state.unread < WINDOW
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete before anything in it can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a response as it arrives. Dropped before its end, it leaves the readers with a response that is cut off.
#[derive(Debug)]
pub struct Writer {
    filling: Arc<Filling>,
    block: BytesMut,
    taken: watch::Receiver<u64>,
    most: u64,
}

impl Writer {
    /// Stores no more than so many bytes; what is longer is only passed on.
    #[must_use]
    pub fn limited_to(mut self, most: u64) -> Self {
        self.most = most;
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
        state.passing |= state.filled > self.most;
        state.pieces.push(piece);
        drop(state);
        self.filling.written.send_modify(|count| *count += 1);
    }

    /// Waits while the response is only passed on, and its reader has much of it before it.
    pub async fn room(&mut self) {
        loop {
            self.taken.borrow_and_update();
            if self.filling.has_room() {
                return;
            }
            // The filling, which has the sender, is ours too: it can't fail.
            let _ = self.taken.changed().await;
        }
    }

    /// The response is whole. Returns its body, unless it was too large to keep.
    #[must_use]
    pub fn complete(mut self) -> Option<Body> {
        self.show();
        let mut state = self.filling.state();
        state.end = Some(End::Whole);
        let body = (!state.passing).then(|| state.pieces.clone());
        drop(state);
        self.filling.written.send_modify(|count| *count += 1);
        body.map(Body::of)
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
        let passing = state.passing;
        if let Some(piece) = state.pieces.get_mut(self.next) {
            let piece = if passing { std::mem::take(piece) } else { piece.clone() };
            self.next += 1;
            if self.first {
                state.unread = state.unread.saturating_sub(piece.len() as u64);
                drop(state);
                self.filling.taken.send_modify(|count| *count += 1);
            }
            return Given::Piece(piece);
        }
        match state.end {
            None => Given::Nothing,
            Some(End::Whole) => Given::Whole,
            Some(End::Cut) => Given::Cut,
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
mod tests {
    use super::super::directives::ResponseDirectives;
    use super::super::freshness::{Exchanged, Freshness};
    use super::super::storable::Storable;
    use super::super::tests::{RULES, response};
    use super::super::vary::Selection;
    use super::*;

    fn begin(length: Option<u64>) -> (Writer, Reader) {
        let response = response(200, "");
        let directives = ResponseDirectives::default();
        let exchanged = Exchanged { sent: 0, received: 0 };
        let freshness = Freshness::of(&response, &directives, false, exchanged, &RULES);
        let storable = Storable { freshness, selection: Selection::default(), directives };
        Filling::begin(Stored::of(&response, storable), length, None)
    }

    /// What a reader can have without waiting, and how that ends.
    fn read(reader: &mut Reader) -> (Vec<u8>, &'static str) {
        let mut content = Vec::new();
        loop {
            match reader.take() {
                Given::Piece(piece) => content.extend_from_slice(&piece),
                Given::Nothing => return (content, "nothing"),
                Given::Whole => return (content, "whole"),
                Given::Cut => return (content, "cut"),
            }
        }
    }

    #[test]
    fn readers_see_what_is_there_from_the_beginning() {
        let (mut writer, mut first) = begin(Some(5));
        writer.put(b"he");
        assert_eq!(read(&mut first), (b"".to_vec(), "nothing"));
        writer.show();
        assert_eq!(read(&mut first), (b"he".to_vec(), "nothing"));
        let mut second = writer.filling().follow().unwrap();
        assert!(writer.filling().has_followers());
        writer.put(b"llo");
        let filling = Arc::clone(writer.filling());
        assert_eq!(writer.complete().unwrap().pieces().collect::<Vec<_>>(), [&b"hello"[..]]);
        assert_eq!(read(&mut first), (b"llo".to_vec(), "whole"));
        assert_eq!(read(&mut second), (b"hello".to_vec(), "whole"));
        drop(second);
        assert!(!filling.has_followers());
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_a_response_that_is_cut_off() {
        let (mut writer, mut reader) = begin(Some(5));
        writer.put(b"he");
        writer.show();
        drop(writer);
        assert_eq!(read(&mut reader), (b"he".to_vec(), "cut"));
    }

    #[test]
    fn one_of_unknown_length_has_one_reader() {
        let (writer, _reader) = begin(None);
        assert!(writer.filling().follow().is_none());
    }

    #[tokio::test]
    async fn what_is_too_large_is_passed_on_with_a_bound_and_not_kept() {
        let (writer, mut reader) = begin(None);
        let mut writer = writer.limited_to(1 << 20);
        let mut content = Vec::new();
        for _ in 0..64 {
            writer.put(&[7; 100_000]);
            writer.show();
            loop {
                tokio::select! {
                    biased;
                    () = writer.room() => break,
                    () = std::future::ready(()) => content.extend(read(&mut reader).0),
                }
            }
            let held: usize = writer.filling().state().pieces.iter().map(Bytes::len).sum();
            assert!(held <= (1 << 20) + 200_000 + WINDOW as usize, "{held}");
        }
        assert!(writer.complete().is_none());
        content.extend(read(&mut reader).0);
        assert_eq!(content.len(), 6_400_000);
    }

    #[tokio::test]
    async fn readers_of_other_threads_are_woken() {
        let (mut writer, _first) = begin(Some(100_000));
        let mut reader = writer.filling().follow().unwrap();
        let thread = std::thread::spawn(move || {
            for _ in 0..1000 {
                writer.put(&[1; 100]);
                writer.show();
            }
            writer.complete()
        });
        let mut content = 0;
        loop {
            match reader.take() {
                Given::Piece(piece) => content += piece.len(),
                Given::Nothing => reader.more().await,
                Given::Whole => break,
                Given::Cut => panic!("cut"),
            }
        }
        assert_eq!(content, 100_000);
        assert_eq!(thread.join().unwrap().unwrap().len(), 100_000);
    }
}
