//! Range and Content-Range (RFC 9110 §14): which part of a stored response a request wants, and which part of a
//! representation a response is.

use super::headers::{has, single};
use crate::http::head::RequestHead;
use crate::http::headers::{Headers, list_items};

/// A span of bytes; `end` is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: u64,
    pub end: u64,
}

impl Span {
    /// Where this is in what has the bytes of `outer`, which must have all of it.
    #[must_use]
    pub fn within(self, outer: Self) -> Self {
        Self { start: self.start - outer.start, end: self.end - outer.start }
    }
}

/// What a request wants of a representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    From(u64, Option<u64>),
    /// The last so many bytes.
    Last(u64),
    /// Several ranges, each [`Wanted::From`] or [`Wanted::Last`].
    Several(Box<[Self]>),
    /// What only its origin can make out: a unit other than bytes, or two of the field.
    Other,
}

/// Who wants more ranges than this at once gets the whole (RFC 9110 §17.15).
const MAX_RANGES: usize = 32;

/// Ranges that are no further apart than this become one: what stands between two parts takes as much.
const GAP: u64 = 128;

/// What a stored representation has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Whole,
    Part(Span),
    /// Two or more, none of which overlap.
    Parts(Vec<Span>),
    /// 416: it has nothing there.
    Nothing,
}

impl Wanted {
    /// What the Range field says. One that is malformed is ignored, and so is that of any method but GET (RFC 9110
    /// §14.2).
    #[must_use]
    pub fn of(request: &RequestHead) -> Self {
        if !has(&request.headers, "range") || request.method() != "GET" {
            return Self::Whole;
        }
        let Some(value) = single(&request.headers, "range") else { return Self::Other };
        let Some(set) = value.split_at_checked(6).filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes="))
        else {
            return Self::Other;
        };
        let mut ranges = list_items(set.1);
        let (first, second) = (ranges.next(), ranges.next());
        if second.is_none() {
            return first.and_then(Self::one).unwrap_or(Self::Whole);
        }
        let all: Option<Box<[Self]>> = list_items(set.1).take(MAX_RANGES + 1).map(Self::one).collect();
        all.filter(|all| all.len() <= MAX_RANGES).map_or(Self::Whole, Self::Several)
    }

    fn one(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|byte| *byte == b'-')?;
        let (first, last) = (&text[..dash], &text[dash + 1..]);
        match (first.is_empty(), last.is_empty()) {
            (true, true) => None,
            (true, false) => Some(Self::Last(position(last)?)),
            (false, true) => Some(Self::From(position(first)?, None)),
            (false, false) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// The span that this is of a representation of `length` bytes.
    #[must_use]
    pub fn of_length(&self, length: u64) -> Found {
        let ranges = match self {
            Self::Whole | Self::Other => return Found::Whole,
            Self::Several(ranges) => ranges,
            one => std::slice::from_ref(one),
        };
        let mut spans: Vec<Span> = ranges.iter().filter_map(|range| range.span(length)).collect();
        if spans.len() > 1 {
            coalesce(&mut spans);
        }
        match spans[..] {
            [] => Found::Nothing,
            [span] => Found::Part(span),
            _ => Found::Parts(spans),
        }
    }

    fn span(&self, length: u64) -> Option<Span> {
        let span = match self {
            Self::From(first, last) => {
                Span { start: *first, end: last.map_or(length, |last| length.min(last.saturating_add(1))) }
            }
            Self::Last(count) => Span { start: length.saturating_sub(*count), end: length },
            Self::Whole | Self::Several(_) | Self::Other => return None,
        };
        (span.start < span.end).then_some(span)
    }
}

/// Makes one of those that overlap or nearly do (RFC 9110 §15.3.7.2). If none do, they stay in the order in which they
/// were asked for.
fn coalesce(spans: &mut Vec<Span>) {
    let mut sorted = spans.clone();
    sorted.sort_unstable_by_key(|span| span.start);
    sorted.dedup_by(|next, before| {
        let touches = next.start <= before.end.saturating_add(GAP);
        if touches {
            before.end = before.end.max(next.end);
        }
        touches
    });
    if sorted.len() < spans.len() {
        *spans = sorted;
    }
}

/// Which part of how long a representation a 206 is. None where that is not said without doubt, or the total length
/// is not.
#[must_use]
pub fn content_range(response: &Headers) -> Option<(Span, u64)> {
    let value = single(response, "content-range")?;
    let (unit, rest) = value.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes ") {
        return None;
    }
    let dash = rest.iter().position(|byte| *byte == b'-')?;
    let slash = rest.iter().position(|byte| *byte == b'/')?;
    let first = position(&rest[..dash])?;
    let last = position(rest.get(dash + 1..slash)?)?;
    let length = position(&rest[slash + 1..])?;
    (first <= last && last < length).then_some((Span { start: first, end: last + 1 }, length))
}

/// Positions have no more than 18 digits: a representation of an exabyte is nobody's.
fn position(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{request, response};
    use super::*;
    use crate::http::head::Version;
    use proptest::prelude::*;

    #[track_caller]
    fn check(range: &str, wanted: Wanted, of_ten: Found) {
        let found = Wanted::of(&request("/", &format!("Range: {range}\r\n")));
        let within = found.of_length(10);
        assert_eq!((found, within), (wanted, of_ten), "{range}");
    }

    fn part(start: u64, end: u64) -> Found {
        Found::Part(Span { start, end })
    }

    #[test]
    fn ranges() {
        check("bytes=0-1", Wanted::From(0, Some(1)), part(0, 2));
        check("Bytes=5-", Wanted::From(5, None), part(5, 10));
        check("bytes=-3", Wanted::Last(3), part(7, 10));
        check("bytes=-30", Wanted::Last(30), part(0, 10));
        check("bytes=8-99", Wanted::From(8, Some(99)), part(8, 10));
        check("bytes=10-", Wanted::From(10, None), Found::Nothing);
        check("bytes=-0", Wanted::Last(0), Found::Nothing);
        check("lines=0-1", Wanted::Other, Found::Whole);
        for malformed in ["bytes=-", "bytes=2-1", "bytes=a-b", "bytes=1", "bytes=9999999999999999999-"] {
            check(malformed, Wanted::Whole, Found::Whole);
        }
        for malformed in ["bytes=,", "bytes=0-1,x", "bytes=0-1,3-2", "bytes=-,0-1"] {
            check(malformed, Wanted::Whole, Found::Whole);
        }
        check("bytes=,0-1 ,", Wanted::From(0, Some(1)), part(0, 2));
    }

    #[test]
    fn several_ranges() {
        let check = |ranges: &str, expected: &[(u64, u64)]| {
            let found =
                match Wanted::of(&request("/", &format!("Range: bytes={ranges}\r\n"))).of_length(10_000) {
                    Found::Whole => vec![(0, 10_000)],
                    Found::Part(span) => vec![(span.start, span.end)],
                    Found::Parts(spans) => spans.iter().map(|span| (span.start, span.end)).collect(),
                    Found::Nothing => Vec::new(),
                };
            assert_eq!(found, expected, "{ranges}");
        };
        check("0-9,1000-1009", &[(0, 10), (1000, 1010)]);
        check("9000-,0-9, -10", &[(0, 10), (9000, 10_000)]);
        // In the order of the request, where there is nothing to be put together.
        check("5000-5009,0-9,-10", &[(5000, 5010), (0, 10), (9990, 10_000)]);
        check("0-99,50-149", &[(0, 150)]);
        check("0-9,10-19,20-29", &[(0, 30)]);
        check("0-9,138-139,5000-", &[(0, 140), (5000, 10_000)]);
        check("0-9,139-140", &[(0, 10), (139, 141)]);
        // What can't be had is left out, if anything can.
        check("20000-,0-9", &[(0, 10)]);
        check("20000-,30000-", &[]);
        let many = |count: u64| {
            (0..count).map(|at| format!("{}-{}", at * 200, at * 200)).collect::<Vec<_>>().join(",")
        };
        assert!(matches!(
            Wanted::of(&request("/", &format!("Range: bytes={}\r\n", many(32)))),
            Wanted::Several(_)
        ));
        check(&many(33), &[(0, 10_000)]);
    }

    #[test]
    fn only_get_has_ranges() {
        for (method, expected) in [("GET", Wanted::From(0, Some(1))), ("HEAD", Wanted::Whole)] {
            let mut head = RequestHead::new(Version::Http11, method, "/");
            head.headers.push(b"Range", b"bytes=0-1");
            assert_eq!(Wanted::of(&head), expected, "{method}");
        }
    }

    #[test]
    fn parts() {
        let check = |range: &str, expected: Option<(u64, u64, u64)>| {
            let found = content_range(&response(206, &format!("Content-Range: {range}\r\n")).headers);
            assert_eq!(found.map(|(span, length)| (span.start, span.end, length)), expected, "{range}");
        };
        check("bytes 0-4/10", Some((0, 5, 10)));
        check("bytes 9-9/10", Some((9, 10, 10)));
        for bad in [
            "bytes 0-4/*",
            "bytes */10",
            "bytes 5-4/10",
            "bytes 0-10/10",
            "bytes 0-4",
            "0-4/10",
            "bytes /-",
            "bytes 1/2-3",
        ] {
            check(bad, None);
        }
    }

    proptest! {
        #[test]
        fn a_part_is_within_its_whole(range in "bytes=[0-9]{0,3}-[0-9]{0,3}", length in 0u64..1000) {
            let wanted = Wanted::of(&request("/", &format!("Range: {range}\r\n")));
            if let Found::Part(span) = wanted.of_length(length) {
                prop_assert!(span.start < span.end && span.end <= length);
            }
        }

        /// Whatever is asked for is in what is sent, which is no more than the whole.
        #[test]
        fn several_parts_have_all(ranges in prop::collection::vec((0..2000_u64, 0..500_u64), 2..40)) {
            let text: Vec<_> = ranges.iter().map(|(start, more)| format!("{start}-{}", start + more)).collect();
            let wanted = Wanted::of(&request("/", &format!("Range: bytes={}\r\n", text.join(","))));
            let spans = match wanted.of_length(1000) {
                Found::Parts(spans) => spans,
                Found::Part(span) => vec![span],
                Found::Whole => vec![Span { start: 0, end: 1000 }],
                Found::Nothing => Vec::new(),
            };
            let has = |at: u64| spans.iter().filter(|span| span.start <= at && at < span.end).count();
            for (start, more) in ranges {
                prop_assert!((start..=start + more).all(|at| has(at) == usize::from(at < 1000)));
            }
        }

        #[test]
        fn no_content_range_panics(range in "(bytes )?[0-9*/-]{0,12}") {
            let _ = content_range(&response(206, &format!("Content-Range: {range}\r\n")).headers);
        }
    }
}
