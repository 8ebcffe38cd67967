//! Range and Content-Range (RFC 9110 §14): which part of a stored response a request wants, and which part of a
//! representation a response is.
//!
//! A request for several ranges is not answered from store: it would take a multipart message.

use super::headers::{has, single};
use crate::http::headers::Headers;

/// A span of bytes; `end` is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: u64,
    pub end: u64,
}

/// What a request wants of a representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    From(u64, Option<u64>),
    /// The last so many bytes.
    Last(u64),
    /// More than one range, or a unit other than bytes.
    Other,
}

/// What a stored representation has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Whole,
    Part(Span),
    /// 416: it has nothing there.
    Nothing,
}

impl Wanted {
    /// What the Range field says. One that is malformed is ignored (RFC 9110 §14.2).
    #[must_use]
    pub fn of(request: &Headers) -> Self {
        if !has(request, "range") {
            return Self::Whole;
        }
        let Some(value) = single(request, "range") else { return Self::Other };
        let Some(set) = value.split_at_checked(6).filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes="))
        else {
            return Self::Other;
        };
        if set.1.contains(&b',') {
            return Self::Other;
        }
        Self::one(set.1.trim_ascii()).unwrap_or(Self::Whole)
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
    pub fn of_length(self, length: u64) -> Found {
        let span = match self {
            Self::Whole | Self::Other => return Found::Whole,
            Self::From(first, last) => {
                Span { start: first, end: last.map_or(length, |last| length.min(last.saturating_add(1))) }
            }
            Self::Last(count) => Span { start: length.saturating_sub(count), end: length },
        };
        if span.start < span.end { Found::Part(span) } else { Found::Nothing }
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
    use proptest::prelude::*;

    #[track_caller]
    fn check(range: &str, wanted: Wanted, of_ten: Found) {
        let found = Wanted::of(&request("/", &format!("Range: {range}\r\n")).headers);
        assert_eq!((found, found.of_length(10)), (wanted, of_ten), "{range}");
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
        check("bytes=0-1,3-4", Wanted::Other, Found::Whole);
        check("lines=0-1", Wanted::Other, Found::Whole);
        for malformed in ["bytes=-", "bytes=2-1", "bytes=a-b", "bytes=1", "bytes=9999999999999999999-"] {
            check(malformed, Wanted::Whole, Found::Whole);
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
            let wanted = Wanted::of(&request("/", &format!("Range: {range}\r\n")).headers);
            if let Found::Part(span) = wanted.of_length(length) {
                prop_assert!(span.start < span.end && span.end <= length);
            }
        }

        #[test]
        fn no_content_range_panics(range in "(bytes )?[0-9*/-]{0,12}") {
            let _ = content_range(&response(206, &format!("Content-Range: {range}\r\n")).headers);
        }
    }
}
