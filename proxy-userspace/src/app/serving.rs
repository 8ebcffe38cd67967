//! From the time when all is started to the end: a signal, the failure of a part, or another weir in this one's place.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::handover::{Given, Giver};
use super::queries::Thread;
use super::state_file::StateFile;
use super::worker::Workers;
use super::{StartError, store, supervisor, system_proxy};
use crate::admin;
use crate::running::{NotUpgraded, Phase, Running, Upgrade};

/// All that runs.
pub(super) struct Served {
    pub(super) running: Arc<Running>,
    pub(super) giver: Arc<Giver>,
    pub(super) workers: Workers,
    pub(super) queries: Option<Thread>,
    pub(super) admin: admin::Serving,
    pub(super) state_file: Option<StateFile>,
    pub(super) tasks: Vec<JoinHandle<()>>,
}

/// A replaced weir is there at least so long: a connection that was sent here, and has not come yet, comes.
const SETTLE: Duration = Duration::from_secs(2);

/// How often it is looked whether a replaced weir has nothing left to do.
const LOOK: Duration = Duration::from_millis(50);

impl Served {
    /// Serves, and ends what it serves.
    pub(super) async fn until_the_end(
        self,
        mut signals: Signals,
        mut wishes: Wishes,
    ) -> Result<(), StartError> {
        let Self { running, giver, workers, queries, admin, state_file, tasks } = self;
        let given = until_over(&giver, &workers, queries.as_ref(), &mut signals, &mut wishes).await;
        wishes.refuse();
        let mut admin = Some(admin);
        if let Some(given) = &given {
            tracing::info!(
                pid = given.pid,
                open = running.admission.open(),
                "another weir has taken over; this one finishes what it has"
            );
            running.system_proxy.leave();
            admin.take().into_iter().for_each(|admin| admin.leave(given.keeps_admin_socket));
            tasks.iter().for_each(JoinHandle::abort);
            tokio::select! {
                () = finished(&running, given) => {}
                () = tokio::time::sleep(running.config().server.timeouts.upgrade) => {}
                () = signals.next() => {}
            }
        } else {
            supervisor::tell_stopping();
            system_proxy::end(&running).await;
        }
        let drain_seconds = running.config().server.timeouts.drain.as_secs();
        tracing::info!(open = running.admission.open(), "stopping: open connections have {drain_seconds} s");
        let left_running = admin::release_captured(&running);
        giver.close();
        giver.enter(Phase::Stopping);
        let ended = tokio::select! {
            ended = workers.all_ended() => ended,
            () = signals.next() => {
                tracing::warn!("stopping at once: a second signal arrived");
                Ok(())
            }
        };
        drop(queries);
        // What the workers recorded last is still on its way to the log, and what they stored to the disk.
        running.flows.settled().await;
        store::settle(running.cache.as_deref()).await;
        tasks.iter().for_each(JoinHandle::abort);
        admin.into_iter().for_each(admin::Serving::abort);
        // Programs that ended while their transfers were finished.
        admin::remove_empty(left_running);
        if let (Some(file), true) = (state_file, given.is_some_and(|given| given.keeps_state_dir)) {
            file.leave();
        }
        tracing::info!("stopped");
        Ok(ended?)
    }
}

/// Until weir is to stop, or another one has taken its place.
async fn until_over(
    giver: &Arc<Giver>,
    workers: &Workers,
    queries: Option<&Thread>,
    signals: &mut Signals,
    wishes: &mut Wishes,
) -> Option<Given> {
    let mut upgrading: Option<Upgrading> = None;
    loop {
        tokio::select! {
            () = signals.next() => break,
            () = workers.one_ended() => {
                tracing::error!("a worker has ended");
                break;
            }
            () = Thread::ended(queries) => {
                tracing::error!("the thread for DNS has ended");
                break;
            }
            _ = wishes.signal.recv(), if upgrading.is_none() => {
                upgrading = Some(Upgrading::begin(giver, None, None));
            }
            Some(wish) = wishes.asked.recv() => match upgrading {
                Some(_) => wish.refuse(),
                None => upgrading = Some(Upgrading::begin(giver, wish.binary, Some(wish.answer))),
            },
            given = Upgrading::end(&mut upgrading) => match given {
                Some(given) => return Some(given),
                None => upgrading = None,
            },
        }
    }
    // If the other one has taken over at this very moment, it stays.
    giver.cancel();
    if upgrading.is_some() { Upgrading::end(&mut upgrading).await } else { None }
}

/// Who wants an upgrade: the admin API, and SIGUSR2.
pub(super) struct Wishes {
    asked: mpsc::Receiver<Upgrade>,
    signal: Signal,
}

impl Wishes {
    pub(super) fn new(asked: mpsc::Receiver<Upgrade>) -> std::io::Result<Self> {
        Ok(Self { asked, signal: signal(SignalKind::user_defined2())? })
    }

    /// No other upgrade begins here.
    fn refuse(&mut self) {
        self.asked.close();
        while let Ok(wish) = self.asked.try_recv() {
            wish.refuse();
        }
    }
}

/// A weir that is being started to take over.
struct Upgrading {
    giving: JoinHandle<Option<Given>>,
}

impl Upgrading {
    fn begin(
        giver: &Arc<Giver>,
        binary: Option<PathBuf>,
        answer: Option<oneshot::Sender<Result<u32, NotUpgraded>>>,
    ) -> Self {
        let giver = Arc::clone(giver);
        let giving = tokio::task::spawn_blocking(move || {
            let given = giver.give(binary.as_deref());
            if let Err(error) = &given {
                tracing::error!("no upgrade, and nothing has changed: {error}");
            }
            if let Some(answer) = answer {
                let told = given
                    .as_ref()
                    .map(|given| given.pid)
                    .map_err(|error| NotUpgraded::Failed(error.to_string()));
                // Who has asked may have gone.
                let _ = answer.send(told);
            }
            given.ok()
        });
        Self { giving }
    }

    /// Ready when it has taken over, or not. Never, if there is none.
    async fn end(this: &mut Option<Self>) -> Option<Given> {
        match this {
            // A panic is a failure.
            Some(upgrading) => (&mut upgrading.giving).await.ok().flatten(),
            None => std::future::pending().await,
        }
    }
}

/// Ready when a replaced weir has nothing left to do.
async fn finished(running: &Running, given: &Given) {
    let begun = Instant::now();
    let waits = || given.redirect.as_ref().is_some_and(|redirect| redirect.unclaimed() > 0);
    let commands = || running.executor().is_some_and(|executor| executor.counts().2 > 0);
    while begun.elapsed() < SETTLE || running.admission.open() > 0 || waits() || commands() {
        tokio::time::sleep(LOOK).await;
    }
}

/// SIGTERM and SIGINT. One that arrives while nobody waits is kept for the next who does.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
