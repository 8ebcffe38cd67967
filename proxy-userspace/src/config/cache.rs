//! `cache`: what is stored of plain HTTP responses, and for how long.

use std::time::Duration;

use super::kinds::{GIB, KIB, MIB, duration, size, switch};
use super::section::Section;

/// `cache`.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// Default false.
    pub enabled: bool,
    /// Bytes of memory for entries. Default 256MB.
    pub max_memory: u64,
    /// Largest body that is stored. Default 8MiB.
    pub max_object: u64,
    /// Longest lifetime that is guessed (RFC 9111 §4.2.2). Default 300s.
    pub default_ttl: Duration,
    /// How long past its lifetime a response is used while its origin can't be reached. Default 1h.
    pub max_stale: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            enabled: false,
            max_memory: 256_000_000,
            max_object: 8 << 20,
            default_ttl: Duration::from_secs(300),
            max_stale: Duration::from_secs(3600),
        }
    }
}

pub(super) fn cache(s: &mut Section<'_, '_>) -> Cache {
    const DAY: Duration = Duration::from_secs(86_400);
    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    let d = Cache::default();
    Cache {
        enabled: s.read("enabled", d.enabled, switch),
        max_memory: s.read("max_memory", d.max_memory, size(MIB..=1024 * GIB)),
        max_object: s.read("max_object", d.max_object, size(KIB..=GIB)),
        default_ttl: s.read("default_ttl", d.default_ttl, duration(Duration::ZERO..=30 * DAY)),
        max_stale: s.read("max_stale", d.max_stale, duration(Duration::ZERO..=YEAR)),
    }
}
