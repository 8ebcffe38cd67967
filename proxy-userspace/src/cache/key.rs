//! What a stored response is found by (RFC 9111 §2): scheme, authority, target, and where it came from, if that is not
//! settled by the authority: captured requests carry a Host that is only a client's claim, and to the gateway it is a
//! name of ours.
//!
//! Nothing of the target is normalised: `/a/../b`, `/%62` and `//b` are other keys than `/b`. Two spellings that an
//! origin takes for one cost a second copy; one key for what an origin tells apart would serve the wrong one.

use std::fmt::{self, Write};
use std::net::SocketAddr;

use crate::http::authority::{Authority, Scheme};

/// A key, as text: an absolute URI, and what it is limited to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Box<str>);

/// Whose answers a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of the authority: weir itself has found out where it is.
    Authority,
    /// Those of this address, whatever Host said, in the network namespace with this cookie, if it is not weir's own.
    Address(SocketAddr, Option<u64>),
    /// Those of the gateway's backend for this authority.
    Gateway,
}

/// What stands before the fingerprint of what has judged.
const JUDGED: &str = "judged-";

impl Key {
    /// The key of a request for `target` (path and query, or `*`) at `authority`.
    #[must_use]
    pub fn new(scheme: Scheme, authority: Option<&Authority>, target: &str, scope: Scope) -> Self {
        let mut text = String::with_capacity(target.len() + 48);
        // Writing to a String does not fail. A space is in no URI: no key of one scope is like one of another.
        let _ = match scope {
            Scope::Authority => Ok(()),
            Scope::Address(address, None) => write!(text, "{address} "),
            Scope::Address(address, Some(namespace)) => write!(text, "{address}%{namespace} "),
            Scope::Gateway => write!(text, "gateway "),
        };
        let _ = match authority {
            Some(authority) => write!(text, "{}://{authority}", name(scheme)),
            None => write!(text, "{}://-", name(scheme)),
        };
        text.push_str(target);
        Self(text.into())
    }

    /// The same, for answers that were judged by what has this fingerprint: what others have let pass is not found.
    #[must_use]
    pub fn judged_by(self, fingerprint: u64) -> Self {
        Self(format!("{JUDGED}{fingerprint:016x} {}", self.0).into())
    }

    /// The key of another target of the same origin, which `reference` of a response names: in Location and
    /// Content-Location (RFC 9111 §4.4). None if it is of another origin.
    #[must_use]
    pub fn of_reference(&self, reference: &str) -> Option<Self> {
        let (origin, path) = self.split();
        let target = match reference {
            rest if rest.starts_with("//") => rest.strip_prefix("//").and_then(|rest| self.within(rest))?,
            absolute if absolute.starts_with('/') => absolute.to_owned(),
            uri if uri.contains("://") => {
                let (scheme, rest) = uri.split_once("://")?;
                scheme.eq_ignore_ascii_case(name(self.scheme())).then(|| self.within(rest)).flatten()?
            }
            "" => return None,
            query if query.starts_with('?') => {
                format!("{}{query}", path.split('?').next().unwrap_or_default())
            }
            relative => {
                let path = path.split('?').next().unwrap_or_default();
                let folder = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
                format!("{folder}{relative}")
            }
        };
        let target = target.split('#').next().unwrap_or_default();
        Some(Self(format!("{origin}{target}").into()))
    }

    /// The target of `authority/target`, if that is of the same origin.
    fn within(&self, rest: &str) -> Option<String> {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let named = Authority::parse(&rest[..end], Some(self.scheme().default_port())).ok()?;
        let target = &rest[end..];
        let same = self.authority() == named.to_string();
        same.then(|| if target.starts_with('/') { target.to_owned() } else { format!("/{target}") })
    }

    fn scheme(&self) -> Scheme {
        if self.split().0.contains("https://") { Scheme::Https } else { Scheme::Http }
    }

    /// Whether it will mean the same after a restart of the machine: the numbers of network namespaces, and those of
    /// interfaces in link-local addresses, are given out anew.
    #[must_use]
    pub fn outlives_boot(&self) -> bool {
        self.limit().is_none_or(|limit| !limit.contains('%'))
    }

    /// Whether it means the same to another machine: an address that Host has not agreed with may be another server
    /// there.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.limit().is_none_or(|limit| {
            let judged =
                limit.strip_prefix(JUDGED).map(|rest| rest.split_once(' ').map_or("", |(_, rest)| rest));
            matches!(judged.unwrap_or(limit), "" | "gateway")
        })
    }

    /// What stands before the URL.
    fn limit(&self) -> Option<&str> {
        self.0.rsplit_once(' ').map(|(limit, _)| limit)
    }

    /// `host:port`; `-` if the request named none.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.split().0.rsplit_once("//").map_or("", |(_, authority)| authority)
    }

    /// The URL, with its port.
    #[must_use]
    pub fn url(&self) -> &str {
        self.0.rsplit_once(' ').map_or(&self.0, |(_, url)| url)
    }

    /// The URL without its port, if that is its scheme's.
    #[must_use]
    pub fn short_url(&self) -> String {
        let (origin, target) = self.split();
        let url = &self.url()[..self.url().len() - target.len()];
        let port = format!(":{}", self.scheme().default_port());
        debug_assert!(origin.ends_with(url));
        format!("{}{target}", url.strip_suffix(port.as_str()).unwrap_or(url))
    }

    /// The whole key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the target, and the target.
    fn split(&self) -> (&str, &str) {
        let start = self.0.find("://").map_or(0, |colon| colon + 3);
        let end = self.0[start..].find(['/', '*']).map_or(self.0.len(), |slash| start + slash);
        self.0.split_at(end)
    }

    /// Rebuilds a key from its text.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }
}

fn name(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}

impl fmt::Display for Key {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(authority: &str, target: &str) -> Key {
        Key::new(
            Scheme::Http,
            Some(&Authority::parse(authority, Some(80)).unwrap()),
            target,
            Scope::Authority,
        )
    }

    #[test]
    fn keys() {
        assert_eq!(key("Example.COM", "/a?b").as_str(), "http://example.com:80/a?b");
        assert_eq!(key("[::1]:81", "/").as_str(), "http://[::1]:81/");
        let from = Scope::Address("198.18.0.1:80".parse().unwrap(), None);
        let authority = Authority::parse("a.example", Some(80)).unwrap();
        assert_eq!(
            Key::new(Scheme::Http, Some(&authority), "/", from).as_str(),
            "198.18.0.1:80 http://a.example:80/"
        );
        assert_eq!(Key::new(Scheme::Http, None, "/", from).as_str(), "198.18.0.1:80 http://-/");
        let elsewhere = Scope::Address("198.18.0.1:80".parse().unwrap(), Some(7));
        assert_eq!(Key::new(Scheme::Http, None, "/", elsewhere).as_str(), "198.18.0.1:80%7 http://-/");
        assert_eq!(
            Key::new(Scheme::Http, Some(&authority), "/", Scope::Gateway).as_str(),
            "gateway http://a.example:80/"
        );
        assert_eq!(key("a.example", "/http://b.example/").authority(), "a.example:80");
    }

    #[test]
    fn what_came_over_tls_is_told_apart() {
        let authority = Authority::parse("a.example", Some(443)).unwrap();
        let key = Key::new(Scheme::Https, Some(&authority), "/", Scope::Authority);
        assert_eq!(key.as_str(), "https://a.example:443/");
        assert_eq!(key.of_reference("https://a.example/x").unwrap().as_str(), "https://a.example:443/x");
        assert_eq!(key.of_reference("http://a.example:443/x"), None);
    }

    #[test]
    fn what_is_of_one_place_stays_there() {
        let authority = Authority::parse("a.example", Some(80)).unwrap();
        let check = |scope, outlives_boot, is_shared| {
            let key = Key::new(Scheme::Http, Some(&authority), "/%41", scope);
            assert_eq!((key.outlives_boot(), key.is_shared()), (outlives_boot, is_shared), "{key}");
        };
        check(Scope::Authority, true, true);
        check(Scope::Gateway, true, true);
        check(Scope::Address("198.18.0.1:80".parse().unwrap(), None), true, false);
        check(Scope::Address("198.18.0.1:80".parse().unwrap(), Some(7)), false, false);
        check(Scope::Address("[fe80::1%2]:80".parse().unwrap(), None), false, false);
    }

    #[test]
    fn spellings_are_told_apart() {
        let paths = ["/b", "/%62", "//b", "/./b", "/a/../b", "/b/", "/b?", "/B", "/b;x", "/b#c"];
        for (index, path) in paths.iter().enumerate() {
            for other in &paths[index + 1..] {
                assert_ne!(key("a.example", path), key("a.example", other));
            }
        }
    }

    #[test]
    fn references() {
        let check = |reference: &str, expected: Option<&str>| {
            let found = key("a.example", "/x/y?q").of_reference(reference);
            let expected = expected.map(|target| format!("http://a.example:80{target}"));
            assert_eq!(found.as_ref().map(Key::as_str), expected.as_deref(), "{reference}");
        };
        check("/z?1#f", Some("/z?1"));
        check("z", Some("/x/z"));
        check("?z", Some("/x/y?z"));
        check("http://A.example/z", Some("/z"));
        check("http://a.example:80", Some("/"));
        check("//a.example/z", Some("/z"));
        check("http://b.example/z", None);
        check("https://a.example/z", None);
        check("http://a.example:81/z", None);
        check("//b.example/z", None);
        check("", None);
    }

    proptest! {
        /// Whatever a response names, only keys of its own origin can be meant.
        #[test]
        fn no_reference_leaves_the_origin(reference in "[a-z:/.?#@\\[\\]0-9 -]{0,30}") {
            let from = key("a.example", "/x");
            if let Some(found) = from.of_reference(&reference) {
                prop_assert_eq!(found.authority(), "a.example:80");
            }
        }
    }
}
