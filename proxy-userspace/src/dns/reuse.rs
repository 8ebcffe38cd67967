//! What stands for DNS servers that nobody asks any more, given back where it runs out; see `redirect::DnsServers`. Here it
//! is found out which of them sockets are connected to: the next query of one of these is for that server, however
//! late it comes.
//!
//! In a network namespace into which only the assistant can look nothing is given back.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::{Inside, Service};
use crate::privilege;
use crate::redirect::{SERVERS_V6, Slot, udp_peers};

/// How often it is looked whether anything can be given back.
const LOOK: Duration = Duration::from_secs(2);

/// For ever.
pub(super) async fn give_back(service: Rc<Service>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let idle = service.servers.idle();
        if idle.is_empty() {
            continue;
        }
        let places: Vec<Rc<Inside>> = service.places.borrow().iter().filter_map(Weak::upgrade).collect();
        for inside in places {
            let own = idle
                .iter()
                .filter_map(|server| Some((server, service.servers.slot_in(inside.netns, server)?)));
            let own: Vec<_> = own.collect();
            if own.is_empty() {
                continue;
            }
            match inside.connected().await {
                Ok(connected) => {
                    for (server, slot) in own {
                        service.servers.give_back(*server, connected.contains(&slot));
                    }
                }
                Err(error) => tracing::debug!(%error, "can't see the sockets of a network namespace"),
            }
        }
    }
}

impl Inside {
    /// Slots to which sockets are connected.
    async fn connected(&self) -> io::Result<HashSet<Slot>> {
        let read = || Ok((fs::read_to_string(TABLES[0])?, fs::read_to_string(TABLES[1]).unwrap_or_default()));
        let (v4, v6) = match &self.namespace {
            None => read()?,
            Some(_) if privilege::assistant().is_some() => return Err(io::ErrorKind::Unsupported.into()),
            Some(namespace) => namespace.make(read).await?,
        };
        let peers = udp_peers(&v4).chain(udp_peers(&v6));
        Ok(peers.filter_map(|peer| self.slot_of(peer)).collect())
    }

    /// What a client's peer stands for.
    fn slot_of(&self, peer: SocketAddr) -> Option<Slot> {
        match peer.ip() {
            IpAddr::V4(address) => Slot::of_address(address),
            IpAddr::V6(Ipv6Addr::LOCALHOST) => {
                let number = peer.port().checked_sub(self.first_v6?)?;
                (number < SERVERS_V6).then(|| Slot::of_port(number))
            }
            IpAddr::V6(_) => None,
        }
    }
}

/// Of the thread's network namespace.
const TABLES: [&str; 2] = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"];
