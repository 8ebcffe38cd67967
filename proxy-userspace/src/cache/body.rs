//! The content of a stored response: in memory, or in a file of the disk store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::entry::ALLOCATION;
use super::pages;
use super::range::Span;
use super::store::disk::Filed;
use crate::net::place::Place;

/// A body, whole and immutable.
#[derive(Debug, Clone)]
pub struct Body {
    content: Content,
    length: u64,
    /// No other body in memory has it; 0 for those that have none.
    number: u64,
}

/// The numbers that were given to bodies.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone)]
enum Content {
    /// In pieces. They lie one after the other in a file of ours, too, if that has a place for them.
    Held(Arc<[Bytes]>, Option<Place>),
    /// The file, and where in it the body begins.
    Filed(Filed, u64),
}

impl Default for Body {
    fn default() -> Self {
        Self { content: Content::Held(Arc::default(), None), length: 0, number: 0 }
    }
}

/// Bodies up to this are kept in one piece: they take one allocation, and go out with their head in as few writes as their
/// receiver allows.
const ONE_PIECE: u64 = 1 << 20;

/// Bodies from this on are kept in pages that the kernel can send. Below, a copy costs less than another system call.
const PAGED: u64 = 64 << 10;

/// Pieces of bodies that are put together are not smaller than this, if they can be larger.
const SMALL: usize = 256 << 10;

impl Body {
    /// A body of these pieces.
    #[must_use]
    pub fn of(pieces: Vec<Bytes>) -> Self {
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let paged = if length >= PAGED { pages::keep(&pieces, length) } else { None };
        let content = match paged {
            Some((whole, place)) => Content::Held(cut(&whole).into(), Some(place)),
            // Copied even if it is in one piece: that may be a small part of a large buffer.
            None if (1..=ONE_PIECE).contains(&length) => Content::Held([pieces.concat().into()].into(), None),
            None => Content::Held(pieces.into(), None),
        };
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed) + 1;
        Self { content, length, number }
    }

    /// The number of a whole body in memory.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        (self.number != 0).then_some(self.number)
    }

    /// A body that came in one piece.
    #[must_use]
    pub fn whole(body: &Bytes) -> Self {
        Self::of(cut(body))
    }

    /// Some that are in memory, as one. None: one is not.
    #[must_use]
    pub fn joined<'a>(bodies: impl Iterator<Item = &'a Self>) -> Option<Self> {
        let mut pieces: Vec<Bytes> = Vec::new();
        for body in bodies {
            for piece in body.held()?.iter() {
                match pieces.last_mut() {
                    // Many small parts are not to become many small pieces.
                    Some(last) if last.len() + piece.len() <= SMALL => {
                        *last = Bytes::from([&last[..], &piece[..]].concat());
                    }
                    _ => pieces.push(piece.clone()),
                }
            }
        }
        Some(Self::of(pieces))
    }

    /// A form that was made of another body.
    #[must_use]
    pub fn coded(form: Bytes) -> Self {
        let length = form.len() as u64;
        Self { content: Content::Held([form].into(), None), length, number: 0 }
    }

    /// One that is in a file.
    #[must_use]
    pub fn filed(file: Filed) -> Self {
        let length = file.len();
        Self { content: Content::Filed(file, 0), length, number: 0 }
    }

    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Its pieces, none of them empty, if it is in memory.
    #[must_use]
    pub fn held(&self) -> Option<&Arc<[Bytes]>> {
        match &self.content {
            Content::Held(pieces, _) => Some(pieces),
            Content::Filed(..) => None,
        }
    }

    /// The file that it is in, and which part of that it is, unless it is in memory.
    #[must_use]
    pub fn file(&self) -> Option<(&Filed, Span)> {
        match &self.content {
            Content::Held(..) => None,
            Content::Filed(file, start) => Some((file, Span { start: *start, end: start + self.length })),
        }
    }

    /// Where it begins in a file of ours.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        if let Content::Held(_, place) = &self.content { *place } else { None }
    }

    /// A part of it, without copying.
    #[must_use]
    pub fn slice(&self, span: Span) -> Self {
        let (pieces, place) = match &self.content {
            Content::Held(pieces, place) => (pieces, place.map(|place| place.after(span.start))),
            Content::Filed(file, start) => {
                let content = Content::Filed(file.clone(), start + span.start);
                return Self { content, length: span.end - span.start, number: 0 };
            }
        };
        let mut start = 0;
        let mut within = Vec::new();
        for piece in pieces.iter() {
            let end = start + piece.len() as u64;
            let (from, to) = (span.start.max(start), span.end.min(end));
            if from < to {
                // Both are within the piece, whose length is a usize.
                within.push(piece.slice((from - start) as usize..(to - start) as usize));
            }
            start = end;
        }
        let length = within.iter().map(|piece| piece.len() as u64).sum();
        Self { content: Content::Held(within.into(), place), length, number: 0 }
    }

    /// Bytes of memory, roughly.
    #[must_use]
    pub fn weight(&self) -> u64 {
        match &self.content {
            Content::Held(pieces, place) => {
                let length = if place.is_some() { pages::rounded(self.length) } else { self.length };
                length + (pieces.len() * (size_of::<Bytes>() + ALLOCATION)) as u64
            }
            Content::Filed(file, _) => file.weight(),
        }
    }
}

/// Cuts what is in one piece into some, so that it goes out in some.
fn cut(whole: &Bytes) -> Vec<Bytes> {
    const PIECE: usize = ONE_PIECE as usize;
    let cuts = (0..whole.len()).step_by(PIECE);
    cuts.map(|at| whole.slice(at..whole.len().min(at + PIECE))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slices_are_those_of_the_whole(pieces: Vec<Vec<u8>>, start in 0u64..300, length in 0u64..300) {
            let whole = pieces.concat();
            let nonempty: Vec<_> =
                pieces.into_iter().filter(|piece| !piece.is_empty()).map(Bytes::from).collect();
            let body = Body { content: Content::Held(nonempty.into(), None), length: whole.len() as u64, number: 0 };
            let end = (start + length).min(whole.len() as u64);
            let start = start.min(end);
            let slice = body.slice(Span { start, end });
            prop_assert_eq!(slice.len(), end - start);
            let content = slice.held().unwrap().concat();
            prop_assert_eq!(&content, &whole[start as usize..end as usize]);
        }
    }

    #[test]
    fn small_bodies_are_one_piece() {
        let body = Body::of(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
        assert_eq!((body.held().unwrap().len(), body.len()), (1, 2));
        assert!(Body::of(Vec::new()).is_empty());
        let body = Body::whole(&Bytes::from(vec![7; 2_500_000]));
        assert_eq!((body.held().unwrap().len(), body.len()), (3, 2_500_000));
    }
}
