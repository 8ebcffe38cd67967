//! Entries in Redis, which several weirs may share. The server is asked by a thread of the store's own; who looks for
//! something waits for it as long as `cache.redis.timeout` says, and not at all while it is known to be gone. Whatever it
//! says is checked: who shares it may be of another version, or no weir at all.

mod breaker;
mod commands;
mod list;
mod news;
mod queue;
mod server;
mod value;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::counts::Counts;
use super::{Later, MAX_VARIANTS, Report, Stored, Tier};
use crate::cache::Cache;
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::purge::Purge;
use crate::config;
use crate::http::headers::Headers;
use breaker::Breaker;
use queue::Queue;
use server::{Question, Search};

/// The store.
#[derive(Debug)]
pub struct Redis {
    shared: Arc<Shared>,
    questions: mpsc::Sender<Question>,
}

#[derive(Debug)]
struct Shared {
    config: config::Redis,
    /// How long past its lifetime a response may be of use, in milliseconds.
    max_stale: u64,
    breaker: Breaker,
    queue: Queue,
    counts: Counts,
    /// Tells this weir from others.
    id: u64,
    /// What forgets what others remove.
    cache: OnceLock<Weak<Cache>>,
}

/// Searches that may be under way.
const MOST_SEARCHES: usize = 4096;

/// Threads that compress and check.
const MOST_THREADS: usize = 4;

/// How long an operator waits for a purge.
const PURGE_PATIENCE: Duration = Duration::from_secs(60);

/// How long an operator waits to see what there is.
const LIST_PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked whether everything has been stored.
const LOOK: Duration = Duration::from_millis(10);

impl Redis {
    /// The store of this configuration. The server need not be there yet.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(config: &config::Redis, max_stale: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            config: config.clone(),
            max_stale: u64::try_from(max_stale.as_millis()).unwrap_or(u64::MAX),
            breaker: Breaker::new(),
            queue: Queue::default(),
            counts: Counts::default(),
            id: RandomState::new().hash_one(std::process::id()),
            cache: OnceLock::new(),
        });
        let (questions, asked) = mpsc::channel(MOST_SEARCHES);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MOST_THREADS)
            .build()?;
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("weir-redis".into())
            .spawn(move || runtime.block_on(server::run(of_thread, asked)))?;
        Ok(Self { shared, questions })
    }

    /// What other weirs remove is to be forgotten by this cache, too.
    pub fn tells(&self, cache: &Arc<Cache>) {
        // It is told once, and is the same each time.
        let _ = self.shared.cache.set(Arc::downgrade(cache));
    }
}

impl Tier for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn may_have(&self, key: &Key) -> bool {
        key.is_shared() && !self.shared.breaker.is_open() && !self.shared.queue.owes(key)
    }

    fn load<'a>(&'a self, key: &'a Key, request: &'a Headers) -> Later<'a, Option<Entry>> {
        Box::pin(async move {
            let (found, entry) = oneshot::channel();
            let search = Search { key: key.clone(), request: request.clone(), found };
            self.questions.try_send(Question::Search(Box::new(search))).ok()?;
            // However busy the thread is.
            let entry = tokio::time::timeout(self.shared.config.timeout, entry).await.ok()?.ok()?;
            // It may have been removed while it was on its way.
            (!self.shared.queue.owes(key)).then_some(entry)
        })
    }

    fn store(&self, key: &Key, entry: &Arc<Entry>) {
        let is_whole = entry.part.is_none() && entry.body.held().is_some();
        if !is_whole || !key.is_shared() || entry.body.len() > self.shared.config.max_object {
            return;
        }
        if self.shared.breaker.is_open() || !self.shared.queue.store(key, entry) {
            self.shared.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn remove(&self, key: &Key) -> bool {
        if key.is_shared() {
            self.shared.queue.remove(key);
        }
        false
    }

    fn purge<'a>(&'a self, purge: &'a Purge) -> Later<'a, HashSet<u128>> {
        let purging = self.shared.queue.purge(purge);
        Box::pin(async move {
            tokio::select! {
                purged = tokio::time::timeout(PURGE_PATIENCE, purging) => {
                    purged.ok().and_then(Result::ok).unwrap_or_default()
                }
                // It will be told when it is back, before it is believed.
                () = self.shared.breaker.wait_until_open() => HashSet::new(),
            }
        })
    }

    fn select<'a>(&'a self, most: usize, wanted: &'a Purge) -> Later<'a, Vec<(Key, Stored)>> {
        Box::pin(async move {
            let (found, listed) = oneshot::channel();
            let listing = Question::List { most, wanted: wanted.clone(), found };
            if self.shared.breaker.is_open() || self.questions.try_send(listing).is_err() {
                return Vec::new();
            }
            let listed = tokio::time::timeout(LIST_PATIENCE, listed).await;
            listed.ok().and_then(Result::ok).unwrap_or_default()
        })
    }

    fn report(&self) -> Report {
        let breaker = &self.shared.breaker;
        let state = if breaker.is_open() { "unreachable" } else { "ready" };
        Report { opened: Some(breaker.opened()), ..self.shared.counts.report(self.name(), state) }
    }

    fn settle(&self) -> Later<'_, ()> {
        Box::pin(async {
            while !self.shared.queue.is_empty() && !self.shared.breaker.is_open() {
                tokio::time::sleep(LOOK).await;
            }
        })
    }
}

impl Shared {
    /// The key in Redis.
    fn name(&self, key: &Key) -> Vec<u8> {
        [self.config.prefix.as_bytes(), key.as_str().as_bytes()].concat()
    }

    /// The key of one in Redis.
    fn key(&self, name: &[u8]) -> Option<Key> {
        let text = name.strip_prefix(self.config.prefix.as_bytes())?;
        Some(Key::from_text(std::str::from_utf8(text).ok()?))
    }

    /// Where weirs tell each other what they remove.
    fn channel(&self) -> String {
        format!("{}removed", self.config.prefix)
    }

    /// The server, for the log.
    fn place(&self) -> String {
        self.config.url.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// What is there is nothing of ours.
    fn drop_damaged(&self, key: &Key) {
        self.counts.damaged.fetch_add(1, Ordering::Relaxed);
        self.queue.remove(key);
    }

    fn count_error(&self) {
        self.counts.errors.fetch_add(1, Ordering::Relaxed);
    }

    fn count_store(&self) {
        self.counts.stores.fetch_add(1, Ordering::Relaxed);
    }

    fn count_hit(&self, bytes: u64) {
        self.counts.hits.fetch_add(1, Ordering::Relaxed);
        self.counts.read.fetch_add(bytes, Ordering::Relaxed);
    }
}
