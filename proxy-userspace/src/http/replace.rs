//! Text that is replaced in a stream: a match may begin in one piece and end in another, and what is held back for that is
//! less than what is looked for.

use std::sync::Arc;

use memchr::memmem::Finder;

/// What is looked for, and what comes in its place.
#[derive(Debug, Clone)]
pub struct Replacement {
    find: Arc<Finder<'static>>,
    with: Arc<[u8]>,
}

impl Replacement {
    /// None: nothing is looked for.
    #[must_use]
    pub fn new(find: &[u8], with: &[u8]) -> Option<Self> {
        (!find.is_empty()).then(|| Self { find: Arc::new(Finder::new(find).into_owned()), with: with.into() })
    }
}

/// One stream under way.
#[derive(Debug)]
pub struct Replacer {
    replacement: Replacement,
    /// The end of what has come, where it may be the beginning of a match.
    held: Vec<u8>,
    out: Vec<u8>,
    replaced: u64,
}

impl Replacer {
    #[must_use]
    pub fn new(replacement: Replacement) -> Self {
        Self { replacement, held: Vec::new(), out: Vec::new(), replaced: 0 }
    }

    /// Takes a piece; returns what can go on.
    pub fn push(&mut self, piece: &[u8]) -> &[u8] {
        self.out.clear();
        let (find, with) = (&self.replacement.find, &self.replacement.with);
        // What was held is put before it, and it is looked at as a whole.
        let joined;
        let text = if self.held.is_empty() {
            piece
        } else {
            self.held.extend_from_slice(piece);
            joined = std::mem::take(&mut self.held);
            &joined
        };
        let mut from = 0;
        while let Some(at) = find.find(&text[from..]) {
            self.out.extend_from_slice(&text[from..from + at]);
            self.out.extend_from_slice(with);
            from += at + find.needle().len();
            self.replaced += 1;
        }
        let rest = &text[from..];
        let kept = beginning(rest, find.needle());
        self.out.extend_from_slice(&rest[..rest.len() - kept]);
        self.held = rest[rest.len() - kept..].to_vec();
        &self.out
    }

    /// What is left at the end of the stream.
    pub fn end(&mut self) -> &[u8] {
        self.out = std::mem::take(&mut self.held);
        &self.out
    }

    /// How often something was replaced.
    #[must_use]
    pub fn replaced(&self) -> u64 {
        self.replaced
    }
}

/// The length of the longest end of `text` with which `needle` begins, without being all of it.
fn beginning(text: &[u8], needle: &[u8]) -> usize {
    let longest = text.len().min(needle.len() - 1);
    (1..=longest).rev().find(|length| text.ends_with(&needle[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replaced in however many pieces it comes, the text is as if it had come in one.
    #[track_caller]
    fn check(find: &str, with: &str, text: &str) {
        let expected = text.replace(find, with);
        let bytes = text.as_bytes();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let mut replacer = Replacer::new(Replacement::new(find.as_bytes(), with.as_bytes()).unwrap());
                let mut out = Vec::new();
                for piece in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                    out.extend_from_slice(replacer.push(piece));
                }
                out.extend_from_slice(replacer.end());
                assert_eq!(String::from_utf8_lossy(&out), expected, "{text:?} at {first} and {second}");
            }
        }
    }

    #[test]
    fn borders_make_no_difference() {
        check("abc", "X", "abcabababcaabbccabc");
        check("aa", "a", "aaaaaaa");
        check("aab", "aabaab", "aaaabaaabab");
        check("a", "", "banana");
        check("abcabd", "-", "abcabcabdabcab");
        check("\u{e9}t\u{e9}", "hiver", "l'\u{e9}t\u{e9}, un \u{e9}t\u{e9}t\u{e9}");
        check("long enough not to be there", "X", "long enough not");
    }

    #[test]
    fn no_more_is_held_than_may_be_a_match() {
        let mut replacer = Replacer::new(Replacement::new(b"needle", b"").unwrap());
        assert_eq!(replacer.push(b"data: 1\n\n"), b"data: 1\n\n");
        assert_eq!(replacer.push(b"some need"), b"some ");
        assert_eq!(replacer.push(b"ed"), b"needed");
        assert_eq!((replacer.push(b"needle").to_vec(), replacer.replaced()), (Vec::new(), 1));
        assert!(Replacement::new(b"", b"x").is_none());
    }
}
