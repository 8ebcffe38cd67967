//! Patterns of URLs in the Adblock syntax: `*` is any text, `^` a character that separates or the end, `|` the beginning
//! or the end, `||` the beginning of a name or of a part of it. Case does not count.
//!
//! A pattern is looked at only for URLs of the name that it begins with, or else where four bytes in a row that it must
//! have, the rarest of them in the list, stand in the URL: so the cost of a look-up does not grow with the list.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Place;
use super::table::Table;
use super::url::Url;

/// Bytes by which a pattern is found.
const GRAM: usize = crate::config::filter_line::MIN_LITERAL;

#[derive(Debug, Clone)]
pub(in crate::policy) struct Pattern {
    /// In lower case, without its anchors.
    text: Box<str>,
    begin: Begin,
    /// `|` at the end.
    to_end: bool,
    pub(super) important: bool,
    pub(super) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    Anywhere,
    Url,
    Name,
}

/// A list of patterns.
#[derive(Debug, Default)]
pub(in crate::policy) struct Patterns {
    /// Sorted by what they are found by.
    patterns: Vec<Pattern>,
    /// What those are found by, and where they begin and end.
    groups: Vec<(Key, u32, u32)>,
    table: Table,
    seed: u64,
}

type Gram = [u8; GRAM];

/// A name, or a gram.
type Key = Box<[u8]>;

impl Patterns {
    /// One more. [`Patterns::finish`] has to follow.
    pub(in crate::policy) fn push(&mut self, text: &str, important: bool, place: Place) {
        self.patterns.push(Pattern::new(text, important, place));
    }

    pub(in crate::policy) fn finish(&mut self, seed: u64) {
        let mut counts: HashMap<Gram, u32> = HashMap::new();
        for gram in self.patterns.iter().filter(|pattern| pattern.name().is_none()).flat_map(Pattern::grams) {
            *counts.entry(gram).or_default() += 1;
        }
        let key = |pattern: &Pattern| match pattern.name() {
            Some(name) => Some(Key::from(name.as_bytes())),
            None => pattern.grams().min_by_key(|gram| counts.get(gram)).map(Key::from),
        };
        // Who has none can't be found; the reader of lists has left them out.
        let mut found: Vec<(Key, Pattern)> =
            self.patterns.drain(..).filter_map(|pattern| Some((key(&pattern)?, pattern))).collect();
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut begin = 0;
        for group in found.chunk_by(|one, other| one.0 == other.0) {
            let end = begin + u32::try_from(group.len()).unwrap_or(u32::MAX);
            self.groups.push((group[0].0.clone(), begin, end));
            begin = end;
        }
        self.patterns = found.into_iter().map(|(_, pattern)| pattern).collect();
        self.table = Table::for_count(self.groups.len());
        self.seed = seed;
        for (number, (key, ..)) in self.groups.iter().enumerate() {
            self.table.insert(xxh3_64_with_seed(key, seed), u32::try_from(number).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.patterns.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The first pattern that fits; an important one if there is any.
    pub(in crate::policy) fn find(&self, url: &Url) -> Option<&Pattern> {
        if self.patterns.is_empty() {
            return None;
        }
        let mut found: Option<&Pattern> = None;
        for key in url.names().chain(url.text().as_bytes().windows(GRAM)) {
            let hash = xxh3_64_with_seed(key, self.seed);
            let Some(group) = self.table.find(hash, |at| *self.groups[at as usize].0 == *key) else {
                continue;
            };
            let (_, begin, end) = self.groups[group as usize];
            for pattern in &self.patterns[begin as usize..end as usize] {
                if (found.is_none() || pattern.important) && pattern.fits(url) {
                    if pattern.important {
                        return Some(pattern);
                    }
                    found = Some(pattern);
                }
            }
        }
        found
    }
}

impl Pattern {
    fn new(text: &str, important: bool, place: Place) -> Self {
        let (rest, begin) = match (text.strip_prefix("||"), text.strip_prefix('|')) {
            (Some(rest), _) => (rest, Begin::Name),
            (None, Some(rest)) => (rest, Begin::Url),
            (None, None) => (text, Begin::Anywhere),
        };
        let (rest, to_end) = match rest.strip_suffix('|') {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        Self { text: rest.to_ascii_lowercase().into(), begin, to_end, important, place }
    }

    /// The name of the URLs that it fits, where it says all of that.
    fn name(&self) -> Option<&str> {
        let end = self.text.find(['/', '^', ':', '*', '['])?;
        let is_whole = self.begin == Begin::Name && end > 0 && !b"*[".contains(&self.text.as_bytes()[end]);
        is_whole.then(|| &self.text[..end])
    }

    /// Bytes in a row that a URL must have.
    fn grams(&self) -> impl Iterator<Item = Gram> + '_ {
        let literals = self.text.as_bytes().split(|byte| matches!(byte, b'*' | b'^'));
        literals.flat_map(|literal| literal.windows(GRAM)).filter_map(|gram| gram.try_into().ok())
    }

    fn fits(&self, url: &Url) -> bool {
        let (bytes, text) = (url.text().as_bytes(), self.text.as_bytes());
        let (first, rest) = match text.iter().position(|byte| *byte == b'*') {
            Some(star) => (&text[..star], Some(&text[star + 1..])),
            None => (text, None),
        };
        let goes_on = |end: usize| match rest {
            Some(rest) => self.fits_behind(rest, bytes, end),
            None => !self.to_end || end == bytes.len(),
        };
        let begins = |at: usize| here(first, bytes, at).is_some_and(goes_on);
        match self.begin {
            Begin::Url => begins(0),
            Begin::Name => url.parts_of_name().any(begins),
            Begin::Anywhere => (0..=bytes.len()).any(begins),
        }
    }

    /// Whether what stands behind a `*` is found from `from` on: of each part the first place will do.
    fn fits_behind(&self, rest: &[u8], bytes: &[u8], mut from: usize) -> bool {
        let mut parts = rest.split(|byte| *byte == b'*').peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            let mut places = (from..=bytes.len()).filter_map(|at| here(part, bytes, at));
            let end = if is_last && self.to_end && !part.is_empty() {
                places.find(|end| *end == bytes.len())
            } else {
                places.next()
            };
            match end {
                Some(end) => from = end,
                None => return false,
            }
        }
        true
    }

    /// As it stands in the list, but for its case.
    pub(super) fn shown(&self) -> String {
        let begin = match self.begin {
            Begin::Anywhere => "",
            Begin::Url => "|",
            Begin::Name => "||",
        };
        format!("{begin}{}{}", self.text, if self.to_end { "|" } else { "" })
    }
}

/// The end of a part without `*` that stands at `at`.
fn here(part: &[u8], bytes: &[u8], mut at: usize) -> Option<usize> {
    for wanted in part {
        match (wanted, bytes.get(at)) {
            (b'^', None) => {}
            (b'^', Some(byte)) if is_separator(*byte) => at += 1,
            (wanted, Some(byte)) if wanted == byte && *wanted != b'^' => at += 1,
            _ => return None,
        }
    }
    Some(at)
}

fn is_separator(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() && !b"_-.%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, Scheme};

    fn url(text: &str) -> Url {
        let (scheme, rest) = text.split_once("://").unwrap();
        let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
        let (authority, path) = rest.split_at(rest.find('/').unwrap());
        let authority = Authority::parse(authority, Some(scheme.default_port())).unwrap();
        Url::new(scheme, Some(&authority.host), Some(authority.port), path)
    }

    #[track_caller]
    fn check(pattern: &str, fits: &[&str], does_not: &[&str]) {
        let mut patterns = Patterns::default();
        patterns.push(pattern, false, Place::default());
        patterns.finish(1);
        fits.iter().for_each(|text| assert!(patterns.find(&url(text)).is_some(), "{pattern} {text}"));
        does_not.iter().for_each(|text| assert!(patterns.find(&url(text)).is_none(), "{pattern} {text}"));
    }

    #[test]
    fn where_a_pattern_begins_and_ends() {
        check(
            "/banner/*",
            &["http://a.example/banner/1", "http://a.example/x/BANNER/"],
            &["http://a.example/banner"],
        );
        check(
            "||ads.example/x",
            &["http://ads.example/x1", "https://a.ads.example/x"],
            &["http://bads.example/x", "http://a.example/?http://ads.example/x", "http://ads.example/y"],
        );
        check(
            "|http://a.example/",
            &["http://a.example/x"],
            &["https://a.example/", "http://b.example/?http://a.example/"],
        );
        check("/x.swf|", &["http://a.example/x.swf"], &["http://a.example/x.swf?1"]);
        check("||a.example^|", &["http://a.example/"], &["http://a.example/x"]);
    }

    #[test]
    fn stars_and_separators() {
        check("/ads/*/img*.gif", &["http://a.example/ads/1/img2.gif?x"], &["http://a.example/ads/img.gif"]);
        check(
            "^track^",
            &["http://a.example/track/1", "http://a.example/?track=1", "http://a.example/x/track"],
            &["http://a.example/tracks", "http://a.example/-track-"],
        );
        check("||a.example^*/x.js", &["http://a.example:81/y/x.js"], &["http://a.example.org/x.js"]);
        check("/ads/*.gif|", &["http://a.example/ads/a.gif.gif"], &["http://a.example/ads/a.gif.png"]);
    }

    #[test]
    fn servers_take_these_urls_for_the_same() {
        check(
            "/secret/data",
            &[
                "http://a.example/%73ecret/data",
                "http://a.example/x/../secret/./data",
                "http://a.example//secret//data",
                "http://a.example/SECRET/%64ata",
                "http://a.example/secret%2fdata",
            ],
            &["http://a.example/secrets/data"],
        );
    }
}
