//! Classes of addresses, as policy speaks of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of place an address is. The first class that fits, in this order of harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClass {
    /// Cloud metadata services.
    Metadata,
    /// This host: 127.0.0.0/8, ::1, and the unspecified addresses, which connect to it.
    Loopback,
    /// RFC 3927, RFC 4291 §2.5.6.
    LinkLocal,
    /// RFC 1918, RFC 6598, RFC 4193.
    Private,
    /// Multicast, broadcast, reserved: never a peer of TCP.
    NotUnicast,
    Public,
}

/// The class of an address. IPv6 forms that carry an IPv4 address are judged by that address:
/// mapped (RFC 4291 §2.5.5.2), compatible (§2.5.5.1), translated (RFC 2765 §2.1), NAT64 (RFC 6052 §2.1, and RFC 8215
/// as far as it ends in the address) and 6to4 (RFC 3056 §2).
#[must_use]
pub fn classify(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => classify_v4(inner),
            None => classify_v6(address),
        },
    }
}

fn classify_v4(address: Ipv4Addr) -> AddressClass {
    let [a, b, ..] = address.octets();
    if METADATA_V4.contains(&address) {
        AddressClass::Metadata
    } else if address.is_loopback() || a == 0 {
        // RFC 1122 §3.2.1.3: 0.0.0.0 is "this host"; Linux connects it to loopback.
        AddressClass::Loopback
    } else if address.is_link_local() {
        AddressClass::LinkLocal
    } else if address.is_private() || (a == 100 && b & 0xc0 == 64) {
        AddressClass::Private
    } else if address.is_multicast() || a >= 240 {
        AddressClass::NotUnicast
    } else {
        AddressClass::Public
    }
}

fn classify_v6(address: Ipv6Addr) -> AddressClass {
    if METADATA_V6.contains(&address) {
        AddressClass::Metadata
    } else if address.is_loopback() || address.is_unspecified() {
        AddressClass::Loopback
    } else if address.is_unicast_link_local() {
        AddressClass::LinkLocal
    } else if address.is_unique_local() || address.segments()[0] & 0xffc0 == 0xfec0 {
        // fec0::/10: site-local, deprecated by RFC 3879, still routed by some.
        AddressClass::Private
    } else if address.is_multicast() {
        AddressClass::NotUnicast
    } else {
        AddressClass::Public
    }
}

fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (s0, s1, s2, s3, s4, s5) {
        (0, 0, 0, 0, 0, 0xffff) => Some(v4(s6, s7)),
        (0x64, 0xff9b, 0, 0, 0, 0) | (0x64, 0xff9b, 1, ..) | (0, 0, 0, 0, 0xffff, 0) => Some(v4(s6, s7)),
        (0, 0, 0, 0, 0, 0) if s6 != 0 || s7 > 1 => Some(v4(s6, s7)),
        (0x2002, ..) => Some(v4(s1, s2)),
        _ => None,
    }
}

/// The addresses of this network namespace's interfaces, asked of the kernel now: they come and go.
#[must_use]
pub fn local_addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| interface.address);
    addresses
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .collect()
}

/// EC2, Azure, Google and others; Alibaba; Oracle; Azure's wire server.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// EC2; EKS pod identity; Google; Oracle.
const METADATA_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expected: AddressClass) {
        assert_eq!(classify(address.parse().unwrap()), expected, "{address}");
    }

    #[test]
    fn classes() {
        check("127.0.0.1", AddressClass::Loopback);
        check("127.255.1.2", AddressClass::Loopback);
        check("0.0.0.0", AddressClass::Loopback);
        check("0.1.2.3", AddressClass::Loopback);
        check("::1", AddressClass::Loopback);
        check("::", AddressClass::Loopback);
        check("169.254.1.1", AddressClass::LinkLocal);
        check("fe80::1", AddressClass::LinkLocal);
        check("febf::1", AddressClass::LinkLocal);
        check("169.254.169.254", AddressClass::Metadata);
        check("fd00:ec2::254", AddressClass::Metadata);
        check("10.0.0.1", AddressClass::Private);
        check("172.31.255.255", AddressClass::Private);
        check("172.32.0.0", AddressClass::Public);
        check("100.64.0.1", AddressClass::Private);
        check("100.128.0.1", AddressClass::Public);
        check("fd12::1", AddressClass::Private);
        check("fec0::1", AddressClass::Private);
        check("224.0.0.1", AddressClass::NotUnicast);
        check("255.255.255.255", AddressClass::NotUnicast);
        check("ff02::1", AddressClass::NotUnicast);
        check("198.18.0.1", AddressClass::Public);
        check("2001:db8::1", AddressClass::Public);
    }

    #[test]
    fn v4_inside_v6_is_judged_as_v4() {
        check("::ffff:127.0.0.1", AddressClass::Loopback);
        check("::ffff:169.254.169.254", AddressClass::Metadata);
        check("64:ff9b::7f00:1", AddressClass::Loopback);
        check("64:ff9b::a9fe:a9fe", AddressClass::Metadata);
        check("64:ff9b:1::7f00:1", AddressClass::Loopback);
        check("::ffff:0:127.0.0.1", AddressClass::Loopback);
        check("2002:7f00:1::", AddressClass::Loopback);
        check("::127.0.0.1", AddressClass::Loopback);
        check("::ffff:8.8.8.8", AddressClass::Public);
    }
}
