//! What must be as before once all connections have ended.

use std::time::Instant;

use serde_json::Value;

use crate::weir::{SOON, Weir};

/// The kernel half's maps with an entry a connection.
const CONNECTION_MAPS: [&str; 3] = ["ORIGINALS", "CLAIMS", "CLOSED"];

/// What is still held for connections.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    connections: u64,
    entries: [u64; 3],
    /// More than before.
    files: usize,
}

const NOTHING: Held = Held { connections: 0, entries: [0; 3], files: 0 };

/// Fails unless no original destination was lost, and everything that was taken for connections is given back;
/// weir had `files` descriptors before.
#[track_caller]
pub fn check_none(weir: &Weir, files: usize) {
    assert_eq!(weir.metric("lost_destinations_total"), 0);
    let deadline = Instant::now() + SOON;
    loop {
        let status = weir.status();
        let held = Held {
            connections: status["active_connections"].as_u64().unwrap_or(u64::MAX),
            entries: CONNECTION_MAPS.map(|map| entries(&status, map)),
            files: weir.open_files().saturating_sub(files),
        };
        if held == NOTHING {
            return;
        }
        assert!(Instant::now() < deadline, "still held after {} s: {held:?}", SOON.as_secs());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Entries of one of the kernel half's maps, as the status tells.
pub fn entries(status: &Value, map: &str) -> u64 {
    let maps = status["capture"]["kernel"]["maps"].as_array().cloned().unwrap_or_default();
    let found = maps.iter().find(|candidate| candidate["name"] == map);
    found.and_then(|map| map["entries"].as_u64()).unwrap_or_else(|| panic!("no map {map} in {status:#}"))
}
