//! A worker: one thread, one runtime, one share of the connections. Workers share no state that is written
//! per request.

use std::io;
use std::net::TcpListener;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::orders::{ORDERS, Order, Orders};
use crate::cache::Cache;
use crate::config::Config;
use crate::containers::{CaptureListeners, Door, Targets};
use crate::dns::Inspection;
use crate::front::{self, Shared, explicit, transparent};
use crate::http::forward::Pseudonym;
use crate::net::admission::Admission;
use crate::net::deadline::{self, TICK};
use crate::pipeline::{Engine, Engines};
use crate::policy::Policy;
use crate::policy::acl::Acl;
use crate::policy::auth::Auth;
use crate::policy::current::Shared as Current;
use crate::policy::interception::Interception;
use crate::policy::limits::Limits;
use crate::redirect::OriginalDestinations;
use crate::route::Table;
use crate::running::{Beats, Phase};
use crate::services::Services;
use crate::telemetry::flows;
use crate::tls::client::ClientTls;
use crate::tls::minting::Minter;
use crate::tls::server::Acceptance;
use crate::upstream::{Common, Upstream, dns};

/// Tasks polled between two looks at the sockets. Fewer than tokio's default, so that bulk transfers do not
/// hold up small messages.
const EVENT_INTERVAL: u32 = 31;

/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// What all workers are given.
#[derive(Clone)]
pub(super) struct Plan {
    pub config: Arc<Config>,
    pub acl: Acl,
    pub policy: Arc<Current<Policy>>,
    pub auth: Arc<Auth>,
    pub limits: Arc<Limits>,
    pub via: Pseudonym,
    pub cache: Option<Arc<Cache>>,
    pub tls: Arc<ClientTls>,
    pub acceptance: Option<Arc<Acceptance>>,
    pub interception: Option<Arc<Interception>>,
    pub minter: Option<Arc<Minter>>,
    pub routes: Arc<Table>,
    pub admission: Arc<Admission>,
    pub upstreams: Arc<Common>,
    pub beats: Arc<Beats>,
    pub originals: Option<OriginalDestinations>,
    pub dns: Option<Inspection>,
    pub targets: Arc<Targets>,
    pub services: Arc<Services>,
    pub phase: watch::Receiver<Phase>,
}

/// The listeners of one worker.
struct Doors {
    explicit: Vec<TcpListener>,
    transparent: Vec<TcpListener>,
    /// Those in other network namespaces, as these are entered.
    inside: mpsc::Receiver<Door>,
}

/// Its listeners, what it is told, and whether the explicit ones are still wanted.
type Given = (Doors, mpsc::Receiver<Order>, watch::Receiver<bool>);

/// The workers' threads.
pub(super) struct Workers {
    threads: Vec<JoinHandle<io::Result<()>>>,
    one_ended: Arc<Notify>,
    orders: Orders,
}

/// A worker that did not run until it was told to stop.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("worker {index} could not go on: {error}")]
    Failed { index: usize, error: io::Error },
    #[error("worker {index} panicked; the log has the place")]
    Panicked { index: usize },
}

impl Workers {
    /// Starts a worker for each group of explicit listeners; the others are dealt out among them.
    pub(super) fn start(
        plan: &Plan,
        explicit: Vec<Vec<TcpListener>>,
        transparent: CaptureListeners,
        inside: Vec<mpsc::Receiver<Door>>,
        door: &watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let mut captured: Vec<Vec<TcpListener>> = explicit.iter().map(|_| Vec::new()).collect();
        let workers = captured.len().max(1);
        for (turn, listener) in transparent.into_sockets().into_iter().enumerate() {
            captured[turn % workers].push(listener);
        }
        let doors = explicit.into_iter().zip(captured).zip(inside);
        let doors = doors.map(|((explicit, transparent), inside)| Doors { explicit, transparent, inside });
        let one_ended = Arc::new(Notify::new());
        let (orders, heard): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(ORDERS)).unzip();
        let doors = doors.zip(heard).map(|(doors, orders)| (doors, orders, door.clone()));
        let threads = doors.enumerate().map(|(index, doors)| {
            let (plan, note) = (plan.clone(), EndNote(Arc::clone(&one_ended)));
            std::thread::Builder::new().name(format!("weir-worker-{index}")).spawn(move || {
                let _note = note;
                on_thread(index, plan, doors)
            })
        });
        Ok(Self { threads: threads.collect::<io::Result<_>>()?, one_ended, orders: Orders(orders) })
    }

    /// The way to tell them something.
    pub(super) fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// Ready when a worker has ended, for whatever reason.
    pub(super) async fn one_ended(&self) {
        self.one_ended.notified().await;
    }

    /// Waits until all have ended; the first one's error, if any.
    pub(super) async fn all_ended(self) -> Result<(), WorkerError> {
        let mut result = Ok(());
        for (index, thread) in self.threads.into_iter().enumerate() {
            while !thread.is_finished() {
                tokio::time::sleep(END_LOOK).await;
            }
            let ended = match thread.join() {
                Ok(ended) => ended.map_err(|error| WorkerError::Failed { index, error }),
                Err(_) => Err(WorkerError::Panicked { index }),
            };
            result = result.and(ended);
        }
        result
    }
}

/// How often it is looked whether a worker has ended.
const END_LOOK: Duration = Duration::from_millis(10);

/// Tells of a thread's end, by panic too.
struct EndNote(Arc<Notify>);

impl Drop for EndNote {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn on_thread(index: usize, plan: Plan, doors: Given) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .max_blocking_threads(dns::MAX_LOOKUPS)
        .build_local(LocalOptions::default())?;
    let result = runtime.block_on(run(index, plan, doors));
    // Dropped, it would wait for names that are still being looked up.
    runtime.shutdown_background();
    flows::flush();
    result
}

async fn run(index: usize, plan: Plan, (doors, orders, door): Given) -> io::Result<()> {
    let engines = Engines::new(|place| engine(index, &plan, place));
    let shared = Shared {
        engines: Rc::clone(&engines),
        admission: Arc::clone(&plan.admission),
        phase: plan.phase.clone(),
        names: Rc::new(plan.targets.names()),
    };
    let mut fronts = JoinSet::new();
    for listener in doors.explicit {
        fronts.spawn_local(explicit::run(front::into_async(listener)?, shared.clone(), door.clone()));
    }
    drop(door);
    for listener in doors.transparent {
        // Without the kernel half nobody is sent there; the sockets close here.
        if let Some(originals) = &plan.originals {
            let listener = front::into_async(listener)?;
            fronts.spawn_local(transparent::run(listener, shared.clone(), originals.clone()));
        }
    }
    let (mut inside, mut doors) = (JoinSet::new(), doors.inside);
    let mut phase = plan.phase.clone();
    tokio::select! {
        () = serve_inside(&mut inside, &mut doors, &shared) => {}
        () = tick(index, &plan.beats, &engines) => {}
        _ = phase.wait_for(|phase| *phase >= Phase::Replaced { keeps_door: false }) => {}
        failed = obey(index, orders, &mut fronts, &shared) => return Err(failed),
    }
    if *phase.borrow() != Phase::Stopping {
        deadline::retire();
        tokio::select! {
            () = serve_inside(&mut inside, &mut doors, &shared) => {}
            () = tick(index, &plan.beats, &engines) => {}
            _ = phase.wait_for(|phase| *phase == Phase::Stopping) => {}
        }
    }
    fronts.join_all().await;
    inside.join_all().await;
    deadline::drain();
    let drained = async {
        while plan.admission.open() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    tokio::select! {
        () = tick(index, &plan.beats, &engines) => {}
        // What is still open after that is reset as the runtime goes.
        _ = tokio::time::timeout(engines.newest().config.server.timeouts.drain, drained) => {}
    }
    Ok(())
}

/// A worker's engine, by a plan.
fn engine(index: usize, plan: &Plan, place: Weak<Engines>) -> Engine {
    Engine {
        upstream: Upstream::new(
            &plan.config.upstream,
            Arc::clone(&plan.tls),
            Arc::clone(&plan.upstreams),
            index,
        ),
        acl: plan.acl.clone(),
        policy: plan.policy.follow(),
        auth: Arc::clone(&plan.auth),
        limits: Arc::clone(&plan.limits),
        via: plan.via.clone(),
        cache: plan.cache.clone(),
        acceptance: plan.acceptance.clone(),
        interception: plan.interception.clone(),
        minter: plan.minter.clone(),
        routes: Arc::clone(&plan.routes),
        services: plan.services.follow(),
        dns: plan.dns.clone(),
        config: Arc::clone(&plan.config),
        place,
    }
}

/// Does what it is told. Returns if a front has failed; one that ends has been told to.
async fn obey(
    index: usize,
    mut orders: mpsc::Receiver<Order>,
    fronts: &mut JoinSet<()>,
    shared: &Shared,
) -> io::Error {
    loop {
        tokio::select! {
            Some(order) = orders.recv() => match order {
                Order::Follow(plan, done) => {
                    shared.engines.replace(|place| engine(index, &plan, place));
                    // Who has asked waits no longer than it wants.
                    let _ = done.send(());
                }
                Order::Open(listeners, door, done) => {
                    for listener in listeners {
                        match front::into_async(listener) {
                            Ok(listener) => drop(fronts.spawn_local(explicit::run(listener, shared.clone(), door.clone()))),
                            Err(error) => tracing::error!(%error, "can't serve a listener"),
                        }
                    }
                    let _ = done.send(());
                }
            },
            Some(ended) = fronts.join_next() => if let Err(error) = ended {
                return io::Error::other(error);
            },
            // weir is going.
            else => std::future::pending().await,
        }
    }
}

/// Serves listeners in other network namespaces as they come, each by a task among `fronts`.
async fn serve_inside(fronts: &mut JoinSet<()>, doors: &mut mpsc::Receiver<Door>, shared: &Shared) {
    loop {
        tokio::select! {
            Some(Door { listener, originals, namespace }) = doors.recv() => match front::into_async(listener) {
                Ok(listener) => {
                    fronts.spawn_local(transparent::run_inside(listener, shared.clone(), (originals, namespace)));
                }
                Err(error) => tracing::error!(%error, "can't serve a listener in a network namespace"),
            },
            Some(_) = fronts.join_next() => {}
            // weir is going.
            else => std::future::pending().await,
        }
    }
}

/// How often a draining worker looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

async fn tick(index: usize, beats: &Beats, engines: &Engines) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let per_sweep = SWEEP.as_millis() / TICK.as_millis();
    for count in 1_u128.. {
        ticks.tick().await;
        if let Err(error) = beats.beat(index) {
            tracing::error!(%error, "the kernel half does not take the heartbeat");
        }
        deadline::tick();
        flows::flush();
        if count % per_sweep == 0 {
            engines.newest().upstream.sweep();
        }
    }
}
