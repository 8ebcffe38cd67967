//! What both halves have to agree on about DNS: the addresses that stand for servers, and the names of addresses.
//!
//! A query to a DNS server is redirected to an address of loopback that stands for this server in its network namespace:
//! 127.64.0.0/10 and a slot, or ::1 and one of several ports. So no socket needs a record: where a query was meant to
//! go, and whom an answer is from, both are told by that address.

use crate::{Endpoint, RuleSet};

/// Where DNS is spoken.
pub const DNS_PORT: u16 = 53;

/// The network of addresses that stand for servers, host byte order: 127.64.0.0/10.
pub const SLOT_NETWORK: u32 = 0x7f40_0000;
/// The part of such an address that is the slot.
pub const SLOT_MASK: u32 = 0x003f_ffff;
/// Slots that are tried for a server; the first follows from its address.
pub const SLOT_PROBES: u32 = 8;
/// Marks the slot of a server that is reached by IPv6; the rest is the number of the port, from 0.
pub const SLOT_V6: u32 = 1 << 31;
/// IPv6 servers that can be told apart in a network namespace at one time.
pub const SERVERS_V6: u32 = 16;

/// Key of the map `DNS_SERVERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServerKey {
    /// 0 where the proxy can't learn cookies (Linux < 5.14).
    pub netns: u64,
    pub slot: u32,
    pub padding: u32,
}

impl ServerKey {
    pub const fn new(netns: u64, slot: u32) -> Self {
        Self { netns, slot, padding: 0 }
    }
}

/// Value of the map `DNS_SERVERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsServer {
    pub endpoint: Endpoint,
    /// Not 0: its address is about to stand for nobody, and is chosen for no more sockets; those that have it go on.
    pub retiring: u32,
}

impl DnsServer {
    pub const fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, retiring: 0 }
    }
}

/// Key of the map `NAMES`: an address that a name was resolved to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NameKey {
    pub generation: u32,
    pub padding: u32,
    /// Where it was resolved; 0 as in `ServerKey`.
    pub netns: u64,
    /// Network byte order; IPv4 as v4-mapped.
    pub address: [u32; 4],
}

/// Value of the map `NAMES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameRules {
    /// CLOCK_MONOTONIC, in nanoseconds: from then on the address has no names.
    pub expires: u64,
    /// The rules that admit one of its names, and those that ask for none.
    pub rules: RuleSet,
}

const _: () = {
    assert!(SLOT_NETWORK & SLOT_MASK == 0);
    assert!(size_of::<ServerKey>() == 16);
    assert!(size_of::<NameKey>() == 32);
    assert!(size_of::<NameRules>() == 40);
    assert!(size_of::<DnsServer>() == 24);
};

#[cfg(feature = "user")]
mod pod {
    use super::{DnsServer, NameKey, NameRules, ServerKey};

    // SAFETY: repr(C), no implicit padding (sizes asserted above), every bit pattern is a value.
    unsafe impl aya::Pod for ServerKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for DnsServer {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NameKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NameRules {}
}
