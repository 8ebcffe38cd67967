//! `upstream.parent` and `upstream.no_proxy`: a proxy behind weir, and what does not go through it.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use super::kinds::{Fault, quoted};
use crate::authority::{Authority, BadAuthority, Host};

/// `upstream.parent`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Parent {
    pub kind: ParentKind,
    pub authority: Authority,
    pub credentials: Option<Credentials>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParentKind {
    Http,
    /// HTTP through TLS with the proxy itself.
    Https,
    Socks5,
}

/// A name and a password, which no log ever shows.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub name: String,
    pub password: String,
}

/// An entry of `upstream.no_proxy`, with the meaning that it has for curl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exempt {
    /// `*`.
    All,
    /// A name, and all below it. In lower case, without dots around it.
    Domain(Box<str>),
    /// An address, or a network.
    Network(IpNet),
}

impl Exempt {
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::Network(network), Host::Address(address)) => network.contains(address),
            (Self::Domain(domain), Host::Name(name)) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                name.strip_suffix(&**domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            _ => false,
        }
    }
}

/// `http://`, `https://` or `socks5://`, perhaps `name:password@`, and `host:port`.
pub(super) fn parent(text: &str) -> Result<Option<Arc<Parent>>, Fault> {
    if text == "none" {
        return Ok(None);
    }
    // The text itself is not repeated: it may hold a password.
    let bad = |why: &str| Fault::from(format!("not a proxy such as http://proxy.example:3128: {why}"));
    let (scheme, rest) =
        text.split_once("://").ok_or_else(|| bad("it does not begin with http://, https:// or socks5://"))?;
    let (kind, port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (ParentKind::Http, 3128),
        "https" => (ParentKind::Https, 443),
        // Names are always for the proxy to resolve.
        "socks5" | "socks5h" => (ParentKind::Socks5, 1080),
        _ => return Err(bad("it does not begin with http://, https:// or socks5://")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (credentials, authority) = match rest.rsplit_once('@') {
        Some((credentials, authority)) => {
            (Some(self::credentials(credentials).ok_or_else(|| bad(BAD_USER))?), authority)
        }
        None => (None, rest),
    };
    let authority = Authority::parse(authority, Some(port)).map_err(|error| bad(&error.to_string()))?;
    Ok(Some(Arc::new(Parent { kind, authority, credentials })))
}

const BAD_USER: &str = "before the @ there is to be name:password, percent-encoded, each of 1 to 255 bytes";

fn credentials(text: &str) -> Option<Credentials> {
    let (name, password) = text.split_once(':')?;
    let (name, password) = (percent_decoded(name)?, percent_decoded(password)?);
    // RFC 1929 §2 has a byte for each length, RFC 7617 §2 no colon in the name.
    let fits = |text: &str| (1..=255).contains(&text.len()) && !text.contains(char::is_control);
    (fits(&name) && fits(&password) && !name.contains(':')).then_some(Credentials { name, password })
}

pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match byte {
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// As in NO_PROXY for curl: `*`, a name for itself and all below it, an address, or a network.
pub(super) fn exempt(text: &str) -> Result<Exempt, Fault> {
    if text == "*" {
        return Ok(Exempt::All);
    }
    let plain = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = plain.parse::<std::net::IpAddr>() {
        return Ok(Exempt::Network(address.into()));
    }
    if let Ok(network) = plain.parse::<IpNet>() {
        return Ok(Exempt::Network(network.trunc()));
    }
    let name = plain.strip_prefix('.').unwrap_or(plain);
    match Host::parse(name.strip_suffix('.').unwrap_or(name)) {
        Ok(Host::Name(name)) => Ok(Exempt::Domain(name)),
        // The end of an address is the end of no name: it fits nothing, as for curl.
        Ok(Host::Address(_)) | Err(BadAuthority::BadNumber) => Ok(Exempt::Domain(name.into())),
        Err(_) => Err(format!("{} is no name, address or network such as 10.0.0.0/8", quoted(text)).into()),
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("***")
    }
}

/// Without the credentials.
impl fmt::Display for Parent {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ParentKind::Http => "http",
            ParentKind::Https => "https",
            ParentKind::Socks5 => "socks5",
        };
        write!(text, "{scheme}://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        for (text, expected) in [
            ("http://proxy.example", Some("http://proxy.example:3128")),
            ("HTTP://proxy.example:8080/", Some("http://proxy.example:8080")),
            ("socks5h://[::1]", Some("socks5://[::1]:1080")),
            ("http://me:se%40cret@proxy.example", Some("http://proxy.example:3128")),
            ("proxy.example:3128", None),
            ("https://proxy.example", Some("https://proxy.example:443")),
            ("ftp://proxy.example", None),
            ("http://me@proxy.example", None),
            ("http://me:%zz@proxy.example", None),
            ("http://me:%0d%0a@proxy.example", None),
            ("http://proxy.example/path", None),
        ] {
            let parent = parent(text).ok().flatten();
            assert_eq!(parent.as_ref().map(ToString::to_string).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn credentials_are_read_and_never_shown() {
        let found = parent("http://me:se%40cret@proxy.example").unwrap().unwrap();
        assert_eq!(found.credentials.as_ref().unwrap().password, "se@cret");
        assert!(!format!("{found:?} {found}").contains("cret"));
        assert!(!parent("http://me:secret@/").unwrap_err().message.contains("secret"));
    }
}
