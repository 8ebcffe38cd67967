//! Requests under way: whoever asks for the same at the same time waits for the answer to the first
//! (request collapsing). Bounded in waiters; nobody waits for somebody who has gone.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::filling::{Filling, Reader};
use super::key::Key;

/// All requests under way, of all workers.
#[derive(Debug)]
pub struct Flights {
    shards: [Mutex<HashMap<Key, Arc<Flight>>>; SHARDS],
    hasher: RandomState,
    /// Counts what was invalidated, by hash of the key. Changed under the shard's lock.
    invalidations: Box<[AtomicU64]>,
}

const SHARDS: usize = 16;

/// Counts of invalidations: a multiple of the shards, so that each belongs to one. Two keys that share one cost a miss.
const COUNTS: usize = 64 * SHARDS;

impl Default for Flights {
    fn default() -> Self {
        let invalidations = (0..COUNTS).map(|_| AtomicU64::new(0)).collect();
        Self { shards: Default::default(), hasher: RandomState::new(), invalidations }
    }
}

/// Those that may wait for one flight; others go on their own.
pub const MAX_WAITERS: usize = 4096;

/// One request under way, and what is known of its answer.
#[derive(Debug)]
struct Flight {
    news: watch::Sender<News>,
    waiters: AtomicUsize,
    /// It is over, or what is stored for its key was invalidated meanwhile: nothing more of it is to be stored.
    over: AtomicBool,
}

impl Flight {
    /// Lets go who waits. The mark comes first: who is woken looks at it.
    fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.news.send_replace(News::Asking);
    }
}

#[derive(Debug, Clone)]
enum News {
    Asking,
    Filling(Arc<Filling>),
}

/// What somebody who finds nothing in store does.
#[derive(Debug)]
pub enum Boarding {
    /// Asks the origin, for all.
    Lead(Lead),
    /// Waits.
    Wait(Wait),
    /// Too many wait already.
    Full,
}

/// How a wait ended.
#[derive(Debug)]
pub enum Landing {
    /// The answer arrives, and may be read while it does.
    Arriving(Reader),
    /// The flight is over: what it brought, if anything, is in store.
    Over,
}

impl Flights {
    /// Joins the flight for a key, or begins one.
    #[must_use]
    pub fn board(self: &Arc<Self>, key: &Key) -> Boarding {
        let mut shard = self.shard(key);
        if let Some(flight) = shard.get(key) {
            if flight.waiters.fetch_add(1, Ordering::Relaxed) >= MAX_WAITERS {
                flight.waiters.fetch_sub(1, Ordering::Relaxed);
                return Boarding::Full;
            }
            return Boarding::Wait(Wait { news: flight.news.subscribe(), flight: Arc::clone(flight) });
        }
        let flight = Arc::new(Flight {
            news: watch::Sender::new(News::Asking),
            waiters: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        shard.insert(key.clone(), Arc::clone(&flight));
        Boarding::Lead(Lead { flights: Arc::clone(self), key: key.clone(), way: Way::Flight(flight) })
    }

    /// Asks the origin beside whatever flight there is: for a part of something, of which nobody else may make use.
    #[must_use]
    pub fn beside(self: &Arc<Self>, key: &Key) -> Lead {
        let seen = self.count(key).load(Ordering::Acquire);
        Lead { flights: Arc::clone(self), key: key.clone(), way: Way::Beside { seen } }
    }

    /// What is stored for this key has been invalidated: an answer that is under way is older than that.
    pub fn doom(&self, key: &Key) {
        self.doom_with(key, || {});
    }

    /// The same, and `also` in one step with it: nothing for this key lands before that is done.
    pub fn doom_with<T>(&self, key: &Key, also: impl FnOnce() -> T) -> T {
        let mut shard = self.shard(key);
        self.count(key).fetch_add(1, Ordering::AcqRel);
        if let Some(flight) = shard.remove(key) {
            flight.end();
        }
        also()
    }

    /// The same for all keys that `unwanted` says.
    pub fn doom_all(&self, unwanted: impl Fn(&Key) -> bool) {
        for (number, shard) in self.shards.iter().enumerate() {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for count in self.invalidations.iter().skip(number).step_by(SHARDS) {
                count.fetch_add(1, Ordering::AcqRel);
            }
            shard.retain(|key, flight| {
                let doomed = unwanted(key);
                if doomed {
                    flight.end();
                }
                !doomed
            });
        }
    }

    fn count(&self, key: &Key) -> &AtomicU64 {
        &self.invalidations[self.hasher.hash_one(key) as usize % COUNTS]
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Arc<Flight>>> {
        let hash = self.hasher.hash_one(key);
        // Nothing under the lock can panic half-way through a change.
        self.shards[hash as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one that asks. When it is dropped, however that comes, those that wait go on.
#[derive(Debug)]
pub struct Lead {
    flights: Arc<Flights>,
    key: Key,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// Others may wait for it.
    Flight(Arc<Flight>),
    /// `seen`: invalidations until it began.
    Beside { seen: u64 },
}

impl Lead {
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// An answer that may be stored has begun.
    pub fn announce(&self, filling: &Arc<Filling>) {
        if let Way::Flight(flight) = &self.way {
            flight.news.send_replace(News::Filling(Arc::clone(filling)));
        }
    }

    /// Whether somebody waits to hear of an answer.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        matches!(&self.way, Way::Flight(flight) if flight.waiters.load(Ordering::Relaxed) > 0)
    }

    /// Whether others may wait for it.
    #[must_use]
    pub fn is_for_others(&self) -> bool {
        matches!(self.way, Way::Flight(_))
    }

    /// Stores by `store`, unless what is stored was invalidated since the request was sent.
    pub fn land(&self, store: impl FnOnce(&Key)) {
        // Under the lock that dooming takes: an invalidation comes before, and dooms, or after, and removes.
        let _shard = self.flights.shard(&self.key);
        let is_outdated = match &self.way {
            Way::Flight(flight) => flight.over.load(Ordering::Acquire),
            Way::Beside { seen } => self.flights.count(&self.key).load(Ordering::Acquire) != *seen,
        };
        if !is_outdated {
            store(&self.key);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let Way::Flight(own) = &self.way else { return };
        let mut shard = self.flights.shard(&self.key);
        // After an invalidation it is not in the table any more; there may be another in its place.
        if shard.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, own)) {
            shard.remove(&self.key);
        }
        drop(shard);
        own.end();
    }
}

/// One that waits.
#[derive(Debug)]
pub struct Wait {
    flight: Arc<Flight>,
    news: watch::Receiver<News>,
}

impl Wait {
    /// Waits until the answer begins to arrive, or there will be none.
    pub async fn landing(mut self) -> Landing {
        loop {
            let news = self.news.borrow_and_update().clone();
            if let News::Filling(filling) = news
                && let Some(reader) = filling.follow()
            {
                return Landing::Arriving(reader);
            }
            if self.flight.over.load(Ordering::Acquire) || self.news.changed().await.is_err() {
                return Landing::Over;
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.flight.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::from_text("http://a.example:80/")
    }

    fn lead(flights: &Arc<Flights>) -> Lead {
        match flights.board(&key()) {
            Boarding::Lead(lead) => lead,
            other => panic!("{other:?}"),
        }
    }

    fn wait(flights: &Arc<Flights>) -> Wait {
        match flights.board(&key()) {
            Boarding::Wait(wait) => wait,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_the_leader_has_gone() {
        let flights = Arc::<Flights>::default();
        let first = lead(&flights);
        let waits: Vec<_> = (0..3).map(|_| wait(&flights)).collect();
        drop(first);
        for wait in waits {
            assert!(matches!(wait.landing().await, Landing::Over));
        }
        drop(lead(&flights));
    }

    #[tokio::test]
    async fn an_invalidation_ends_a_flight_and_keeps_its_answer_out() {
        let flights = Arc::<Flights>::default();
        let first = lead(&flights);
        let waiting = wait(&flights);
        flights.doom(&key());
        assert!(matches!(waiting.landing().await, Landing::Over));
        first.land(|_| panic!("stored"));
        // The next one is a flight of its own, which the end of the first does not touch.
        let second = lead(&flights);
        drop(first);
        let waiting = wait(&flights);
        let mut stored = false;
        second.land(|_| stored = true);
        assert!(stored);
        drop(second);
        assert!(matches!(waiting.landing().await, Landing::Over));
    }

    #[test]
    fn what_goes_beside_a_flight_lands_unless_its_key_was_invalidated() {
        let flights = Arc::<Flights>::default();
        let landed = |lead: &Lead| {
            let mut stored = false;
            lead.land(|_| stored = true);
            stored
        };
        let first = lead(&flights);
        let (a, b) = (flights.beside(&key()), flights.beside(&key()));
        assert!(landed(&a) && landed(&b) && landed(&first));
        drop(a);
        flights.doom(&key());
        assert!(!landed(&b) && !landed(&first));
        let c = flights.beside(&key());
        assert!(landed(&c));
        flights.doom_all(|_| false);
        assert!(!landed(&c), "it may be of what was purged: nobody else knows of it");
    }

    #[test]
    fn waiters_are_bounded_and_counted_down() {
        let flights = Arc::<Flights>::default();
        let _first = lead(&flights);
        let mut waits: Vec<_> = (0..MAX_WAITERS).map(|_| wait(&flights)).collect();
        assert!(matches!(flights.board(&key()), Boarding::Full));
        waits.pop();
        drop(wait(&flights));
    }
}
