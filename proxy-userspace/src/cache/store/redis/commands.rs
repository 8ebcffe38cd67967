//! What the server is asked and told, a function each: every command has a time limit, and how it ends tells the breaker.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, pipe};

use super::news::News;
use super::value::{decode, encode, field, tag, tags, wanted};
use super::{MAX_VARIANTS, Shared};
use crate::cache;
use crate::cache::entry::Entry;
use crate::cache::freshness::Freshness;
use crate::cache::key::Key;
use crate::cache::purge::Purge;
use crate::cache::store::hash;
use crate::cache::vary::Selection;
use crate::http::headers::Headers;

/// A server that has answered.
#[derive(Clone)]
pub(super) struct Server {
    pub shared: Arc<Shared>,
    pub connection: MultiplexedConnection,
}

/// Why a command did not succeed.
pub(super) enum Trouble {
    /// It was late, or the connection is gone.
    Gone,
    /// The server did not want it.
    Refused(redis::RedisError),
}

/// What an operator asks for may take longer.
const PURGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Keys looked at in one step of a purge.
pub(super) const SCAN_COUNT: usize = 1000;

/// Fields of one key, tags included. One that has more begins anew.
const MOST_FIELDS: usize = 256;

/// No value is kept for longer, whatever its origin says.
const LONGEST: u64 = 365 * 86_400_000;

impl Server {
    /// One command, within the time that it has.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        command: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Trouble> {
        match tokio::time::timeout(limit, command).await {
            Ok(Ok(answer)) => {
                self.shared.breaker.answered();
                Ok(answer)
            }
            Ok(Err(error)) => {
                self.shared.count_error();
                if error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error() {
                    self.shared.breaker.open();
                    return Err(Trouble::Gone);
                }
                Err(Trouble::Refused(error))
            }
            Err(_) => {
                self.shared.count_error();
                self.shared.breaker.late();
                Err(Trouble::Gone)
            }
        }
    }

    pub(super) async fn find(&self, key: &Key, request: &Headers) -> Result<Option<Entry>, Trouble> {
        let (limit, name) = (self.shared.config.timeout, self.shared.name(key));
        let mut connection = self.connection.clone();
        // Most responses depend on no field of the request: one turn, then.
        let plain = field(&Selection::default());
        let mut both = pipe();
        both.cmd("HKEYS").arg(&name).cmd("HGET").arg(&name).arg(&plain);
        let (fields, first): (Vec<Vec<u8>>, Option<Vec<u8>>) =
            self.within(limit, both.query_async(&mut connection)).await?;
        let wanted = wanted(&fields, request);
        let values = match &wanted[..] {
            [] => return Ok(None),
            [only] if *only == plain => vec![first],
            several => {
                let mut command = redis::cmd("HMGET");
                command.arg(&name).arg(several);
                self.within(limit, command.query_async(&mut connection)).await?
            }
        };
        let (most, of) = (self.shared.config.max_object, key.clone());
        let (newest, damaged) = off_thread(move || {
            let (mut newest, mut damaged) = (None::<Entry>, false);
            for value in values.into_iter().flatten() {
                match decode(&value, &of, most) {
                    Some(entry) => {
                        let received = entry.stored.freshness.received;
                        if newest.as_ref().is_none_or(|other| other.stored.freshness.received < received) {
                            newest = Some(entry);
                        }
                    }
                    None => damaged = true,
                }
            }
            (newest, damaged)
        })
        .await
        .unwrap_or_default();
        if damaged {
            self.shared.drop_damaged(key);
            return Ok(None);
        }
        let fits = |entry: &Entry| entry.stored.selection.matches(request);
        Ok(newest.filter(fits))
    }

    pub(super) async fn store(&self, key: &Key, entry: &Arc<Entry>) -> Result<(), Trouble> {
        let config = &self.shared.config;
        let Some(expires) = lifetime(&entry.stored.freshness, self.shared.max_stale, cache::now()) else {
            return Ok(());
        };
        let (of, what, compression) = (key.clone(), Arc::clone(entry), config.compression);
        let Some(Some(value)) = off_thread(move || encode(&of, &what, compression)).await else {
            return Ok(());
        };
        let name = self.shared.name(key);
        let mut connection = self.connection.clone();
        let mut write = pipe();
        write.atomic().cmd("HSET").arg(&name).arg(field(&entry.stored.selection)).arg(&value);
        tags(&entry.stored).iter().for_each(|tag| {
            write.arg(tag).arg("");
        });
        write.ignore().cmd("PEXPIRE").arg(&name).arg(expires).ignore().cmd("HLEN").arg(&name);
        // Longer than a search may take: nobody waits for it.
        let (count,): (usize,) = self.within(4 * config.timeout, write.query_async(&mut connection)).await?;
        self.shared.count_store();
        match count > MOST_FIELDS || (count > MAX_VARIANTS && self.has_many(&name).await?) {
            true => self.remove(vec![name]).await,
            false => Ok(()),
        }
    }

    /// Whether a key has more variants than it may.
    async fn has_many(&self, name: &[u8]) -> Result<bool, Trouble> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("HKEYS");
        command.arg(name);
        let fields: Vec<Vec<u8>> =
            self.within(4 * self.shared.config.timeout, command.query_async(&mut connection)).await?;
        Ok(fields.iter().filter(|field| field.starts_with(b"v")).count() > MAX_VARIANTS)
    }

    pub(super) async fn remove(&self, names: Vec<Vec<u8>>) -> Result<(), Trouble> {
        if names.is_empty() {
            return Ok(());
        }
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("UNLINK");
        command.arg(names);
        self.within(4 * self.shared.config.timeout, command.query_async(&mut connection)).await
    }

    /// Tells other weirs what was removed. Whether anybody heard it is nobody's concern.
    pub(super) async fn tell(&self, news: &News) {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.shared.channel()).arg(news.encode(self.shared.id));
        let told =
            self.within::<i64>(4 * self.shared.config.timeout, command.query_async(&mut connection)).await;
        if let Err(Trouble::Refused(error)) = told {
            tracing::debug!(%error, "Redis does not tell others what was removed");
        }
    }

    pub(super) async fn purge(&self, purge: &Purge) -> Result<HashSet<u128>, Trouble> {
        let mut connection = self.connection.clone();
        let pattern = [&escaped(&self.shared.config.prefix)[..], b"*"].concat();
        let (mut cursor, mut purged) = (0_u64, HashSet::new());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
            let (next, names): (u64, Vec<Vec<u8>>) =
                self.within(PURGE_TIMEOUT, scan.query_async(&mut connection)).await?;
            let unwanted = self.unwanted(purge, names).await?;
            purged.extend(unwanted.iter().filter_map(|name| Some(hash(&self.shared.key(name)?))));
            self.remove(unwanted).await?;
            cursor = next;
            if cursor == 0 {
                return Ok(purged);
            }
        }
    }

    /// Those that an operator means.
    pub(super) async fn unwanted(
        &self,
        purge: &Purge,
        mut names: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, Trouble> {
        let Purge::Tag(wanted) = purge else {
            // What is no key of ours is nobody's but ours: it has our prefix.
            names.retain(|name| match self.shared.key(name) {
                Some(key) => purge.wants_key(&key),
                None => *purge == Purge::All,
            });
            return Ok(names);
        };
        if names.is_empty() {
            return Ok(names);
        }
        let mut connection = self.connection.clone();
        let mut ask = pipe();
        ask.ignore_errors();
        names.iter().for_each(|name| {
            ask.cmd("HEXISTS").arg(name).arg(tag(wanted.as_bytes()));
        });
        let answers: Vec<RedisResult<bool>> =
            self.within(PURGE_TIMEOUT, ask.query_async(&mut connection)).await?;
        let mut has = answers.iter().map(|answer| matches!(answer, Ok(true)));
        names.retain(|_| has.next() == Some(true));
        Ok(names)
    }
}

/// How long a value is of any use, in milliseconds. None: it is of none.
fn lifetime(freshness: &Freshness, max_stale: u64, now: u64) -> Option<u64> {
    let in_need = if freshness.forbids_stale { 0 } else { max_stale };
    let stale = freshness.while_revalidate.max(freshness.if_error).max(in_need).min(LONGEST);
    let left = freshness.left(now).saturating_add_unsigned(stale);
    u64::try_from(left).ok().filter(|left| *left > 0).map(|left| left.min(LONGEST))
}

/// Does what takes a processor's time elsewhere: answers to others are waited for.
pub(super) async fn off_thread<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(job).await.ok()
}

/// A prefix as a pattern that matches nothing else.
pub(super) fn escaped(prefix: &str) -> Vec<u8> {
    prefix
        .bytes()
        .flat_map(|byte| if b"*?[]\\".contains(&byte) { vec![b'\\', byte] } else { vec![byte] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::store::tests::entry;

    #[test]
    fn values_live_as_long_as_they_are_of_use() {
        let fresh = entry("", b"").stored.freshness;
        assert_eq!(fresh.lifetime, 60_000);
        let check = |freshness: Freshness, max_stale, now, expected| {
            assert_eq!(lifetime(&freshness, max_stale, now), expected, "{now}");
        };
        check(fresh, 0, 0, Some(60_000));
        check(fresh, 1000, 0, Some(61_000));
        check(fresh, 1000, 60_500, Some(500));
        check(fresh, 1000, 61_000, None);
        check(Freshness { forbids_stale: true, ..fresh }, 1000, 60_500, None);
        check(Freshness { if_error: 5000, while_revalidate: 3000, ..fresh }, 0, 0, Some(65_000));
        check(Freshness { lifetime: u64::MAX, ..fresh }, u64::MAX, 0, Some(LONGEST));
    }

    #[test]
    fn prefixes_match_themselves() {
        assert_eq!(escaped("weir:"), b"weir:");
        assert_eq!(escaped("a*[b]"), b"a\\*\\[b\\]");
    }
}
