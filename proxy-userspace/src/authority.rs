//! An authority: host and port (RFC 3986 §3.2), as CONNECT, absolute-form, Host and SNI give it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest DNS name in its text form (RFC 1035 §2.3.4, without the root's dot).
const MAX_NAME: usize = 253;

/// Host and port. The host is in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    pub host: Host,
    pub port: u16,
}

/// A name to resolve, or an address literal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    Name(Box<str>),
    Address(IpAddr),
}

/// Why a text is no authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAuthority {
    #[error("the host is empty")]
    EmptyHost,
    #[error("the port is missing")]
    NoPort,
    #[error("the port is not a number from 1 to 65535")]
    BadPort,
    #[error("the host contains a character that no host name has")]
    BadHost,
    #[error("the host ends in a number and is no IPv4 address")]
    BadNumber,
    #[error("the host name is longer than 253 characters")]
    LongName,
    #[error("the address in brackets is not an IPv6 address")]
    BadAddress,
    #[error("user information in an authority is not accepted (RFC 9110, section 4.2.4)")]
    UserInformation,
}

/// The scheme of an HTTP URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// As it stands in URLs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of an authority that names none (RFC 9110 §4.2).
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Authority {
    /// Parses `host:port` or, where `default_port` is given, `host`.
    ///
    /// # Errors
    /// [`BadAuthority`] says what is wrong.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, BadAuthority> {
        if text.contains('@') {
            return Err(BadAuthority::UserInformation);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or(BadAuthority::BadAddress)?;
                let address: Ipv6Addr = address.parse().map_err(|_| BadAuthority::BadAddress)?;
                let port = match port {
                    "" => None,
                    port => Some(port.strip_prefix(':').ok_or(BadAuthority::BadPort)?),
                };
                (Host::Address(IpAddr::V6(address)), port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (Host::parse(host)?, Some(port)),
                None => (Host::parse(text)?, None),
            },
        };
        let port = match (port, default_port) {
            // RFC 3986 §3.2.3: an empty port is the default one.
            (None | Some(""), Some(default)) => default,
            (None | Some(""), None) => return Err(BadAuthority::NoPort),
            (Some(port), _) => parse_port(port)?,
        };
        Ok(Self { host, port })
    }
}

impl Authority {
    /// Its text, piece by piece: `core::fmt` takes several times as long, and each request needs it more than once.
    pub fn spell(&self, mut push: impl FnMut(&str)) {
        self.host.spell(&mut push);
        push(":");
        push(Decimal::of(u64::from(self.port)).as_str());
    }
}

/// An authority as it stands in Host and in URLs: without its scheme's default port.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(pub &'a Authority, pub Scheme);

impl Shown<'_> {
    /// As [`Authority::spell`].
    pub fn spell(&self, mut push: impl FnMut(&str)) {
        let Self(authority, scheme) = self;
        if authority.port == scheme.default_port() {
            authority.host.spell(&mut push);
        } else {
            authority.spell(push);
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(authority, scheme) = self;
        if authority.port == scheme.default_port() { authority.host.fmt(text) } else { authority.fmt(text) }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(self.as_str())
    }
}

impl Host {
    /// Parses a registered name or an IPv4 literal, without port. What a resolver would take for an IPv4 address, in
    /// whatever spelling, is one.
    ///
    /// # Errors
    /// [`BadAuthority`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, BadAuthority> {
        if text.is_empty() {
            return Err(BadAuthority::EmptyHost);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address));
        }
        if text.len() > MAX_NAME {
            return Err(BadAuthority::LongName);
        }
        // Letters, digits, hyphen (RFC 1123 §2.1), and the underscore that service names use.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if !text.bytes().all(allowed) || text.starts_with('.') || text.contains("..") {
            return Err(BadAuthority::BadHost);
        }
        if ends_in_a_number(text) {
            let address = other_spelling(text).ok_or(BadAuthority::BadNumber)?;
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        Ok(Self::Name(text.to_ascii_lowercase().into()))
    }
}

/// Whether a host is an IPv4 address or nothing: no top-level domain is a number.
fn ends_in_a_number(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let last = text.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or(last.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// The address in a spelling of inet_aton(3), which getaddrinfo(3) takes as well: up to four numbers, each decimal, octal
/// or hexadecimal, of which the last fills what is left.
fn other_spelling(text: &str) -> Option<Ipv4Addr> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let number = |part: &str| {
        let (digits, radix) = match part.as_bytes() {
            [b'0', b'x' | b'X', ..] => (&part[2..], 16),
            [b'0', _, ..] => (&part[1..], 8),
            _ => (part, 10),
        };
        match digits {
            // WHATWG URL takes it for 0.
            "" if radix == 16 => Some(0),
            digits => u32::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+')),
        }
    };
    let parts: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    let left = 32 - 8 * u32::try_from(first.len()).ok()?;
    if u64::from(*last) >> left != 0 {
        return None;
    }
    let high = first.iter().zip([24, 16, 8]).fold(0, |high, (part, shift)| high | part << shift);
    Some(Ipv4Addr::from(high | last))
}

fn parse_port(text: &str) -> Result<u16, BadAuthority> {
    // `u16::from_str` would also take "+80".
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadAuthority::BadPort);
    }
    text.parse().ok().filter(|port| *port != 0).ok_or(BadAuthority::BadPort)
}

impl Host {
    fn spell(&self, push: &mut impl FnMut(&str)) {
        match self {
            Self::Name(name) => push(name),
            Self::Address(IpAddr::V4(address)) => {
                for (nth, octet) in address.octets().into_iter().enumerate() {
                    push(if nth == 0 { "" } else { "." });
                    push(Decimal::of(u64::from(octet)).as_str());
                }
            }
            Self::Address(IpAddr::V6(address)) => push(&format!("[{address}]")),
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(text, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());
        self.spell(&mut |part| result = result.and_then(|()| text.write_str(part)));
        result
    }
}

/// A number in decimal digits. Each head has some; `core::fmt` takes ten times as long for one.
#[derive(Debug)]
pub struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    /// The digits of `number`.
    #[must_use]
    pub fn of(mut number: u64) -> Self {
        let (mut digits, mut start) = ([b'0'; 20], 20);
        loop {
            start -= 1;
            digits[start] += u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
            if number == 0 {
                return Self { digits, start };
            }
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Digits are text.
        std::str::from_utf8(&self.digits[self.start..]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_by_the_standard_library() {
        for number in [0, 1, 9, 10, 99, 100, 65_535, 1 << 40, u64::MAX] {
            assert_eq!(Decimal::of(number).as_str(), number.to_string());
        }
    }

    #[track_caller]
    fn check(text: &str, default_port: Option<u16>, expected: Result<&str, BadAuthority>) {
        let parsed = Authority::parse(text, default_port).map(|authority| {
            let mut spelt = String::new();
            authority.spell(|part| spelt.push_str(part));
            assert_eq!(spelt, authority.to_string());
            spelt
        });
        assert_eq!(parsed.as_deref().map_err(|error| *error), expected, "{text}");
    }

    #[test]
    fn what_is_an_authority() {
        check("Example.COM:443", None, Ok("example.com:443"));
        check("example.com", Some(80), Ok("example.com:80"));
        check("example.com:", Some(80), Ok("example.com:80"));
        check("127.0.0.1:1", None, Ok("127.0.0.1:1"));
        check("[::1]:8080", None, Ok("[::1]:8080"));
        check("[2001:DB8::1]", Some(443), Ok("[2001:db8::1]:443"));
        check("my_service.local:80", None, Ok("my_service.local:80"));
        check("example.com.:80", None, Ok("example.com.:80"));
        check("0x.example:80", None, Ok("0x.example:80"));
    }

    #[test]
    fn an_address_is_one_in_every_spelling() {
        for text in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "0177.0.0.01",
            "017700000001",
            "127.0.0.1.",
            "0x7f.0x0.0x0.0x1",
            "127.0x1",
        ] {
            check(&format!("{text}:1"), None, Ok("127.0.0.1:1"));
        }
        check("0x:1", None, Ok("0.0.0.0:1"));
        check("4294967295:1", None, Ok("255.255.255.255:1"));
        for text in ["256.1.1.1", "1.2.3.4.5", "4294967296", "08", "1.2.3.256", "a.1", "0xg.1", "1.256.1"] {
            check(&format!("{text}:1"), None, Err(BadAuthority::BadNumber));
        }
    }

    #[test]
    fn what_is_not() {
        check("", Some(80), Err(BadAuthority::EmptyHost));
        check(":80", None, Err(BadAuthority::EmptyHost));
        check("example.com", None, Err(BadAuthority::NoPort));
        check("example.com:0", None, Err(BadAuthority::BadPort));
        check("example.com:65536", None, Err(BadAuthority::BadPort));
        check("example.com:+80", None, Err(BadAuthority::BadPort));
        check("example.com:80:80", None, Err(BadAuthority::BadPort));
        check("user@example.com:80", None, Err(BadAuthority::UserInformation));
        check("exa mple.com:80", None, Err(BadAuthority::BadHost));
        check("exa\0mple.com:80", None, Err(BadAuthority::BadHost));
        check("a..b:80", None, Err(BadAuthority::BadHost));
        check("[::1:80", None, Err(BadAuthority::BadAddress));
        check("[127.0.0.1]:80", None, Err(BadAuthority::BadAddress));
        check("[::1]80", None, Err(BadAuthority::BadPort));
        check(&"a".repeat(254), Some(80), Err(BadAuthority::LongName));
    }
}
