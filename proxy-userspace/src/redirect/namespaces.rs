//! The network namespaces, other than weir's own, in which the kernel half finds a listener to send connections to.
#![forbid(unsafe_code)]

use std::collections;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, MapData};
use proxy_common::ListenerPorts;

use super::{Listeners, Redirect, RedirectError};
use crate::netns::{Namespace, NetnsId};

/// The map, and what /proc calls the namespaces whose cookies are its keys.
pub(super) struct Namespaces(Mutex<Served>);

pub(super) struct Served {
    pub(super) map: HashMap<MapData, u64, ListenerPorts>,
    ids: collections::HashMap<NetnsId, u64>,
}

impl Namespaces {
    pub(super) fn new(map: HashMap<MapData, u64, ListenerPorts>) -> Self {
        Self(Mutex::new(Served { map, ids: collections::HashMap::new() }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Served> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
