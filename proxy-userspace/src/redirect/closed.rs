//! Records of captured connections that were closed before they were accepted. They wait to be claimed, but not
//! for long: the next connection from the same port could be anybody's.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, IterableMap as _, MapData};
use proxy_common::{Captured, ClaimKey};

/// The map `CLOSED`, and what was in it when it was last looked through.
pub(super) struct ClosedRecords(Mutex<Inner>);

pub(super) struct Inner {
    pub(super) map: HashMap<MapData, ClaimKey, Captured>,
    /// By socket cookie, which no two connections share.
    seen: HashSet<u64>,
}

impl ClosedRecords {
    pub(super) fn new(map: HashMap<MapData, ClaimKey, Captured>) -> Self {
        Self(Mutex::new(Inner { map, seen: HashSet::new() }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the records that were there at the last sweep already.
    pub(super) fn sweep(&self) {
        let mut inner = self.lock();
        // The walk starts anew when the entry it stands on is claimed meanwhile: bounded.
        let capacity = inner.map.map().info().map_or(0, |info| info.max_entries()) as usize;
        let records: Vec<_> = inner.map.iter().take(capacity).flatten().collect();
        let (old, new): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|(_, record)| inner.seen.contains(&record.cookie));
        inner.seen = new.into_iter().map(|(_, record)| record.cookie).collect();
        for (key, _) in old {
            // Claimed in between, it is gone as well.
            let _ = inner.map.remove(&key);
        }
    }
}
