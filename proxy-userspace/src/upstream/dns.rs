//! Names to addresses, through the system's resolver: /etc/hosts, nsswitch and resolv.conf hold as for any
//! other program. Answers are kept for a fixed short time, as getaddrinfo(3) does not tell their TTL.
//!
//! getaddrinfo blocks a thread for as long as it likes, and can't be called off. So one name is looked up once at a
//! time, whoever asks and whoever gives up, and the names that are looked up at one time are counted.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// Lookups under way at one time, per worker: each has a thread of its own.
pub const MAX_LOOKUPS: usize = 32;

/// How long a lookup may wait for its turn.
const TURN: Duration = Duration::from_secs(1);

/// Names that are looked up or wait for their turn.
const MAX_PENDING: usize = 1024;

/// How long a resolver may take before the name counts as unresolvable.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a failure is remembered, if answers are remembered for so long at all.
const FAILURE_TTL: Duration = Duration::from_secs(1);

/// A worker's resolver and its cache.
#[derive(Debug)]
pub struct Resolver {
    shared: Rc<Shared>,
}

/// What the tasks of lookups share.
struct Shared {
    ttl: Duration,
    capacity: usize,
    cache: RefCell<HashMap<Box<str>, Answer>>,
    pending: RefCell<HashMap<Box<str>, Pending>>,
    turns: Arc<Semaphore>,
    look_up: LookUp,
}

type Outcome = Result<Rc<[IpAddr]>, DnsError>;
type LookUp = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

#[derive(Debug)]
struct Answer {
    outcome: Outcome,
    expires: Instant,
}

/// A lookup under way.
#[derive(Debug, Clone)]
struct Pending {
    began: Instant,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// A name that has no addresses, as far as can be found out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DnsError {
    #[error("{name} could not be resolved: {error}")]
    Failed { name: Box<str>, error: Arc<io::Error> },
    #[error("{name} has no address")]
    Empty { name: Box<str> },
    #[error("{name} could not be resolved within {} s", TIMEOUT.as_secs())]
    TimedOut { name: Box<str> },
    #[error("{name} was not looked up: too many names wait for the system's resolver; try again later")]
    Busy { name: Box<str> },
}

impl Resolver {
    /// An empty cache of `capacity` names, each good for `ttl`.
    #[must_use]
    pub fn new(ttl: Duration, capacity: usize) -> Self {
        Self::with_lookup(ttl, capacity, Arc::new(system))
    }

    fn with_lookup(ttl: Duration, capacity: usize, look_up: LookUp) -> Self {
        let turns = Arc::new(Semaphore::new(MAX_LOOKUPS));
        let (cache, pending) = (RefCell::default(), RefCell::default());
        Self { shared: Rc::new(Shared { ttl, capacity, cache, pending, turns, look_up }) }
    }

    /// The addresses of `name`, in the system's order of preference (RFC 6724), families interleaved
    /// (RFC 8305 §4). To be called on a local runtime.
    ///
    /// # Errors
    /// [`DnsError`].
    pub async fn resolve(&self, name: &str) -> Outcome {
        if let Some(answer) = self.shared.cache.borrow().get(name)
            && answer.expires > Instant::now()
        {
            return answer.outcome.clone();
        }
        let Some(mut pending) = self.pending(name) else {
            return Err(DnsError::Busy { name: name.into() });
        };
        // Counted from its start: who joins a lookup that is overdue does not wait for it as well.
        let outcome = timeout_at(pending.began + TIMEOUT, pending.outcome.wait_for(Option::is_some)).await;
        match outcome.ok().and_then(|found| found.ok()?.clone()) {
            Some(outcome) => outcome,
            None => Err(DnsError::TimedOut { name: name.into() }),
        }
    }

    /// The lookup of `name` that is under way, or a new one. None: there are too many.
    fn pending(&self, name: &str) -> Option<Pending> {
        let mut all = self.shared.pending.borrow_mut();
        if let Some(pending) = all.get(name) {
            return Some(pending.clone());
        }
        if all.len() >= MAX_PENDING {
            return None;
        }
        let (tell, outcome) = watch::channel(None);
        let pending = Pending { began: Instant::now(), outcome };
        all.insert(name.into(), pending.clone());
        // A task of its own: others wait for it, too, and its answer is worth keeping if nobody does.
        let (shared, name) = (Rc::clone(&self.shared), Box::from(name));
        tokio::task::spawn_local(async move {
            let outcome = shared.look_up(&name).await;
            shared.remember(&name, &outcome);
            shared.pending.borrow_mut().remove(&name);
            let _ = tell.send(Some(outcome));
        });
        Some(pending)
    }
}

impl Shared {
    async fn look_up(&self, name: &str) -> Outcome {
        let turn = timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(DnsError::Busy { name: name.into() }) };
        let (look_up, asked) = (Arc::clone(&self.look_up), name.to_owned());
        let lookup = tokio::task::spawn_blocking(move || {
            // Held until the thread is free again, even if the worker has ended.
            let _turn = turn;
            look_up(&asked)
        });
        let found = lookup.await.map_err(io::Error::other).flatten();
        match found.map(interleave) {
            Err(error) => Err(DnsError::Failed { name: name.into(), error: Arc::new(error) }),
            Ok(found) if found.is_empty() => Err(DnsError::Empty { name: name.into() }),
            Ok(found) => Ok(found.into()),
        }
    }

    fn remember(&self, name: &str, outcome: &Outcome) {
        let now = Instant::now();
        let ttl = match outcome {
            Ok(_) => self.ttl,
            // It says nothing about the name.
            Err(DnsError::Busy { .. }) => return,
            Err(_) => self.ttl.min(FAILURE_TTL),
        };
        let mut cache = self.cache.borrow_mut();
        if cache.len() >= self.capacity {
            cache.retain(|_, answer| answer.expires > now);
        }
        // Full of fresh answers: this one is simply asked for again next time.
        if cache.len() < self.capacity {
            cache.insert(name.into(), Answer { outcome: outcome.clone(), expires: now + ttl });
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.debug_struct("Shared").field("cache", &self.cache).field("pending", &self.pending).finish()
    }
}

fn system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

fn interleave(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut unique: Vec<IpAddr> = Vec::new();
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let Some(first) = unique.first().copied() else { return unique };
    let (same, other): (Vec<_>, Vec<_>) = unique.into_iter().partition(|a| a.is_ipv4() == first.is_ipv4());
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = (same.next(), other.next());
        if pair == (None, None) {
            return mixed;
        }
        mixed.extend(pair.0.into_iter().chain(pair.1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::sync::{Mutex, PoisonError};

    /// A resolver that answers after `let_go` is dropped, and how often it was asked.
    struct Held {
        resolver: Resolver,
        asked: Arc<AtomicUsize>,
        let_go: mpsc::Sender<()>,
    }

    fn held(answer: fn(&str) -> io::Result<Vec<IpAddr>>) -> Held {
        let (let_go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let look_up = Arc::new(move |name: &str| {
            counter.fetch_add(1, Ordering::SeqCst);
            // Ends with the sender: then for everybody.
            let _ = wait.lock().unwrap_or_else(PoisonError::into_inner).recv();
            answer(name)
        });
        Held { resolver: Resolver::with_lookup(Duration::from_secs(60), 10, look_up), asked, let_go }
    }

    fn on_worker(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_LOOKUPS)
            .build_local(tokio::runtime::LocalOptions::default())
            .unwrap();
        runtime.block_on(test);
    }

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn one_name_is_looked_up_once() {
        on_worker(async {
            let Held { resolver, asked, let_go } = held(|_| Ok(vec![ADDRESS]));
            // Who gives up does not end it.
            assert!(timeout(Duration::from_millis(50), resolver.resolve("a.example")).await.is_err());
            let (first, second, ()) =
                tokio::join!(resolver.resolve("a.example"), resolver.resolve("a.example"), async {
                    drop(let_go);
                });
            assert_eq!((first.unwrap()[0], second.unwrap()[0]), (ADDRESS, ADDRESS));
            assert_eq!(resolver.resolve("a.example").await.unwrap()[0], ADDRESS);
            assert_eq!(asked.load(Ordering::SeqCst), 1);
        });
    }

    #[test]
    fn a_failure_is_remembered_shortly() {
        on_worker(async {
            let Held { resolver, asked, let_go } = held(|_| Err(io::ErrorKind::NotFound.into()));
            drop(let_go);
            for _ in 0..5 {
                let error = resolver.resolve("a.example").await.unwrap_err();
                assert!(matches!(error, DnsError::Failed { .. }), "{error}");
            }
            assert_eq!(asked.load(Ordering::SeqCst), 1);
            tokio::time::sleep(FAILURE_TTL).await;
            assert!(resolver.resolve("a.example").await.is_err());
            assert_eq!(asked.load(Ordering::SeqCst), 2);
        });
    }

    #[test]
    fn when_all_threads_hang_others_are_told() {
        on_worker(async {
            let Held { resolver, asked, let_go } = held(|_| Ok(vec![ADDRESS]));
            let names: Vec<_> = (0..=MAX_LOOKUPS).map(|number| format!("{number}.example")).collect();
            let (last, hanging) = names.split_last().unwrap();
            hanging.iter().for_each(|name| drop(resolver.pending(name)));
            let error = resolver.resolve(last).await.unwrap_err();
            assert!(matches!(error, DnsError::Busy { .. }), "{error}");
            assert_eq!(asked.load(Ordering::SeqCst), MAX_LOOKUPS);
            // That was not the name's fault, and passes.
            drop(let_go);
            assert_eq!(resolver.resolve(last).await.unwrap()[0], ADDRESS);
        });
    }

    #[test]
    fn waiting_names_are_limited() {
        on_worker(async {
            let Held { resolver, let_go, .. } = held(|_| Ok(vec![ADDRESS]));
            (0..MAX_PENDING).for_each(|number| drop(resolver.pending(&number.to_string())));
            assert!(resolver.pending("one.more").is_none());
            assert!(resolver.pending("0").is_some(), "one that is under way can be joined");
            drop(let_go);
        });
    }

    #[test]
    fn families_take_turns_and_doubles_go() {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let given = parse(&["::1", "::2", "10.0.0.1", "::1", "::3", "10.0.0.2"]);
        let expected = parse(&["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"]);
        assert_eq!(interleave(given), expected);
    }
}
