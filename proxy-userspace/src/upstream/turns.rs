//! How many requests an origin has under way at one time, all workers together. More wait for their turn, in the order
//! in which they came; neither without a bound nor for ever.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::config;
use crate::http::authority::Authority;
use crate::telemetry::metrics;

/// Everybody's turns.
#[derive(Debug)]
pub(super) struct Turns {
    /// 0: there is no limit.
    limit: usize,
    queue: usize,
    wait: Duration,
    /// Those that have requests under way.
    origins: Mutex<HashMap<Authority, Arc<Origin>>>,
}

#[derive(Debug)]
struct Origin {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Why a request has no turn. It was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoTurn {
    #[error("too many requests wait for this server already (upstream.queue); try again later")]
    QueueFull,
    #[error("this server was too busy for too long (upstream.queue_timeout); try again later")]
    TimedOut,
}

/// A request's turn, which ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    authority: Authority,
    /// None once it is over.
    origin: Option<Arc<Origin>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new(settings: &config::Upstream) -> Arc<Self> {
        let (limit, queue, wait) = (settings.max_per_origin, settings.queue, settings.queue_timeout);
        Arc::new(Self { limit, queue, wait, origins: Mutex::default() })
    }

    /// A turn at an origin. None: there is no limit.
    ///
    /// # Errors
    /// [`NoTurn`].
    pub(super) async fn take(
        self: &Arc<Self>,
        authority: impl FnOnce() -> Authority,
    ) -> Result<Option<Box<Turn>>, NoTurn> {
        if self.limit == 0 {
            return Ok(None);
        }
        let authority = authority();
        let origin = self.origin(&authority);
        let places = Arc::clone(&origin.places);
        let mut turn =
            Box::new(Turn { turns: Arc::clone(self), authority, origin: Some(origin), permit: None });
        turn.permit = match (Arc::clone(&places).try_acquire_owned(), &turn.origin) {
            (Ok(permit), _) => Some(permit),
            (Err(_), Some(origin)) => Some(self.queued(&origin.waiting, places).await?),
            (Err(_), None) => None,
        };
        Ok(Some(turn))
    }

    async fn queued(
        &self,
        waiting: &AtomicUsize,
        places: Arc<Semaphore>,
    ) -> Result<OwnedSemaphorePermit, NoTurn> {
        let _waiting = Waiting::begin(waiting, self.queue).ok_or(NoTurn::QueueFull).inspect_err(count)?;
        metrics::with(|metrics| metrics.queued_requests.increment());
        match timeout(self.wait, places.acquire_owned()).await {
            // Nobody closes it.
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(NoTurn::TimedOut).inspect_err(count),
        }
    }

    fn origin(&self, authority: &Authority) -> Arc<Origin> {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = origins.get(authority) {
            return Arc::clone(origin);
        }
        let origin = Origin { places: Arc::new(Semaphore::new(self.limit)), waiting: AtomicUsize::new(0) };
        let origin = Arc::new(origin);
        origins.insert(authority.clone(), Arc::clone(&origin));
        origin
    }
}

fn count(_: &NoTurn) {
    metrics::with(|metrics| metrics.queue_refusals.increment());
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.permit = None;
        let mut origins = self.turns.origins.lock().unwrap_or_else(PoisonError::into_inner);
        self.origin = None;
        // Whoever has a turn, or waits for one, holds its origin; new ones get hold of it under this lock.
        if origins.get(&self.authority).is_some_and(|origin| Arc::strong_count(origin) == 1) {
            origins.remove(&self.authority);
        }
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        // Given back by its end, if there was no place.
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(limit: usize, queue: usize, wait: u64) -> Arc<Turns> {
        let wait = Duration::from_millis(wait);
        Turns::new(&config::Upstream {
            max_per_origin: limit,
            queue,
            queue_timeout: wait,
            ..config::Upstream::default()
        })
    }

    fn authority(name: &str) -> Authority {
        Authority::parse(name, Some(80)).unwrap()
    }

    #[tokio::test]
    async fn turns_are_limited_by_origin_and_given_on() {
        let turns = turns(1, 1, 60_000);
        let first = turns.take(|| authority("a.example")).await.unwrap();
        let _other = turns.take(|| authority("b.example")).await.unwrap();
        let mut second = std::pin::pin!(turns.take(|| authority("a.example")));
        tokio::select! {
            biased;
            _ = &mut second => panic!("a second one at the same time"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(turns.take(|| authority("a.example")).await.unwrap_err(), NoTurn::QueueFull);
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(turns.origins.lock().unwrap().len(), 2);
        drop(second);
        assert_eq!(turns.origins.lock().unwrap().len(), 1, "who has no requests is forgotten");
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_and_nothing_is_left() {
        let turns = turns(1, 1, 10);
        let first = turns.take(|| authority("a.example")).await.unwrap();
        assert_eq!(turns.take(|| authority("a.example")).await.unwrap_err(), NoTurn::TimedOut);
        drop(first);
        assert!(turns.origins.lock().unwrap().is_empty());
        // One that gave up while it waited has left its place in the queue.
        let first = turns.take(|| authority("a.example")).await.unwrap();
        {
            let waiting = std::pin::pin!(turns.take(|| authority("a.example")));
            let _ = timeout(Duration::ZERO, waiting).await;
        }
        assert_eq!(turns.take(|| authority("a.example")).await.unwrap_err(), NoTurn::TimedOut);
        drop(first);
    }

    #[tokio::test]
    async fn without_a_limit_there_is_nothing_to_wait_for() {
        assert!(turns(0, 0, 0).take(|| unreachable!()).await.unwrap().is_none());
    }
}
