//! Parts of a representation (RFC 9111 §3.3, §3.4): responses to ranges, and what had arrived of a response that was cut
//! off. Neighbours that are known to be of one representation, by a strong entity tag, are put together; once nothing is
//! missing, they are the whole.
//!
//! Parts are kept in memory only. A part never answers a request that wants more than it has.

use std::sync::Arc;

use super::directives::ResponseDirectives;
use super::entry::{Entry, Stored};
use super::range::Span;
use super::store::{MAX_VARIANTS, Variants};

/// Parts kept of one representation that do not touch.
pub const MAX_PARTS: usize = 8;

/// What there is once a part has been added.
#[derive(Debug)]
pub struct Added {
    pub variants: Variants,
    /// Nothing is missing any longer.
    pub whole: Option<Arc<Entry>>,
}

/// Adds a part; together, those of one representation have up to `most` bytes. None: it brings nothing.
#[must_use]
pub fn added(variants: &Variants, part: Entry, most: u64, now: u64) -> Option<Added> {
    let selection = part.stored.selection.clone();
    let is_variant = |other: &&Arc<Entry>| other.stored.selection == selection;
    let whole = variants.iter().filter(is_variant).find(|other| other.part.is_none());
    // A whole that is still good has it already, or is what this would only take the place of.
    if whole.is_some_and(|whole| are_one(&whole.stored, &part.stored) || whole.stored.freshness.left(now) > 0)
    {
        return None;
    }
    let mut beside: Vec<Arc<Entry>> = variants
        .iter()
        .filter(|other| is_variant(other) && is_of_same(other, &part))
        .map(Arc::clone)
        .collect();
    let mut part = part;
    // Each time two become one, that may touch another.
    while let Some((at, both)) =
        beside.iter().enumerate().find_map(|(at, other)| Some((at, joined(&part, other, most)?)))
    {
        beside.remove(at);
        part = both;
    }
    let is_whole = part.part.is_some_and(|(span, length)| span == Span { start: 0, end: length });
    if is_whole {
        part.part = None;
        beside.clear();
    }
    let mut left = most.saturating_sub(part.body.len());
    beside.truncate(MAX_PARTS - 1);
    beside.retain(|other| {
        let fits = other.body.len() <= left;
        left = if fits { left - other.body.len() } else { 0 };
        fits
    });
    let part = Arc::new(part);
    let others = variants.iter().filter(|other| !is_variant(other)).map(Arc::clone);
    let all = std::iter::once(Arc::clone(&part)).chain(beside).chain(others).take(MAX_VARIANTS);
    Some(Added { variants: all.collect(), whole: is_whole.then_some(part) })
}

/// Whether two responses are known to have the same content: RFC 9111 §3.4 asks for a strong validator. There are origins
/// that have one for the content and for what compression makes of it; those bytes are not put together.
#[must_use]
pub fn are_one(a: &Stored, b: &Stored) -> bool {
    a.validators.strong().is_some_and(|tag| b.validators.strong() == Some(tag))
        && a.head.values("content-encoding").eq(b.head.values("content-encoding"))
}

fn is_of_same(a: &Entry, b: &Entry) -> bool {
    let length = |entry: &Entry| entry.part.map(|(_, length)| length);
    length(a).is_some() && length(a) == length(b) && are_one(&a.stored, &b.stored)
}

/// Two parts of one representation as one, if nothing is missing between them.
fn joined(newer: &Entry, older: &Entry, most: u64) -> Option<Entry> {
    let ((new, length), (old, _)) = (newer.part?, older.part?);
    let both = Span { start: new.start.min(old.start), end: new.end.max(old.end) };
    if new.start > old.end || old.start > new.end || both.end - both.start > most {
        return None;
    }
    let of_old = |start: u64, end: u64| {
        older.body.slice(Span { start: start - old.start, end: end.max(start) - old.start })
    };
    let before = (old.start < new.start).then(|| of_old(old.start, new.start));
    let after = (old.end > new.end).then(|| of_old(new.end, old.end));
    let pieces = [before.as_ref(), Some(&newer.body), after.as_ref()];
    let body = super::body::Body::joined(pieces.into_iter().flatten())?;
    // RFC 9110 §15.3.7: a part need not repeat what was said with another.
    let by = newer.stored.head.with(b"")?;
    let received = newer.stored.freshness.received / 1000;
    let head = older.stored.head.updated(&by, &ResponseDirectives::default(), received)?;
    Some(Entry { stored: Stored { head, ..newer.stored.clone() }, body, part: Some((both, length)) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::body::Body;
    use crate::cache::store::tests::entry;
    use crate::cache::stored_head::StoredHead;

    const LENGTH: u64 = 1000;

    fn content(span: Span) -> Vec<u8> {
        (span.start..span.end).map(|at| (at % 251) as u8).collect()
    }

    fn part(start: u64, end: u64) -> Entry {
        let span = Span { start, end };
        Entry { part: Some((span, LENGTH)), ..Entry::clone(&entry("1", &content(span))) }
    }

    fn spans(variants: &Variants) -> Vec<(u64, u64)> {
        variants.iter().filter_map(|entry| Some((entry.part?.0.start, entry.part?.0.end))).collect()
    }

    fn add(variants: &Variants, part: Entry) -> Variants {
        added(variants, part, LENGTH, u64::MAX).map_or_else(|| variants.clone(), |added| added.variants)
    }

    #[test]
    fn neighbours_become_one_and_all_become_the_whole() {
        let mut variants = Variants::default();
        for (start, end, expected) in [
            (0, 10, vec![(0, 10)]),
            (20, 30, vec![(20, 30), (0, 10)]),
            (10, 20, vec![(0, 30)]),
            (25, 500, vec![(0, 500)]),
            (900, 1000, vec![(900, 1000), (0, 500)]),
        ] {
            variants = add(&variants, part(start, end));
            assert_eq!(spans(&variants), expected);
        }
        let all = added(&variants, part(400, 950), LENGTH, u64::MAX).unwrap();
        let whole = all.whole.unwrap();
        assert_eq!(whole.body.held().unwrap().concat(), content(Span { start: 0, end: LENGTH }));
        assert_eq!((whole.part, all.variants.iter().count()), (None, 1));
        assert!(added(&all.variants, part(0, 10), LENGTH, u64::MAX).is_none(), "the whole has it");
    }

    #[test]
    fn only_what_is_known_to_belong_together_is_put_together() {
        let variants = add(&Variants::default(), part(0, 10));
        let mut other = part(10, 20);
        other.stored.validators.etag = Some(b"\"b\"".as_slice().into());
        assert_eq!(spans(&add(&variants, other)), [(10, 20)]);
        let mut weak = part(10, 20);
        weak.stored.validators.etag = Some(b"W/\"a\"".as_slice().into());
        assert_eq!(spans(&add(&variants, weak)), [(10, 20)]);
        let mut coded = part(10, 20);
        let lines = [coded.stored.head.lines(), b"Content-Encoding: gzip\r\n"].concat();
        coded.stored.head = StoredHead::from_lines(200, &lines);
        assert_eq!(spans(&add(&variants, coded)), [(10, 20)]);
        let longer = Entry { part: Some((Span { start: 10, end: 20 }, LENGTH + 1)), ..part(10, 20) };
        assert_eq!(spans(&add(&variants, longer)), [(10, 20)]);
        let elsewhere = Entry { part: part(10, 20).part, ..Entry::clone(&entry("2", &[0; 10])) };
        assert_eq!(spans(&add(&variants, elsewhere)), [(10, 20), (0, 10)]);
    }

    #[test]
    fn a_whole_that_is_fresh_stays() {
        let whole = Variants::default().with(entry("1", &content(Span { start: 0, end: LENGTH })));
        let mut other = part(0, 10);
        other.stored.validators.etag = None;
        assert!(added(&whole, other.clone(), LENGTH, 0).is_none());
        assert_eq!(spans(&add(&whole, other)), [(0, 10)]);
    }

    #[test]
    fn parts_are_bounded() {
        let mut variants = Variants::default();
        for at in 0..20 {
            variants = add(&variants, part(at * 20, at * 20 + 10));
        }
        assert_eq!(spans(&variants).len(), MAX_PARTS);
        let few = added(&variants, part(900, 950), 70, u64::MAX).unwrap().variants;
        assert_eq!(spans(&few), [(900, 950), (380, 390), (360, 370)]);
    }

    proptest! {
        /// Whatever comes in whatever order: each part has the bytes of its place.
        #[test]
        fn parts_have_their_own_bytes(ranges in prop::collection::vec((0..LENGTH, 1..400_u64), 1..40), most in 50..=LENGTH) {
            let mut variants = Variants::default();
            for (start, count) in ranges {
                let part = part(start, LENGTH.min(start + count));
                if part.body.len() > most {
                    continue;
                }
                if let Some(added) = added(&variants, part, most, u64::MAX) {
                    variants = added.variants;
                }
                let mut sum = 0;
                for entry in variants.iter() {
                    let span = entry.part.map_or(Span { start: 0, end: LENGTH }, |(span, _)| span);
                    prop_assert_eq!(entry.body.held().unwrap().concat(), content(span));
                    prop_assert_eq!(entry.body.len(), span.end - span.start);
                    sum += entry.body.len();
                }
                prop_assert!(sum <= most && variants.iter().count() <= MAX_PARTS);
            }
        }
    }

    #[test]
    fn what_a_later_part_leaves_out_is_kept() {
        let old = part(0, 10);
        let mut new = part(10, 20);
        let head = b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
        new.stored.head = StoredHead::from_lines(200, head);
        let both = joined(&new, &old, LENGTH).unwrap();
        let lines = String::from_utf8_lossy(both.stored.head.lines()).into_owned();
        assert!(lines.contains("max-age=60") && lines.contains("Date: Thu, 01 Jan 2026"), "{lines}");
        assert_eq!(both.body.held().unwrap().concat(), content(Span { start: 0, end: 20 }));
        assert!(matches!(Body::joined(std::iter::empty()), Some(body) if body.is_empty()));
    }
}
