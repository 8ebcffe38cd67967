//! The DNS servers that captured processes ask, by the addresses that stand for them; see proxy_common::dns.
//!
//! There is no end of servers, and of such addresses there is: where they run out, what stands for a server that nobody
//! asks any more is given back, in two steps. Whether a socket is still connected to it is for others to find out.
#![forbid(unsafe_code)]

use std::collections;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aya::maps::{HashMap, MapData};
use proxy_common::{DnsServer, SLOT_MASK, SLOT_NETWORK, SLOT_V6, ServerKey};

use super::original::socket_addr;

/// Servers that the kernel half can tell apart, in all network namespaces together.
pub(super) const SERVER_CAPACITY: u32 = 16_384;

/// IPv6 servers of one network namespace, each behind a port of its own.
pub const SERVERS_V6: u16 = proxy_common::SERVERS_V6 as u16;

/// How long a server is not asked before what stands for it is given back: longer than an answer is waited for.
const IDLE: Duration = Duration::from_secs(20);

/// Replace what is there.
const BPF_EXIST: u64 = 2;

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

/// What stands for a server that nobody asks, where there is not much room for others.
#[derive(Debug, Clone, Copy)]
pub struct IdleServer {
    key: ServerKey,
    is_retiring: bool,
}

/// Handle for whoever takes queries; cheap to clone, for any thread.
#[derive(Debug, Clone)]
pub struct DnsServers {
    servers: Arc<Mutex<Servers>>,
    home: u64,
}

#[derive(Debug)]
pub(super) struct Servers {
    pub(super) map: HashMap<MapData, ServerKey, DnsServer>,
    /// When each was last asked, or seen first; only of what is in the map.
    asked: collections::HashMap<ServerKey, Instant>,
}

impl DnsServers {
    pub(super) fn new(map: HashMap<MapData, ServerKey, DnsServer>, home: u64) -> Self {
        let servers = Servers { map, asked: collections::HashMap::new() };
        Self { servers: Arc::new(Mutex::new(servers)), home }
    }

    /// The server that is meant. `netns`: where the query came from; None is weir's own.
    #[must_use]
    pub fn find(&self, netns: Option<u64>, slot: Slot) -> Option<SocketAddr> {
        let key = self.key(netns, slot);
        let mut servers = self.lock();
        let server = servers.map.get(&key, 0).ok()?;
        servers.asked.insert(key, Instant::now());
        if server.retiring != 0 {
            servers.mark(&key, false);
        }
        Some(socket_addr(&server.endpoint))
    }

    /// What could be given back because it is not in use, where room is running out.
    #[must_use]
    pub fn idle(&self) -> Vec<IdleServer> {
        let now = Instant::now();
        let mut servers = self.lock();
        let keys: Vec<ServerKey> =
            servers.map.keys().take(SERVER_CAPACITY as usize).filter_map(Result::ok).collect();
        let asked = keys.iter().map(|key| (*key, servers.asked.get(key).copied().unwrap_or(now))).collect();
        servers.asked = asked;
        let crowded = Crowded::of(&keys);
        let idle = keys.into_iter().filter_map(|key| {
            let is_retiring = servers.map.get(&key, 0).ok()?.retiring != 0;
            let is_idle = servers.asked.get(&key).is_some_and(|asked| now.duration_since(*asked) >= IDLE);
            (is_retiring || is_idle && crowded.has(&key)).then_some(IdleServer { key, is_retiring })
        });
        idle.collect()
    }

    /// Gives it back: by the first call no more sockets are sent to it, by the second it is forgotten. `is_connected`:
    /// a socket of that network namespace has it for its peer, so it stays.
    pub fn give_back(&self, server: IdleServer, is_connected: bool) {
        let IdleServer { key, is_retiring } = server;
        let mut servers = self.lock();
        // It may have been asked meanwhile.
        let still_retires = servers.map.get(&key, 0).is_ok_and(|server| server.retiring != 0);
        match (is_connected, is_retiring) {
            (true, false) => {}
            (true, true) => servers.mark(&key, false),
            (false, false) => servers.mark(&key, true),
            (false, true) if still_retires => servers.remove(&key),
            (false, true) => {}
        }
    }

    /// Forgets the servers of a network namespace that nobody lives in any more.
    pub(super) fn forget(&self, netns: u64) {
        let mut servers = self.lock();
        let keys: Vec<_> =
            servers.map.keys().filter_map(Result::ok).filter(|key| key.netns == netns).collect();
        for key in keys {
            servers.remove(&key);
        }
    }

    /// What can't be told apart for want of room, told to people.
    pub(super) fn problems(&self) -> Vec<String> {
        let keys: Vec<_> =
            self.lock().map.keys().take(SERVER_CAPACITY as usize).filter_map(Result::ok).collect();
        let full = Crowded::of(&keys).v6.into_iter().filter(|(_, count)| *count >= SERVERS_V6.into());
        full.map(|(netns, _)| {
            let place = if netns == self.home { "weir's own network namespace" } else { "a network namespace" };
            format!(
                "{SERVERS_V6} IPv6 DNS servers are asked in {place} (cookie {netns}), which is as many as can be told \
                 apart: `capture.fail` decides about queries to others, until one of these was not asked for {} s",
                IDLE.as_secs()
            )
        })
        .collect()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is one of that network namespace's, and which.
    #[must_use]
    pub fn slot_in(&self, netns: Option<u64>, server: &IdleServer) -> Option<Slot> {
        (server.key.netns == netns.unwrap_or(self.home)).then_some(Slot(server.key.slot))
    }

    fn key(&self, netns: Option<u64>, slot: Slot) -> ServerKey {
        ServerKey::new(netns.unwrap_or(self.home), slot.0)
    }
}

impl Servers {
    fn mark(&mut self, key: &ServerKey, retiring: bool) {
        if let Ok(server) = self.map.get(key, 0) {
            // One that the kernel won't mark stays, which harms nobody.
            let marked = DnsServer { retiring: retiring.into(), ..server };
            let _ = self.map.insert(key, marked, BPF_EXIST);
        }
    }

    fn remove(&mut self, key: &ServerKey) {
        self.asked.remove(key);
        let _ = self.map.remove(key);
    }
}

/// Where room is running out: three quarters of it are in use.
struct Crowded {
    everywhere: bool,
    /// IPv6 servers by network namespace.
    v6: collections::HashMap<u64, usize>,
}

impl Crowded {
    fn of(keys: &[ServerKey]) -> Self {
        let mut v6 = collections::HashMap::new();
        for key in keys.iter().filter(|key| key.slot & SLOT_V6 != 0) {
            *v6.entry(key.netns).or_default() += 1;
        }
        Self { everywhere: keys.len() >= SERVER_CAPACITY as usize / 4 * 3, v6 }
    }

    fn has(&self, key: &ServerKey) -> bool {
        let in_its_namespace = || self.v6.get(&key.netns).copied().unwrap_or_default();
        self.everywhere || key.slot & SLOT_V6 != 0 && in_its_namespace() >= usize::from(SERVERS_V6) / 4 * 3
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

    #[test]
    fn where_room_is_running_out() {
        let v6 = |netns, count| (0..count).map(move |slot| ServerKey::new(netns, SLOT_V6 | slot));
        let keys: Vec<_> = v6(1, 12).chain(v6(2, 11)).chain([ServerKey::new(1, 5)]).collect();
        let crowded = Crowded::of(&keys);
        assert!(crowded.has(&keys[0]));
        assert!(!crowded.has(&keys[12]), "another namespace");
        assert!(!crowded.has(&keys[23]), "of IPv4 there are more");
        let many: Vec<_> = (0..SERVER_CAPACITY / 4 * 3).map(|slot| ServerKey::new(1, slot)).collect();
        assert!(Crowded::of(&many).has(&many[0]));
        assert!(!Crowded::of(&many[1..]).has(&many[0]));
    }
}
