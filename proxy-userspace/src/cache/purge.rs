//! What an operator wants removed: entries by host, by URL, or by the tags that origins give their responses.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::headers::values;
use super::key::Key;
use super::store::Variants;
use super::stored_head::StoredHead;
use crate::http::headers::{Headers, list_items};

/// Which entries are to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// Everything.
    All,
    /// Those of a host.
    Host(String),
    /// Those of hosts below a name.
    Below(String),
    /// Those whose URL is this, `*` standing for any text.
    Url(String),
    /// Those that have this in Surrogate-Key or Cache-Tag.
    Tag(String),
}

impl Purge {
    /// Reads `*`, `host`, `*.host` or `http://host/path*`.
    #[must_use]
    pub fn of_pattern(pattern: &str) -> Option<Self> {
        match pattern {
            "" => None,
            "*" => Some(Self::All),
            url if url.contains('/') => Some(Self::Url(url.to_owned())),
            host => Some(match host.strip_prefix("*.") {
                Some(name) => Self::Below(format!(".{}", name.to_ascii_lowercase())),
                None => Self::Host(host.to_ascii_lowercase()),
            }),
        }
    }

    /// Whether it wants this entry removed, as far as its key tells.
    #[must_use]
    pub fn wants_key(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Host(host) => host_of(key) == host,
            Self::Below(suffix) => host_of(key).ends_with(suffix.as_str()),
            Self::Url(pattern) => {
                let url = key.url();
                glob(pattern.as_bytes(), url.as_bytes())
                    || glob(pattern.as_bytes(), key.short_url().as_bytes())
            }
            Self::Tag(_) => false,
        }
    }

    /// Whether it wants this entry removed.
    #[must_use]
    pub fn wants(&self, key: &Key, variants: &Variants) -> bool {
        match self {
            Self::Tag(tag) => variants.iter().any(|entry| {
                let head = entry.stored.head.with(b"");
                head.is_some_and(|head| tags(&head.headers).any(|found| found == tag.as_bytes()))
            }),
            _ => self.wants_key(key),
        }
    }
}

/// By what an entry may be found without reading it: its host, the domains above that, and its tags, as a Bloom filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hints(pub u64);

impl Hints {
    /// Those of an entry.
    #[must_use]
    pub fn of(key: &Key, head: &StoredHead) -> Self {
        let host = host_of(key);
        let above = host.match_indices('.').map(|(dot, _)| &host[dot..]);
        let domains =
            std::iter::once(host).chain(above).fold(0, |bits, name| bits | bits_of(b'h', name.as_bytes()));
        let tags = head
            .with(b"")
            .map_or(u64::MAX, |head| tags(&head.headers).fold(0, |bits, tag| bits | bits_of(b't', tag)));
        Self(domains | tags)
    }

    /// Whether an entry with these may be wanted.
    #[must_use]
    pub fn may_be(self, wanted: &Purge) -> bool {
        let bits = match wanted {
            Purge::All => 0,
            Purge::Host(name) | Purge::Below(name) => bits_of(b'h', name.as_bytes()),
            Purge::Url(pattern) => literal_host(pattern).map_or(0, |host| bits_of(b'h', host.as_bytes())),
            Purge::Tag(tag) => bits_of(b't', tag.as_bytes()),
        };
        self.0 & bits == bits
    }
}

/// Three of 64 bits: with a handful of names and tags, one entry of a hundred is looked at in vain.
fn bits_of(kind: u8, name: &[u8]) -> u64 {
    let hash = xxh3_64_with_seed(name, kind.into());
    (0..3).fold(0, |bits, number| bits | 1 << (hash >> (6 * number) & 63))
}

/// The host of a pattern for URLs, if no `*` stands in it.
fn literal_host(pattern: &str) -> Option<&str> {
    let (_, rest) = pattern.split_once("://")?;
    let authority = rest.split('/').next().filter(|authority| !authority.contains('*'))?;
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => Some(host),
        _ => Some(authority),
    }
}

/// The tags that origins give a response.
pub fn tags(response: &Headers) -> impl Iterator<Item = &[u8]> {
    let keys = values(response, "surrogate-key").flat_map(|keys| keys.split(u8::is_ascii_whitespace));
    keys.chain(values(response, "cache-tag").flat_map(list_items)).filter(|tag| !tag.is_empty())
}

/// The host, without port.
fn host_of(key: &Key) -> &str {
    let authority = key.authority();
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// Whether `text` is `pattern`, in which `*` stands for any text. In time that grows with the product of both, whatever
/// the pattern.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from, mut retry) = (0, 0, None);
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, from));
                at += 1;
            }
            Some(byte) if *byte == text[from] => (at, from) = (at + 1, from + 1),
            _ => match retry {
                Some((after, taken)) => {
                    retry = Some((after, taken + 1));
                    (at, from) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        let check = |pattern: &str, key: &str, expected: bool| {
            let purge = Purge::of_pattern(pattern).unwrap();
            assert_eq!(purge.wants_key(&Key::from_text(key)), expected, "{pattern} {key}");
        };
        let key = "http://a.example:80/x/y?z";
        check("*", key, true);
        check("a.example", key, true);
        check("A.Example", key, true);
        check("example", key, false);
        check("*.example", key, true);
        check("*.ample", key, false);
        check("*.a.example", key, false);
        check("http://a.example/x/y?z", key, true);
        check("http://a.example:80/x/*", key, true);
        check("http://a.example/*z", key, true);
        check("http://a.example/x", key, false);
        check("https://a.example/*", key, false);
        check("*/x/*", key, true);
        check("a.example", "198.18.0.1:80 http://a.example:80/", true);
        check("http://a.example/*", "gateway http://a.example:80/", true);
        check("[::1]", "http://[::1]:80/", true);
        assert_eq!(Purge::of_pattern(""), None);
    }

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nSurrogate-Key: one two\r\nCache-Tag: three, four\r\n";

    /// Whatever is wanted has the hints of it; of others, few do.
    #[test]
    fn hints() {
        let head = StoredHead::from_lines(200, HEAD);
        let check = |key: &str, pattern: &str, expected: bool| {
            let (key, purge) = (Key::from_text(key), Purge::of_pattern(pattern).unwrap());
            assert!(!purge.wants_key(&key) || Hints::of(&key, &head).may_be(&purge), "{key} {pattern}");
            assert_eq!(Hints::of(&key, &head).may_be(&purge), expected, "{key} {pattern}");
        };
        let key = "198.18.0.1:80 http://www.a.example:80/x";
        for pattern in [
            "*",
            "www.a.example",
            "*.a.example",
            "*.example",
            "*/x",
            "http://www.a.example/*",
            "http://www.a.example:80/x",
        ] {
            check(key, pattern, true);
        }
        for pattern in ["a.example", "*.b.example", "http://b.example/*", "https://c.example:1/x"] {
            check(key, pattern, false);
        }
        for pattern in ["[::1]", "http://[::1]/*", "http://[::1]:80/", "http://[::1"] {
            let purge = Purge::of_pattern(pattern).unwrap();
            let key = Key::from_text("http://[::1]:80/");
            assert!(!purge.wants_key(&key) || Hints::of(&key, &head).may_be(&purge), "{pattern}");
        }
        let tagged = Hints::of(&Key::from_text(key), &head);
        let has = |tag: &str| tagged.may_be(&Purge::Tag(tag.to_owned()));
        assert!(["one", "two", "three", "four"].into_iter().all(has));
        let others = (0..1000).filter(|number| has(&number.to_string())).count();
        assert!(others < 200, "{others} of 1000");
    }

    proptest! {
        /// Nothing that is wanted is passed over.
        #[test]
        fn hints_miss_nothing(host in "[ab.]{1,6}", pattern in "([ab.*]{1,6}|http://[ab.*]{0,4}(:80)?/[ab*]{0,2})") {
            let key = Key::from_text(&format!("http://{host}:80/a"));
            if let Some(purge) = Purge::of_pattern(&pattern) {
                let head = StoredHead::from_lines(200, HEAD);
                prop_assert!(!purge.wants_key(&key) || Hints::of(&key, &head).may_be(&purge));
            }
        }

        #[test]
        fn a_pattern_without_stars_is_itself(text in "[a-c]{0,8}", other in "[a-c]{0,8}") {
            prop_assert_eq!(glob(text.as_bytes(), other.as_bytes()), text == other);
        }

        #[test]
        fn a_star_stands_for_any_text(before in "[a-c]{0,4}", within in "[a-c*]{0,6}", after in "[a-c]{0,4}") {
            let text = format!("{before}{within}{after}");
            let pattern = [&before, "*", &after].concat();
            prop_assert!(glob(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
