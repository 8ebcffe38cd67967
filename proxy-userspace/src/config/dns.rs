//! `capture.dns`, and domain names as rules write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::keys::{ACCESS, hours, ms};
use super::kinds::{Fault, choice, duration, number, prefix, switch};
use super::section::Section;
use super::{Access, Prefix};

/// `capture.dns`: DNS of captured processes.
#[derive(Debug, Clone, PartialEq)]
pub struct Dns {
    /// Take queries to port 53 where TCP to it would be redirected. Default on.
    pub enabled: bool,
    /// Servers whose answers tell names to `rules`. Default empty: all.
    pub resolvers: Vec<Prefix>,
    /// Answers that are kept as long as they live; 0: none. Default 4096.
    pub cache_entries: u32,
    /// Longest that an answer is kept. Default 1h.
    pub max_ttl: Duration,
    /// How long a name is known after its answer's TTL. Default 60s.
    pub grace: Duration,
    /// Addresses whose names are known; the least recently resolved go first. Default 65536.
    pub max_names: u32,
    pub rebinding: Rebinding,
}

/// `capture.dns.rebinding`: which addresses a name may have.
#[derive(Debug, Clone, PartialEq)]
pub struct Rebinding {
    pub loopback: Access,
    pub link_local: Access,
    pub metadata: Access,
    pub private: Access,
    /// Names that may have any address.
    pub names: Vec<Domain>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            enabled: true,
            resolvers: Vec::new(),
            cache_entries: 4096,
            max_ttl: Duration::from_secs(3600),
            grace: Duration::from_secs(60),
            max_names: 65_536,
            rebinding: Rebinding::default(),
        }
    }
}

impl Default for Rebinding {
    fn default() -> Self {
        Self {
            loopback: Access::Deny,
            link_local: Access::Deny,
            metadata: Access::Deny,
            private: Access::Allow,
            names: Vec::new(),
        }
    }
}

pub(super) fn read(s: &mut Section<'_, '_>) -> Dns {
    let d = Dns::default();
    Dns {
        enabled: s.read("enabled", d.enabled, switch()),
        resolvers: s.list("resolvers", d.resolvers, prefix()),
        cache_entries: s.read("cache_entries", d.cache_entries, number(0..=1_000_000)),
        max_ttl: s.read("max_ttl", d.max_ttl, duration(ms(1_000)..=hours(24))),
        grace: s.read("grace", d.grace, duration(ms(0)..=hours(24))),
        max_names: s.read("max_names", d.max_names, number(64..=4_194_304)),
        rebinding: s.section("rebinding", rebinding),
    }
}

fn rebinding(s: &mut Section<'_, '_>) -> Rebinding {
    let d = Rebinding::default();
    Rebinding {
        loopback: s.read("loopback", d.loopback, choice(ACCESS)),
        link_local: s.read("link_local", d.link_local, choice(ACCESS)),
        metadata: s.read("metadata", d.metadata, choice(ACCESS)),
        private: s.read("private", d.private, choice(ACCESS)),
        names: s.list("names", d.names, domain),
    }
}

/// `example.com` is this name alone; `*.example.com` is every name below it, and not the name itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain {
    /// In lower case, without a dot at the end.
    pub name: String,
    pub below: bool,
}

impl Domain {
    /// `name` in lower case, without a dot at the end.
    #[must_use]
    pub fn admits(&self, name: &str) -> bool {
        if !self.below {
            return name == self.name;
        }
        name.strip_suffix(self.name.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }
}

/// A text that is no [`Domain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotADomain;

impl FromStr for Domain {
    type Err = NotADomain;

    fn from_str(text: &str) -> Result<Self, NotADomain> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_label = |label: &str| {
            let of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            !label.is_empty() && label.len() <= 63 && label.bytes().all(of_name)
        };
        if name.len() > MAX_NAME || !name.split('.').all(is_label) {
            return Err(NotADomain);
        }
        Ok(Self { name: name.to_ascii_lowercase(), below })
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

/// RFC 1035 §2.3.4: 255 octets with the lengths of its labels and of the root.
const MAX_NAME: usize = 253;

pub(super) fn domain(text: &str) -> Result<Domain, Fault> {
    text.parse().map_err(|NotADomain| {
        Fault::from(format!(
            "`{}` is not a domain name such as example.com or *.example.com (other scripts as xn--...)",
            text.escape_debug()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, admitted: &[&str], refused: &[&str]) {
        let pattern: Domain = pattern.parse().unwrap();
        admitted.iter().for_each(|name| assert!(pattern.admits(name), "{pattern} {name}"));
        refused.iter().for_each(|name| assert!(!pattern.admits(name), "{pattern} {name}"));
    }

    #[test]
    fn names_and_what_is_below_them() {
        check("Example.COM.", &["example.com"], &["a.example.com", "xexample.com", "com", ""]);
        check(
            "*.example.com",
            &["a.example.com", "b.a.example.com"],
            &["example.com", "aexample.com", ".example.com"],
        );
    }

    #[test]
    fn what_is_no_name() {
        for text in ["", "*", "*.", ".", "a..b", ".a", "a b", "*a.b", "a.*", "ü.example", "a/b", "*.*.a"] {
            assert_eq!(text.parse::<Domain>(), Err(NotADomain), "{text}");
        }
        assert!("a".repeat(64).parse::<Domain>().is_err());
        assert!(format!("{0}.{0}.{0}.{0}", "a".repeat(63)).parse::<Domain>().is_err());
    }
}
