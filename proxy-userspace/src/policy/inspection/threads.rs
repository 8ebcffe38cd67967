//! The threads that judge. They begin with the first body, and end with the settings that asked for them.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::decode::{self, Bounds, Coding, End};
use super::{Finding, Form, Held, Scanner, TOO_LONG, Verdict};

/// Bodies that wait for a thread; more are not judged.
const QUEUE: usize = 1024;

/// A body that is to be judged.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) content: Arc<Held>,
    /// In the order in which they were applied.
    pub(super) codings: Vec<Coding>,
    pub(super) whole: bool,
    pub(super) until: Instant,
    pub(super) bounds: Bounds,
    pub(super) scanners: Arc<[Box<dyn Scanner>]>,
}

/// A job, and who waits for it.
type Waiting = (Job, oneshot::Sender<Verdict>);

#[derive(Debug)]
pub(super) struct Threads {
    count: usize,
    queue: OnceLock<SyncSender<Waiting>>,
}

impl Threads {
    pub(super) fn new(count: usize) -> Self {
        Self { count, queue: OnceLock::new() }
    }

    /// Has a thread do it. None: too many wait already.
    pub(super) fn run(&self, job: Job) -> Option<oneshot::Receiver<Verdict>> {
        let queue = self.queue.get_or_init(|| self.begin());
        let (sender, receiver) = oneshot::channel();
        queue.try_send((job, sender)).ok().map(|()| receiver)
    }

    fn begin(&self) -> SyncSender<Waiting> {
        let (sender, receiver) = sync_channel(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..self.count {
            let receiver = Arc::clone(&receiver);
            let begun = std::thread::Builder::new()
                .name(format!("weir-inspect-{number}"))
                .spawn(move || work(&receiver));
            if let Err(error) = begun {
                tracing::error!(%error, "a thread of security.inspection could not be started");
            }
        }
        sender
    }
}

fn work(queue: &Mutex<Receiver<Waiting>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        // Nobody can send any more.
        let Ok((job, waiting)) = next else { return };
        // Whoever asked may be gone.
        if !waiting.is_closed() {
            // A panic of a scanner is its own: the sender is dropped, and the body not judged.
            let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| judge(&job)));
            drop(judged.map(|verdict| waiting.send(verdict)));
        }
    }
}

/// Judges a body: as it came, and decoded.
fn judge(job: &Job) -> Verdict {
    let content = job.content.content();
    let form = if job.codings.is_empty() { Form::Plain } else { Form::Coded };
    let verdict = scan(job, content, form);
    if job.codings.is_empty() || matches!(verdict, Verdict::Match(_)) {
        return verdict;
    }
    let decoded = decode::decode(content, &job.codings, job.bounds, job.until);
    let inside = scan(job, &decoded.content, Form::Decoded);
    if matches!(inside, Verdict::Match(_)) {
        return inside;
    }
    match decoded.end {
        End::Capped(why) => Verdict::Undecided(why.into()),
        // What is cut off ends in the middle of its coding.
        End::Damaged if job.whole => Verdict::Undecided("its content coding is damaged".into()),
        End::Damaged | End::Whole if verdict == Verdict::Clean => inside,
        End::Damaged | End::Whole => verdict,
    }
}

fn scan(job: &Job, content: &[u8], form: Form) -> Verdict {
    let mut verdict = Verdict::Clean;
    for scanner in &*job.scanners {
        if Instant::now() >= job.until {
            return Verdict::Undecided(TOO_LONG.into());
        }
        match scanner.scan(content, form, job.until) {
            Finding::Nothing => {}
            Finding::Match(rule) => return Verdict::Match(rule),
            // Another one may know.
            Finding::Undecided(why) => verdict = Verdict::Undecided(why),
            Finding::Failed(why) if verdict == Verdict::Clean => verdict = Verdict::ClamdFailed(why),
            Finding::Failed(_) => {}
        }
    }
    verdict
}
