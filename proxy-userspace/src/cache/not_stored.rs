//! Why a response is not stored, for whoever asks: in Cache-Status as a few words, for operators as a sentence, and for
//! some time after, in a bounded memory of the last such answers.

use std::fmt;

use quick_cache::sync::Cache;

use super::key::Key;

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStored {
    Method,
    Status,
    NotUnderstood,
    NoStore,
    RequestNoStore,
    Private,
    Authorized,
    VaryStar,
    NoFreshness,
    /// It is stale from the start, and there is nothing to validate it with.
    Useless,
    /// The request has a body.
    Body,
    /// The request has a field that no Vary names, and that origins act on.
    Influenced,
    /// A part of nobody knows what, or several.
    Partial,
    /// More content than `cache.max_object`.
    TooLarge,
    /// Too much is under way, or nothing can be written.
    Busy,
    /// It ends with its connection: whether it is whole can't be told.
    NoEnd,
    /// It ended before its end.
    CutOff,
}

impl NotStored {
    /// Whether the same is likely to be said of the answers to other requests for the key.
    #[must_use]
    pub fn is_for_all(self) -> bool {
        use NotStored::{NoEnd, NoFreshness, NoStore, Private, TooLarge, Useless, VaryStar};
        matches!(self, NoStore | Private | VaryStar | NoFreshness | Useless | TooLarge | NoEnd)
    }

    /// What would have to be otherwise.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Method => "only answers to GET are stored, and those to POST that are what GET would get",
            Self::Status => "this status is an answer to this very request only, or not final",
            Self::NotUnderstood => "must-understand, and nothing is known here of caching this status",
            Self::NoStore => "the response forbids it: Cache-Control: no-store",
            Self::RequestNoStore => "the request forbids it: Cache-Control: no-store",
            Self::Private => "it is for one user: Cache-Control: private",
            Self::Authorized => {
                "the request had Authorization, and the response has none of public, must-revalidate and s-maxage"
            }
            Self::VaryStar => {
                "Vary: *, or more fields than are kept apart: no other request is known to get the same"
            }
            Self::NoFreshness => {
                "it does not say how long it is good for (max-age, Expires), and there is nothing to guess by or to \
                 validate it with (Last-Modified, ETag)"
            }
            Self::Useless => {
                "it is stale from the start, and there is nothing to validate it with (Last-Modified, ETag)"
            }
            Self::Body => "the request had a body, which is no part of the key",
            Self::Influenced => {
                "the request has a field such as X-Forwarded-Host or X-Original-URL: origins act on those, and Vary \
                 does not name them"
            }
            Self::Partial => {
                "it is several parts, or a part that does not say without doubt of what (Content-Range)"
            }
            Self::TooLarge => {
                "it is larger than cache.max_object, and than what the disk store takes, if there is one"
            }
            Self::Busy => {
                "there was no room: half of cache.max_memory, and an eighth of the disk store, are for responses under way"
            }
            Self::NoEnd => "it ends with its connection: nobody can tell whether it is whole",
            Self::CutOff => "it ended before its end, or everybody who wanted it left",
        }
    }
}

impl fmt::Display for NotStored {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::NotUnderstood => "status not understood",
            Self::NoStore => "no-store",
            Self::RequestNoStore => "request no-store",
            Self::Private => "private",
            Self::Authorized => "authorization",
            Self::VaryStar => "vary",
            Self::NoFreshness => "no freshness",
            Self::Useless => "stale without validator",
            Self::Body => "request body",
            Self::Influenced => "unkeyed request field",
            Self::Partial => "partial",
            Self::TooLarge => "too large",
            Self::NoEnd => "no framing",
            Self::Busy => "busy",
            Self::CutOff => "cut off",
        })
    }
}

/// The last answer for a key that was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    pub why: NotStored,
    pub status: u16,
    /// In milliseconds since 1970-01-01 UTC.
    pub at: u64,
    /// Until then, nobody need wait for the answer to another's request.
    personal_until: u64,
}

/// Those of many keys.
#[derive(Debug)]
pub struct Notes(Cache<Key, Note>);

/// Keys that are remembered, and for how many milliseconds what is for nobody else is expected to stay so.
const KEYS: usize = 4096;
const PERSONAL_SPAN: u64 = 60_000;

impl Default for Notes {
    fn default() -> Self {
        Self(Cache::new(KEYS))
    }
}

impl Notes {
    /// Remembers that an answer was not stored. `for_others`: others might have waited for it.
    pub fn note(&self, key: &Key, why: NotStored, status: u16, for_others: bool, now: u64) {
        let personal_until = match for_others && why.is_for_all() {
            true => now + PERSONAL_SPAN,
            false => self.0.peek(key).map_or(0, |note| note.personal_until),
        };
        self.0.insert(key.clone(), Note { why, status, at: now, personal_until });
    }

    /// Whether waiting for another's answer is likely to be in vain.
    #[must_use]
    pub fn is_personal(&self, key: &Key, now: u64) -> bool {
        self.0.get(key).is_some_and(|note| now < note.personal_until)
    }

    /// Up to `most` of those that `wanted` says.
    #[must_use]
    pub fn select(&self, most: usize, wanted: impl Fn(&Key) -> bool) -> Vec<(Key, Note)> {
        self.0.iter().filter(|(key, _)| wanted(key)).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_this_clients_own_doing_keeps_nobody_from_waiting() {
        let notes = Notes::default();
        let key = |path: &str| Key::from_text(&format!("http://a.example:80{path}"));
        notes.note(&key("/a"), NotStored::Private, 200, true, 1000);
        notes.note(&key("/b"), NotStored::RequestNoStore, 200, true, 1000);
        notes.note(&key("/c"), NotStored::TooLarge, 206, false, 1000);
        let personal = |path| notes.is_personal(&key(path), 1000 + PERSONAL_SPAN - 1);
        assert_eq!(
            [personal("/a"), personal("/b"), personal("/c"), personal("/d")],
            [true, false, false, false]
        );
        notes.note(&key("/a"), NotStored::Body, 200, true, 2000);
        assert!(personal("/a"), "what was known of it still holds");
        assert!(!notes.is_personal(&key("/a"), 1000 + PERSONAL_SPAN));
        let found = notes.select(10, |key| key.as_str().ends_with("/a"));
        assert_eq!((found.len(), found[0].1.why, found[0].1.at), (1, NotStored::Body, 2000));
    }

    #[test]
    fn they_are_bounded() {
        let notes = Notes::default();
        for number in 0..3 * KEYS {
            notes.note(&Key::from_text(&number.to_string()), NotStored::NoStore, 200, true, 0);
        }
        assert!(notes.select(usize::MAX, |_| true).len() <= KEYS);
    }
}
