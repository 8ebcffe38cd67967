//! Requests under way: whoever asks for the same at the same time waits for the answer to the first
//! (request collapsing). Bounded in waiters; nobody waits for somebody who has gone.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::filling::{Filling, Reader};
use super::key::Key;

/// All requests under way, of all workers.
#[derive(Debug, Default)]
pub struct Flights {
    shards: [Mutex<HashMap<Key, Arc<Flight>>>; SHARDS],
    hasher: RandomState,
}

const SHARDS: usize = 16;

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
        Boarding::Lead(Lead { flights: Arc::clone(self), key: key.clone(), flight })
    }

    /// What is stored for this key has been invalidated: an answer that is under way is older than that.
    pub fn doom(&self, key: &Key) {
        let flight = self.shard(key).remove(key);
        if let Some(flight) = flight {
            flight.end();
        }
    }

    /// The same, and `also` in one step with it: nothing for this key lands before that is done.
    pub fn doom_with<T>(&self, key: &Key, also: impl FnOnce() -> T) -> T {
        let mut shard = self.shard(key);
        if let Some(flight) = shard.remove(key) {
            flight.end();
        }
        also()
    }

    /// The same for all keys that `unwanted` says.
    pub fn doom_all(&self, unwanted: impl Fn(&Key) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|key, flight| {
                let doomed = unwanted(key);
                if doomed {
                    flight.end();
                }
                !doomed
            });
        }
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
    flight: Arc<Flight>,
}

impl Lead {
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// An answer that may be stored has begun.
    pub fn announce(&self, filling: &Arc<Filling>) {
        self.flight.news.send_replace(News::Filling(Arc::clone(filling)));
    }

    /// Whether somebody waits to hear of an answer.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.flight.waiters.load(Ordering::Relaxed) > 0
    }

    /// Stores by `store`, unless what is stored was invalidated since the request was sent.
    pub fn land(&self, store: impl FnOnce(&Key)) {
        // Under the lock that dooming takes: an invalidation comes before, and dooms, or after, and removes.
        let _shard = self.flights.shard(&self.key);
        if !self.flight.over.load(Ordering::Acquire) {
            store(&self.key);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(&self.key);
        // After an invalidation it is not in the table any more; there may be another in its place.
        if shard.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            shard.remove(&self.key);
        }
        drop(shard);
        self.flight.end();
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
    fn waiters_are_bounded_and_counted_down() {
        let flights = Arc::<Flights>::default();
        let _first = lead(&flights);
        let mut waits: Vec<_> = (0..MAX_WAITERS).map(|_| wait(&flights)).collect();
        assert!(matches!(flights.board(&key()), Boarding::Full));
        waits.pop();
        drop(wait(&flights));
    }
}
