//! The network namespaces, other than weir's own, in which the kernel half finds a listener to send connections to.
#![forbid(unsafe_code)]

use std::collections;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, MapData};
use proxy_common::ListenerPorts;

use super::{Listeners, Redirect, RedirectError};
use crate::netns::{Namespace, NetnsId};

/// Namespaces without a listener that the kernel half can name at one time.
pub(super) const UNSERVED_CAPACITY: u32 = 256;

/// A network namespace in which connections were to be redirected, and nobody listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unserved {
    pub cookie: u64,
    /// A process that wanted to connect there.
    pub pid: u32,
}

/// The map, and what /proc calls the namespaces whose cookies are its keys.
pub(super) struct Namespaces {
    served: Mutex<Served>,
    unserved: Mutex<HashMap<MapData, u64, u32>>,
}

pub(super) struct Served {
    pub(super) map: HashMap<MapData, u64, ListenerPorts>,
    ids: collections::HashMap<NetnsId, u64>,
}

impl Namespaces {
    pub(super) fn new(
        map: HashMap<MapData, u64, ListenerPorts>,
        unserved: HashMap<MapData, u64, u32>,
    ) -> Self {
        let served = Served { map, ids: collections::HashMap::new() };
        Self { served: Mutex::new(served), unserved: Mutex::new(unserved) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn serves(&self, id: NetnsId) -> bool {
        self.cookie(id).is_some()
    }

    pub(super) fn cookie(&self, id: NetnsId) -> Option<u64> {
        self.lock().ids.get(&id).copied()
    }
}

impl Redirect {
    /// Sends connections from that network namespace to these listeners inside it, from now on.
    ///
    /// # Errors
    /// `Map` if the kernel refuses: `capture.max_cgroups` are served already.
    pub fn serve_namespace(&self, namespace: &Namespace, listeners: &Listeners) -> Result<(), RedirectError> {
        let ports = ListenerPorts {
            v4: listeners.v4.map_or(0, |address| address.port()),
            v6: listeners.v6.map_or(0, |address| address.port()),
            dns_v4: listeners.dns_v4.unwrap_or(0).to_be(),
            dns_v6: listeners.dns_v6.unwrap_or(0),
        };
        let mut served = self.namespaces.lock();
        let inserted = served.map.insert(namespace.cookie(), ports, 0);
        inserted.map_err(|source| RedirectError::Map { map: "NAMESPACES", source })?;
        served.ids.insert(namespace.id(), namespace.cookie());
        Ok(())
    }

    /// Where connections were to be redirected since the last call, and nobody listened.
    pub fn take_unserved(&self) -> Vec<Unserved> {
        let mut map = self.namespaces.unserved.lock().unwrap_or_else(PoisonError::into_inner);
        let found = map.iter().take(UNSERVED_CAPACITY as usize).filter_map(Result::ok);
        let found: Vec<Unserved> = found.map(|(cookie, pid)| Unserved { cookie, pid }).collect();
        for unserved in &found {
            // It comes again with the next connection.
            let _ = map.remove(&unserved.cookie);
        }
        found
    }

    /// Sends connections from that network namespace nowhere any more. One that wasn't served is no error.
    pub fn leave_namespace(&self, namespace: &Namespace) {
        let mut served = self.namespaces.lock();
        served.ids.remove(&namespace.id());
        // What the kernel won't remove sends nobody anywhere: the gate finds no listener.
        let _ = served.map.remove(&namespace.cookie());
        self.dns_servers.forget(namespace.cookie());
        self.names.forget(namespace.cookie());
    }
}
