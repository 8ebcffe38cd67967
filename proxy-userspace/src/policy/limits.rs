//! `security.rate_limiting`: how often a client may ask. A token bucket a client, kept as the time at which it will be full
//! again (GCRA): one word, changed in one step, whichever worker asks.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use super::auth::Identity;
#[cfg(feature = "redis")]
use super::shared_limits::SharedLimits;
use super::{By, Refusal};
use crate::config::{self, RateLimiting};
use crate::net::pacing::{Pace, Rate};
use crate::target::Client;

/// Clients whose buckets are kept; of more, those that have asked least recently begin anew.
const MAX_CLIENTS: usize = 65_536;

const RULE: &str = "security.rate_limiting";

/// Whose bucket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// Of IPv6, a /64.
    Network(IpAddr),
    /// A captured program's cgroup: its container, unit or job.
    Cgroup(u64),
}

/// All buckets. One for all workers; it outlives reloads.
#[derive(Debug)]
pub struct Limits {
    began: Instant,
    clients: Cache<Who, Arc<Bucket>>,
    /// Those that several weirs share.
    #[cfg(feature = "redis")]
    shared: Option<SharedLimits>,
    /// Bytes a second.
    rates: Cache<(Payer, Way), Arc<Rate>>,
}

/// Who uses up a rate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Payer {
    Client(Who),
    /// By its id.
    Context(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    Up,
    Down,
}

/// One bucket.
#[derive(Debug, Default)]
pub struct Bucket {
    /// When it will be full again, in nanoseconds since weir's start.
    full_at: AtomicU64,
}

impl Who {
    /// Of a client that has proved to be nobody in particular.
    #[must_use]
    pub fn of(client: &Client) -> Self {
        match (&client.process, client.address.ip().to_canonical()) {
            (Some(process), _) => Self::Cgroup(process.cgroup),
            (None, IpAddr::V6(address)) => {
                Self::Network(Ipv6Addr::from(u128::from(address) >> 64 << 64).into())
            }
            (None, v4) => Self::Network(v4),
        }
    }
}

impl Limits {
    /// With all buckets full.
    ///
    /// # Errors
    /// There is no thread to be had for those that are shared.
    pub fn new(
        #[cfg_attr(not(feature = "redis"), expect(unused_variables))] shared: &config::SharedLimits,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            began: Instant::now(),
            clients: Cache::new(MAX_CLIENTS),
            #[cfg(feature = "redis")]
            shared: SharedLimits::start(shared)?,
            rates: Cache::new(MAX_CLIENTS),
        }))
    }

    /// Takes a token of a client's, of the bucket that several weirs share if there is one.
    ///
    /// # Errors
    /// 429, if there is none.
    pub async fn take_shared(&self, settings: &RateLimiting, who: Who) -> Result<(), Refusal> {
        #[cfg(feature = "redis")]
        if let (Some(shared), Who::Network(network)) = (&self.shared, who) {
            let taken = Box::pin(shared.take(format!("weir:limit:{network}"), settings));
            if let Some(taken) = taken.await {
                return taken.map_err(|wait| too_many(settings, wait, RULE));
            }
        }
        self.take(settings, who)
    }

    /// Takes a token of a client's.
    ///
    /// # Errors
    /// 429, if there is none.
    pub fn take(&self, settings: &RateLimiting, who: Who) -> Result<(), Refusal> {
        let bucket = match self.clients.get(&who) {
            Some(bucket) => bucket,
            // Two that begin at one time may have a token more.
            None => {
                let bucket = Arc::new(Bucket::default());
                self.clients.insert(who, Arc::clone(&bucket));
                bucket
            }
        };
        self.take_from(&bucket, settings, RULE)
    }

    /// What a client's connections keep to together: what it sends, and what it gets. None: nothing bounds it.
    #[must_use]
    pub fn paces(
        &self,
        settings: &RateLimiting,
        client: &Client,
        identity: Option<&Identity>,
    ) -> (Option<Pace>, Option<Pace>) {
        let context = identity.and_then(|identity| identity.context.as_ref());
        let own = context.and_then(|context| context.limit.as_ref());
        let of =
            |rate: fn(&RateLimiting) -> u64| own.map(rate).filter(|own| *own > 0).unwrap_or(rate(settings));
        let (up, down) = (of(|limit| limit.upload), of(|limit| limit.download));
        if up == 0 && down == 0 {
            return (None, None);
        }
        let payer = match context {
            Some(context) => Payer::Context(context.id.clone()),
            None => Payer::Client(Who::of(client)),
        };
        let pace = |way, rate: u64| match rate {
            0 => None,
            rate => Pace::of(vec![self.rate((payer.clone(), way), rate)]),
        };
        (pace(Way::Up, up), pace(Way::Down, down))
    }

    /// The rate of theirs, which is a new one if it is to be another than it was.
    fn rate(&self, whose: (Payer, Way), bytes_per_second: u64) -> Arc<Rate> {
        if let Some(rate) = self.rates.get(&whose).filter(|rate| rate.bytes_per_second() == bytes_per_second)
        {
            return rate;
        }
        let rate = Rate::new(bytes_per_second);
        // Of two that begin at one time, one may have its own until it ends.
        self.rates.insert(whose, Arc::clone(&rate));
        rate
    }

    /// Takes a token of this bucket, which `rule` has made.
    ///
    /// # Errors
    /// 429, if there is none.
    pub fn take_from(
        &self,
        bucket: &Bucket,
        settings: &RateLimiting,
        rule: &'static str,
    ) -> Result<(), Refusal> {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        bucket.take_at(now, settings).map_err(|wait| too_many(settings, wait, rule))
    }
}

impl Bucket {
    /// Takes a token, or says how long it will be until there is one.
    fn take_at(&self, now: u64, settings: &RateLimiting) -> Result<(), Duration> {
        let token = NANOS / u64::from(settings.requests_per_second.max(1));
        let room = token.saturating_mul(u64::from(settings.burst.max(1)));
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let after = full_at.max(now).saturating_add(token);
            if after - now > room {
                return Err(Duration::from_nanos(after - now - room));
            }
            let taken =
                self.full_at.compare_exchange_weak(full_at, after, Ordering::Relaxed, Ordering::Relaxed);
            match taken {
                Ok(_) => return Ok(()),
                Err(other) => full_at = other,
            }
        }
    }
}

const NANOS: u64 = 1_000_000_000;

/// RFC 6585 §4; the fields are those of draft-ietf-httpapi-ratelimit-headers-10.
fn too_many(settings: &RateLimiting, wait: Duration, rule: &'static str) -> Refusal {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let (rate, burst) = (settings.requests_per_second, settings.burst);
    let reason = format!("more than {rate} requests a second, and {burst} at one time; wait {seconds} s");
    Refusal::new(429, By::Limits, rule, reason)
        .with_field("Retry-After", seconds.to_string())
        .with_field("RateLimit-Policy", format!("\"requests\";q={rate};w=1"))
        .with_field("RateLimit", format!("\"requests\";r=0;t={seconds}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(requests_per_second: u32, burst: u32) -> RateLimiting {
        RateLimiting { enabled: true, requests_per_second, burst, upload: 0, download: 0 }
    }

    #[test]
    fn a_bucket_fills_at_its_rate_up_to_its_burst() {
        let (bucket, settings) = (Bucket::default(), settings(10, 3));
        let at = |milliseconds: u64| bucket.take_at(milliseconds * 1_000_000, &settings);
        let wait = |milliseconds| Err(Duration::from_millis(milliseconds));
        assert_eq!([at(1000), at(1000), at(1000), at(1000)], [Ok(()), Ok(()), Ok(()), wait(100)]);
        assert_eq!([at(1050), at(1100), at(1100)], [wait(50), Ok(()), wait(100)]);
        // However long nobody asks, there are no more than that.
        assert_eq!([at(9000), at(9000), at(9000), at(9000)], [Ok(()), Ok(()), Ok(()), wait(100)]);
    }

    #[test]
    fn clients_have_buckets_of_their_own() {
        let limits = Limits::new(&config::SharedLimits::default()).unwrap();
        let settings = settings(1, 1);
        let who = |text: &str| {
            Who::of(&Client { address: std::net::SocketAddr::new(text.parse().unwrap(), 1), process: None })
        };
        assert_eq!(limits.take(&settings, who("192.0.2.1")), Ok(()));
        assert_eq!(limits.take(&settings, who("::ffff:192.0.2.1")).unwrap_err().status, 429);
        assert_eq!(limits.take(&settings, who("192.0.2.2")), Ok(()));
        assert_eq!(limits.take(&settings, who("2001:db8::1")), Ok(()));
        assert_eq!(limits.take(&settings, who("2001:db8::2")).unwrap_err().fields[0].0, "Retry-After");
        assert_eq!(limits.take(&settings, Who::Cgroup(1)), Ok(()));
    }

    #[test]
    fn workers_together_take_no_more() {
        let limits = Limits::new(&config::SharedLimits::default()).unwrap();
        let settings = settings(1, 500);
        let taken = || {
            let who = Who::Cgroup(7);
            (0..1000).filter(|_| limits.take(&settings, who).is_ok()).count()
        };
        // It is there before they begin.
        assert_eq!(limits.take(&settings, Who::Cgroup(7)), Ok(()));
        let all: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(taken)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // What a second adds, should this take so long.
        assert!((499..510).contains(&all), "{all}");
    }
}
