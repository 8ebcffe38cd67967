//! Threads for what blocks: file systems know no other way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Some threads, and the jobs that wait for them. The threads end when it is dropped.
#[derive(Debug)]
pub(super) struct Pool {
    jobs: Sender<Job>,
    /// Jobs that have not ended.
    open: Arc<AtomicUsize>,
    most: usize,
}

impl Pool {
    /// `most` is how many jobs may be open before [`Pool::ask`] finds no place.
    pub(super) fn start(name: &str, threads: usize, most: usize) -> std::io::Result<Self> {
        let (jobs, waiting) = channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        for number in 0..threads {
            let waiting = Arc::clone(&waiting);
            std::thread::Builder::new().name(format!("{name}-{number}")).spawn(move || work(&waiting))?;
        }
        Ok(Self { jobs, open: Arc::default(), most })
    }

    /// Does a job some time. For those whose number is bounded by something else.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let open = Open::count(&self.open);
        // The threads live as long as this does.
        let _ = self.jobs.send(Box::new(move || {
            let _open = open;
            job();
        }));
    }

    /// Does a job, and waits for what comes of it. None: too many are waiting, or it panicked.
    pub(super) async fn ask<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        if self.open() >= self.most {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        self.run(move || {
            // Whoever asked may be gone.
            let _ = answer.send(job());
        });
        answered.await.ok()
    }

    /// Jobs that wait, or are being done.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// A job that has not ended.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        // A panic has been told of by the hook; the thread is still good.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_are_done_and_bounded_and_outlive_a_panic() {
        let pool = Pool::start("test", 1, 2).unwrap();
        assert_eq!(pool.ask(|| 7).await, Some(7));
        assert_eq!(pool.ask(|| panic!("a job that panics")).await, None::<()>);
        let (go, wait) = channel::<()>();
        pool.run(move || {
            let _ = wait.recv();
        });
        pool.run(|| {});
        assert_eq!(pool.ask(|| 7).await, None);
        drop(go);
        while pool.open() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.ask(|| 8).await, Some(8));
    }
}
