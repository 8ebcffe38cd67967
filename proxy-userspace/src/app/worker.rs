//! A worker: one thread, one runtime, one share of the connections. Workers share no state that is written
//! per request.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::Transparent;
use crate::config::Config;
use crate::front::{self, Shared, explicit, transparent};
use crate::http::forward::Pseudonym;
use crate::net::deadline::{self, TICK};
use crate::net::stream::Admission;
use crate::pipeline::Engine;
use crate::policy::acl::Acl;
use crate::redirect::OriginalDestinations;
use crate::running::Beats;
use crate::telemetry::flows;
use crate::upstream::{Upstream, dns};

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
    pub via: Pseudonym,
    pub admission: Arc<Admission>,
    pub beats: Arc<Beats>,
    pub originals: Option<OriginalDestinations>,
    pub draining: watch::Receiver<bool>,
}

/// The listeners of one worker.
struct Doors {
    explicit: TcpListener,
    transparent: Vec<TcpListener>,
}

/// Starts a worker for each explicit listener; the others are dealt out among them.
pub(super) fn start(
    plan: &Plan,
    explicit: Vec<TcpListener>,
    transparent: Transparent,
) -> io::Result<Vec<JoinHandle<()>>> {
    let (mut v4, mut v6) = (transparent.v4.into_iter(), transparent.v6.into_iter());
    let doors = explicit
        .into_iter()
        .map(|explicit| Doors { explicit, transparent: v4.next().into_iter().chain(v6.next()).collect() });
    doors.enumerate().map(|(index, doors)| start_one(index, plan.clone(), doors)).collect()
}

fn start_one(index: usize, plan: Plan, doors: Doors) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("weir-worker-{index}")).spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .event_interval(EVENT_INTERVAL)
            .max_blocking_threads(dns::MAX_LOOKUPS)
            .build_local(LocalOptions::default());
        let result = runtime.and_then(|runtime| {
            let result = runtime.block_on(run(index, plan, doors));
            // Dropped, it would wait for names that are still being looked up.
            runtime.shutdown_background();
            result
        });
        if let Err(error) = result {
            tracing::error!(%error, "worker {index} could not start");
        }
        flows::flush();
    })
}

async fn run(index: usize, plan: Plan, doors: Doors) -> io::Result<()> {
    let engine = Rc::new(Engine {
        upstream: Upstream::new(&plan.config.upstream),
        acl: plan.acl,
        via: plan.via,
        config: Arc::clone(&plan.config),
    });
    let shared = Shared {
        engine: Rc::clone(&engine),
        admission: Arc::clone(&plan.admission),
        drain: plan.draining.clone(),
    };
    let mut fronts = tokio::task::JoinSet::new();
    fronts.spawn_local(explicit::run(front::into_async(doors.explicit)?, shared.clone()));
    for listener in doors.transparent {
        // Without the kernel half nobody is sent there; the sockets close here.
        if let Some(originals) = &plan.originals {
            let listener = front::into_async(listener)?;
            fronts.spawn_local(transparent::run(listener, shared.clone(), originals.clone()));
        }
    }
    drop(shared);
    let mut draining = plan.draining;
    tokio::select! {
        () = tick(index, &plan.beats, &engine) => {}
        _ = draining.wait_for(|drain| *drain) => {}
    }
    fronts.join_all().await;
    deadline::drain();
    let drained = async {
        while plan.admission.open() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    tokio::select! {
        () = tick(index, &plan.beats, &engine) => {}
        // What is still open after that is reset as the runtime goes.
        _ = tokio::time::timeout(plan.config.server.timeouts.drain, drained) => {}
    }
    Ok(())
}

/// How often a draining worker looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

async fn tick(index: usize, beats: &Beats, engine: &Engine) {
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
            engine.upstream.sweep();
        }
    }
}
