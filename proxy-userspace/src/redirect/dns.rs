//! The DNS servers that captured processes ask, by the addresses that stand for them; see proxy_common::dns.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, MapData};
use proxy_common::{Endpoint, SLOT_MASK, SLOT_NETWORK, SLOT_V6, ServerKey};

use super::original::socket_addr;

/// Servers that the kernel half can tell apart, in all network namespaces together.
pub(super) const SERVER_CAPACITY: u32 = 16_384;

/// IPv6 servers of one network namespace, each behind a port of its own.
pub const SERVERS_V6: u16 = proxy_common::SERVERS_V6 as u16;

/// Which of the addresses that stand for servers a query came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(u32);

impl Slot {
    /// None: this address stands for no server.
    #[must_use]
    pub fn of_address(address: Ipv4Addr) -> Option<Self> {
        let bits = address.to_bits();
        (bits & !SLOT_MASK == SLOT_NETWORK).then_some(Self(bits & SLOT_MASK))
    }

    /// The `number`th port on ::1.
    #[must_use]
    pub fn of_port(number: u16) -> Self {
        Self(SLOT_V6 | u32::from(number))
    }
}

/// Handle for whoever takes queries; cheap to clone, for any thread.
#[derive(Debug, Clone)]
pub struct DnsServers {
    map: Arc<Mutex<HashMap<MapData, ServerKey, Endpoint>>>,
    home: u64,
}

impl DnsServers {
    pub(super) fn new(map: HashMap<MapData, ServerKey, Endpoint>, home: u64) -> Self {
        Self { map: Arc::new(Mutex::new(map)), home }
    }

    /// The server that is meant. `netns`: where the query came from; None is weir's own.
    #[must_use]
    pub fn find(&self, netns: Option<u64>, slot: Slot) -> Option<SocketAddr> {
        let key = ServerKey::new(netns.unwrap_or(self.home), slot.0);
        self.lock().get(&key, 0).ok().map(|server| socket_addr(&server))
    }

    /// Forgets the servers of a network namespace that nobody lives in any more.
    pub(super) fn forget(&self, netns: u64) {
        let mut map = self.lock();
        let keys: Vec<_> = map.keys().filter_map(Result::ok).filter(|key| key.netns == netns).collect();
        for key in keys {
            let _ = map.remove(&key);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<MapData, ServerKey, Endpoint>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_stand_for_servers() {
        assert_eq!(Slot::of_address([127, 64, 0, 5].into()), Some(Slot(5)));
        assert_eq!(Slot::of_address([127, 127, 255, 255].into()), Some(Slot(SLOT_MASK)));
        for other in [[127, 0, 0, 1], [127, 128, 0, 1], [10, 64, 0, 1]] {
            assert_eq!(Slot::of_address(other.into()), None, "{other:?}");
        }
    }
}
