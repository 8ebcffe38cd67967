//! `cache`: what is stored of plain HTTP responses, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use super::kinds::{GIB, KIB, MIB, duration, none_or, path, size, switch};
use super::redis::{self, Redis};
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
    pub disk: Disk,
    pub redis: Redis,
}

/// `cache.disk`.
#[derive(Debug, Clone, PartialEq)]
pub struct Disk {
    /// The folder. Default none: nothing is stored on disk.
    pub path: Option<PathBuf>,
    /// Bytes of files. Default 10GB.
    pub max_size: u64,
    /// Largest body that is stored. Default 1GB.
    pub max_object: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            enabled: false,
            max_memory: 256_000_000,
            max_object: 8 << 20,
            default_ttl: Duration::from_secs(300),
            max_stale: Duration::from_secs(3600),
            disk: Disk { path: None, max_size: 10_000_000_000, max_object: 1_000_000_000 },
            redis: Redis::default(),
        }
    }
}

pub(super) fn cache(s: &mut Section<'_, '_>) -> Cache {
    const DAY: Duration = Duration::from_secs(86_400);
    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    let d = Cache::default();
    Cache {
        enabled: s.read("enabled", d.enabled, switch()),
        max_memory: s.read("max_memory", d.max_memory, size(MIB..=1024 * GIB)),
        max_object: s.read("max_object", d.max_object, size(KIB..=GIB)),
        default_ttl: s.read("default_ttl", d.default_ttl, duration(Duration::ZERO..=30 * DAY)),
        max_stale: s.read("max_stale", d.max_stale, duration(Duration::ZERO..=YEAR)),
        disk: s.section("disk", |s| disk(s, d.disk)),
        redis: s.section("redis", redis::redis),
    }
}

fn disk(s: &mut Section<'_, '_>, d: Disk) -> Disk {
    Disk {
        path: s.read("path", d.path, none_or(path())),
        max_size: s.read("max_size", d.max_size, size(MIB..=1024 * 1024 * GIB)),
        max_object: s.read("max_object", d.max_object, size(KIB..=1024 * GIB)),
    }
}
