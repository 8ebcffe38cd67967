//! Address prefixes (CIDR), as rules name them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A prefix of IPv4 or IPv6 addresses; its other bits are 0. IPv4 is kept v4-mapped (RFC 4291 §2.5.5.2), so that one
/// order and one trie hold both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: u128,
    length: u8,
}

/// Bits before the IPv4 address in a v4-mapped one.
const MAPPED_BITS: u8 = 96;

impl Prefix {
    /// 0.0.0.0/0.
    pub const ALL_V4: Self = Self { address: 0xffff << 32, length: MAPPED_BITS };

    const LOOPBACK_V4: Self = Self { address: 0xffff_7f00_0000, length: MAPPED_BITS + 8 };
    const LOOPBACK_V6: Self = Self { address: 1, length: 128 };

    /// Network byte order, IPv4 as v4-mapped.
    #[must_use]
    pub fn octets(self) -> [u8; 16] {
        self.address.to_be_bytes()
    }

    /// Of the v4-mapped form: 96 more than IPv4 writes.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.length <= other.length && masked(other.address, self.length) == self.address
    }

    /// It is 127.0.0.0/8 or a part of it, or ::1.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        Self::LOOPBACK_V4.contains(self) || Self::LOOPBACK_V6.contains(self)
    }

    fn is_v4(self) -> bool {
        Self::ALL_V4.contains(self)
    }
}

fn masked(address: u128, length: u8) -> u128 {
    let unused = 128 - u32::from(length);
    address.checked_shr(unused).and_then(|bits| bits.checked_shl(unused)).unwrap_or(0)
}

/// Why a text is no prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAPrefix {
    Malformed,
    /// Bits beyond its length are set; this is the prefix without them.
    HostBits(Prefix),
}

impl FromStr for Prefix {
    type Err = NotAPrefix;

    /// `198.51.100.0/24`, `2001:db8::/32`, or an address alone.
    fn from_str(text: &str) -> Result<Self, NotAPrefix> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotAPrefix::Malformed)?;
        let (mapped, offset) = match address {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped(), MAPPED_BITS),
            IpAddr::V6(v6) => (v6, 0),
        };
        let length = match length {
            None => 128,
            Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let length = length.parse::<u8>().ok().and_then(|length| length.checked_add(offset));
                length.filter(|length| *length <= 128).ok_or(NotAPrefix::Malformed)?
            }
            Some(_) => return Err(NotAPrefix::Malformed),
        };
        let address = u128::from(mapped);
        let prefix = Self { address: masked(address, length), length };
        if prefix.address == address { Ok(prefix) } else { Err(NotAPrefix::HostBits(prefix)) }
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        let mapped = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Self { address: u128::from(mapped), length: 128 }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from(self.address);
        match address.to_ipv4_mapped() {
            Some(v4) if self.is_v4() => write!(f, "{v4}/{}", self.length - MAPPED_BITS),
            _ => write!(f, "{address}/{}", self.length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_shows() {
        for (text, shown) in [
            ("198.51.100.0/24", "198.51.100.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("::/0", "::/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), shown, "{text}");
        }
        for text in ["", "/", "1.2.3/8", "1.2.3.4/33", "::/129", "::/", "::/+8", "::/-0", "1.2.3.4/ 8", "a"] {
            assert_eq!(text.parse::<Prefix>(), Err(NotAPrefix::Malformed), "{text}");
        }
        let masked = "10.0.0.0/8".parse().unwrap();
        assert_eq!("10.1.0.0/8".parse::<Prefix>(), Err(NotAPrefix::HostBits(masked)));
    }

    #[test]
    fn contains_what_is_within() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        assert!(prefix("::/0").contains(prefix("10.0.0.0/8")));
        assert!(prefix("10.0.0.0/8").contains(prefix("10.2.3.4")));
        assert!(prefix("10.0.0.0/8").contains(prefix("10.0.0.0/8")));
        assert!(!prefix("10.0.0.0/8").contains(prefix("11.0.0.0/8")));
        assert!(!prefix("10.0.0.0/8").contains(prefix("0.0.0.0/0")));
        assert_eq!(Prefix::ALL_V4, prefix("0.0.0.0/0"));
    }
}
