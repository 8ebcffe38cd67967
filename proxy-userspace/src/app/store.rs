//! The cache's stores, as the configuration wants them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::StartError;
use crate::cache::Cache;
use crate::cache::store::disk::Disk;
use crate::config;

/// How long a stopping weir waits for its stores to take what they were given.
const SETTLE: Duration = Duration::from_secs(2);

/// None where nothing is to be cached. `lock` is that of an earlier weir's folder, which takes its leave.
pub(super) fn open(config: &config::Cache, lock: Option<OwnedFd>) -> Result<Option<Arc<Cache>>, StartError> {
    if !config.enabled {
        return Ok(None);
    }
    let mut cache = Cache::new(config.max_memory, config.max_object);
    if let Some(path) = &config.disk.path {
        // A file that grows beyond RLIMIT_FSIZE is to be an error of its writer, not the end of weir: with a handler, it is.
        drop(signal(SignalKind::from_raw(libc::SIGXFSZ))?);
        let (size, object) = (config.disk.max_size, config.disk.max_object);
        let disk = match lock {
            Some(lock) => Disk::adopt(path, lock, size, object),
            None => Disk::open(path, size, object),
        };
        cache = cache.with_disk(disk?);
    }
    if config.redis.url.is_some() {
        return with_redis(cache, config).map(Some);
    }
    Ok(Some(Arc::new(cache)))
}

#[cfg(feature = "redis")]
fn with_redis(cache: Cache, config: &config::Cache) -> Result<Arc<Cache>, StartError> {
    let redis = Arc::new(crate::cache::store::redis::Redis::start(&config.redis, config.max_stale)?);
    let cache = Arc::new(cache.with(Arc::clone(&redis) as Arc<dyn crate::cache::store::Tier>));
    redis.tells(&cache);
    Ok(cache)
}

/// The configuration is refused before.
#[cfg(not(feature = "redis"))]
fn with_redis(cache: Cache, _config: &config::Cache) -> Result<Arc<Cache>, StartError> {
    Ok(Arc::new(cache))
}

/// Waits until what was stored last is where it belongs.
pub(super) async fn settle(cache: Option<&Cache>) {
    if let Some(cache) = cache
        && tokio::time::timeout(SETTLE, cache.settle()).await.is_err()
    {
        tracing::warn!("the cache's stores did not take all that they were given");
    }
}
