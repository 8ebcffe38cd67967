//! What an operator wants removed: entries by host, by URL, or by the tags that origins give their responses.

use super::headers::values;
use super::key::Key;
use super::store::Variants;
use crate::http::headers::list_items;

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
                entry.stored.head.with(b"").is_some_and(|head| {
                    let keys = values(&head.headers, "surrogate-key")
                        .flat_map(|keys| keys.split(u8::is_ascii_whitespace));
                    let tags = values(&head.headers, "cache-tag").flat_map(list_items);
                    keys.chain(tags).any(|found| found == tag.as_bytes())
                })
            }),
            _ => self.wants_key(key),
        }
    }
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

    proptest! {
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
