//! Finished flows on their way out: from the workers in batches, to the access log, a bounded memory of the
//! last ones, and whoever follows them live.
//!
//! Where there is a log, or somebody follows, they go through the collector, a thread of its own: whoever reads the access
//! log may stop reading it, and then only further flows are lost, and counted.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};

use super::flow::{Flow, printable};
use super::metrics;
use crate::config::{LogFormat, Logging};

/// Flows a worker holds before it hands them over early; otherwise it does so once a tick.
const BATCH: usize = 256;

/// Batches under way between workers and the collector.
const BATCHES: usize = 256;

/// How long the end of weir waits for the access log.
const SETTLE: Duration = Duration::from_secs(1);

/// Flows a slow follower may be behind before it misses some.
const FOLLOWER_LAG: usize = 4096;

/// Takes note of a finished flow. Cheap: no lock, no system call.
pub fn record(mut flow: Box<Flow>) {
    flow.stop();
    let full = PENDING.with_borrow_mut(|pending| {
        pending.push(flow);
        pending.len() >= BATCH
    });
    if full {
        flush();
    }
}

/// Hands this thread's flows on. Called once a tick.
pub fn flush() {
    let batch = PENDING.with_borrow_mut(std::mem::take);
    let (Some(collecting), false) = (COLLECTING.get(), batch.is_empty()) else { return };
    let count = batch.len() as u64;
    let Some(batch) = collecting.flows.keep_unheard(batch) else { return };
    if collecting.collector.try_send(Message::Batch(batch)).is_err() {
        metrics::with(|metrics| metrics.dropped_flows.add(count));
    }
}

/// The last flows, and a way to hear of new ones.
#[derive(Debug)]
pub struct Flows {
    keep: AtomicUsize,
    /// Whether there is an access log, and its form.
    logs: AtomicBool,
    format: LogFormat,
    last: Mutex<VecDeque<Box<Flow>>>,
    live: broadcast::Sender<Arc<Flow>>,
}

impl Flows {
    /// Starts collecting in this process; finished flows are kept and logged as told.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn collect(keep: usize, logging: &Logging) -> io::Result<Arc<Self>> {
        let live = broadcast::channel(FOLLOWER_LAG).0;
        let (keep, logs) = (AtomicUsize::new(keep), AtomicBool::new(logging.access));
        let flows = Arc::new(Self { keep, logs, format: logging.format, last: Mutex::default(), live });
        let (collector, receiver) = mpsc::channel(BATCHES);
        if COLLECTING.set(Collecting { flows: Arc::clone(&flows), collector }).is_ok() {
            let flows = Arc::clone(&flows);
            thread::Builder::new().name("weir-flows".into()).spawn(move || flows.run(receiver))?;
        }
        Ok(flows)
    }

    /// The last `count` flows, oldest first.
    #[must_use]
    pub fn last(&self, count: usize) -> Vec<Arc<Flow>> {
        let last = self.lock();
        last.iter().skip(last.len().saturating_sub(count)).map(|flow| Arc::new((**flow).clone())).collect()
    }

    /// How many are kept from now on, and whether a line is written for each.
    pub fn set(&self, keep: usize, logs: bool) {
        self.keep.store(keep, Ordering::Relaxed);
        self.logs.store(logs, Ordering::Relaxed);
    }

    /// All flows from now on.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<Flow>> {
        self.live.subscribe()
    }

    /// Waits until what was flushed so far is collected, but no longer than [`SETTLE`].
    pub async fn settled(&self) {
        let Some(Collecting { collector, .. }) = COLLECTING.get() else { return };
        // Answered once all that was sent before it is dealt with.
        let (done, settled) = oneshot::channel();
        let asked = async {
            if collector.send(Message::Settle(done)).await.is_ok() {
                let _ = settled.await;
            }
        };
        // If nobody reads standard output, the last flows are lost.
        let _ = tokio::time::timeout(SETTLE, asked).await;
    }

    fn run(&self, mut messages: mpsc::Receiver<Message>) {
        while let Some(message) = messages.blocking_recv() {
            match message {
                Message::Batch(batch) => self.take(batch),
                // Whoever has asked may have given up.
                Message::Settle(done) => drop(done.send(())),
            }
        }
    }

    fn take(&self, batch: Batch) {
        if self.logs.load(Ordering::Relaxed) {
            write_access_log(&batch, self.format);
        }
        if self.live.receiver_count() > 0 {
            batch.iter().for_each(|flow| drop(self.live.send(Arc::new((**flow).clone()))));
        }
        self.remember(&mut self.lock(), batch);
    }

    /// Remembers flows that nobody waits for. It is the worker that does so then: memory that it has given out comes back to
    /// it, and no other thread wakes. Others are given back.
    fn keep_unheard(&self, batch: Batch) -> Option<Batch> {
        // Whoever begins to follow looks at the last ones after that: in between nothing is missed.
        let mut last = self.lock();
        if self.logs.load(Ordering::Relaxed) || self.live.receiver_count() > 0 {
            return Some(batch);
        }
        self.remember(&mut last, batch);
        None
    }

    fn remember(&self, last: &mut VecDeque<Box<Flow>>, batch: Batch) {
        last.extend(batch);
        let surplus = last.len().saturating_sub(self.keep.load(Ordering::Relaxed));
        last.drain(..surplus);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Box<Flow>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_access_log(batch: &[Box<Flow>], format: LogFormat) {
    let mut lines = Vec::new();
    for flow in batch {
        // Writing to a Vec fails only if serialising does, which it does not for plain data.
        let _ = match format {
            LogFormat::Text => writeln!(lines, "{}", printable(flow.to_string())),
            LogFormat::Json => {
                serde_json::to_writer(&mut lines, flow).map_err(Into::into).and_then(|()| writeln!(lines))
            }
        };
    }
    // A closed standard output must not stop the proxy.
    let _ = io::stdout().lock().write_all(&lines);
}

/// So they come: a record is not moved in memory on its way.
type Batch = Vec<Box<Flow>>;

/// What the collector is sent.
enum Message {
    Batch(Batch),
    Settle(oneshot::Sender<()>),
}

struct Collecting {
    flows: Arc<Flows>,
    collector: mpsc::Sender<Message>,
}

static COLLECTING: OnceLock<Collecting> = OnceLock::new();

thread_local! {
    static PENDING: RefCell<Batch> = const { RefCell::new(Vec::new()) };
}
