//! A stored response, whole and immutable: what is changed by a validation is a new entry with the same body.

use std::sync::Arc;

use bytes::Bytes;

use super::conditional::Validators;
use super::freshness::{self, Exchanged, Freshness};
use super::headers::single;
use super::range::Span;
use super::storable::Storable;
use super::stored_head::StoredHead;
use super::vary::Selection;
use super::{Rules, date, storable};
use crate::http::head::{RequestHead, ResponseHead};

/// A stored response without its body.
#[derive(Debug, Clone)]
pub struct Stored {
    pub head: StoredHead,
    pub freshness: Freshness,
    pub selection: Selection,
    pub validators: Validators,
    /// When it was made, in seconds since 1970-01-01 UTC.
    pub date: u64,
}

impl Stored {
    /// What is kept of a response that may be stored.
    #[must_use]
    pub fn of(response: &ResponseHead, storable: Storable) -> Self {
        let received = storable.freshness.received / 1000;
        Self {
            head: StoredHead::of(response, &storable.directives, received),
            freshness: storable.freshness,
            selection: storable.selection,
            validators: Validators::of(&response.headers),
            date: date_of(response, received),
        }
    }

    /// It after a 304, or after a response to HEAD that speaks of the same representation (RFC 9111 §4.3.4, §4.3.5).
    /// None where the two can't be put together.
    #[must_use]
    pub fn updated(
        &self,
        request: &RequestHead,
        by: &ResponseHead,
        exchanged: Exchanged,
        rules: &Rules,
    ) -> Option<Updated> {
        let (directives, _) = freshness::directives(by, rules);
        let head = self.head.updated(by, &directives, exchanged.received / 1000)?;
        // The merged head is judged as if it had just been received: its limits hold from now on. An Age of the 304
        // counts, one of the stored response does not.
        let mut age = Vec::new();
        if let Some(value) = single(&by.headers, "age") {
            age.extend_from_slice(b"Age: ");
            age.extend_from_slice(value);
            age.extend_from_slice(b"\r\n");
        }
        let merged = head.with(&age)?;
        let storable = storable::check_merged(request, &merged, exchanged, rules).ok();
        let is_kept = storable.is_some();
        let (freshness, selection) = match storable {
            Some(storable) => (storable.freshness, storable.selection),
            None => {
                let (directives, _) = freshness::directives(&merged, rules);
                let freshness = Freshness::of(&merged, &directives, false, exchanged, rules);
                (freshness, self.selection.clone())
            }
        };
        let validators = Validators::of(&merged.headers);
        let date = date_of(&merged, exchanged.received / 1000);
        let stored = Self { head, freshness, selection, validators, date };
        Some(if is_kept { Updated::Keep(stored) } else { Updated::Once(stored) })
    }

    /// Bytes of memory, roughly.
    #[must_use]
    pub fn weight(&self) -> usize {
        let tag = |value: &Option<Box<[u8]>>| value.as_ref().map_or(0, |value| value.len() + ALLOCATION);
        self.head.lines().len()
            + ALLOCATION
            + self.selection.weight()
            + tag(&self.validators.etag)
            + tag(&self.validators.last_modified)
    }
}

/// A stored response and what was said of it since, put together.
#[derive(Debug)]
pub enum Updated {
    Keep(Stored),
    /// It answers the request that it was made for, and may not be stored any longer.
    Once(Stored),
}

impl Updated {
    /// What is to be stored of it.
    #[must_use]
    pub fn kept(self) -> Option<Stored> {
        match self {
            Self::Keep(stored) => Some(stored),
            Self::Once(_) => None,
        }
    }
}

/// What an allocation costs beside its content.
const ALLOCATION: usize = 16;

fn date_of(response: &ResponseHead, received: u64) -> u64 {
    single(&response.headers, "date").and_then(|date| date::parse(date, received)).unwrap_or(received)
}

/// A stored response with its body.
#[derive(Debug, Clone)]
pub struct Entry {
    pub stored: Stored,
    pub body: Body,
    /// Which part of a representation the body is, and how long that is; None for all of it.
    pub part: Option<(Span, u64)>,
}

impl Entry {
    /// Bytes of memory, roughly.
    #[must_use]
    pub fn weight(&self) -> u64 {
        (size_of::<Self>() + 2 * ALLOCATION + self.stored.weight()) as u64 + self.body.weight()
    }
}

/// The content of a response, in the pieces in which it arrived.
#[derive(Debug, Clone, Default)]
pub struct Body {
    pieces: Arc<[Bytes]>,
    length: u64,
}

/// Bodies up to this are kept in one piece: they take one allocation, and go out with their head in as few writes as their
/// receiver allows.
const ONE_PIECE: u64 = 1 << 20;

impl Body {
    /// A body of these pieces.
    #[must_use]
    pub fn of(pieces: Vec<Bytes>) -> Self {
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let pieces = match length {
            // Copied even if it is in one piece: that may be a small part of a large buffer.
            1..=ONE_PIECE => vec![Bytes::from(pieces.concat())],
            _ => pieces,
        };
        Self { pieces: pieces.into(), length }
    }

    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Its pieces, none of them empty.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }

    /// A part of it, without copying.
    #[must_use]
    pub fn slice(&self, span: Span) -> Self {
        let mut start = 0;
        let mut pieces = Vec::new();
        for piece in self.pieces() {
            let end = start + piece.len() as u64;
            let (from, to) = (span.start.max(start), span.end.min(end));
            if from < to {
                // Both are within the piece, whose length is a usize.
                pieces.push(piece.slice((from - start) as usize..(to - start) as usize));
            }
            start = end;
        }
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces: pieces.into(), length }
    }

    fn weight(&self) -> u64 {
        self.length + (self.pieces.len() * (size_of::<Bytes>() + ALLOCATION)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slices_are_those_of_the_whole(pieces: Vec<Vec<u8>>, start in 0u64..300, length in 0u64..300) {
            let whole = pieces.concat();
            let nonempty = pieces.into_iter().filter(|piece| !piece.is_empty()).map(Bytes::from).collect();
            let body = Body { pieces: Vec::into(nonempty), length: whole.len() as u64 };
            let end = (start + length).min(whole.len() as u64);
            let start = start.min(end);
            let slice = body.slice(Span { start, end });
            prop_assert_eq!(slice.len(), end - start);
            let content: Vec<u8> = slice.pieces().flat_map(|piece| piece.to_vec()).collect();
            prop_assert_eq!(&content, &whole[start as usize..end as usize]);
        }
    }

    #[test]
    fn small_bodies_are_one_piece() {
        let body = Body::of(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
        assert_eq!((body.pieces().count(), body.len()), (1, 2));
        assert!(Body::of(Vec::new()).is_empty());
    }
}
