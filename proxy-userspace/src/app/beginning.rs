//! The parts begin: workers, the capture of what was captured before, the admin API, and the tasks beside them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::StartError;
use super::control::{Control, Door};
use super::handover::{self, TakeError, Taking};
use super::serving::{Served, Wishes};
use super::state_file::{self, StateFile};
use super::wiring::Wired;
use super::worker::Workers;
use super::{checks, decisions, holder, policy, predecessors, rules, supervisor};
use crate::running::{Capture, Phase, Running};
use crate::{admin, capture, services};

/// How long the threads may take to begin.
const BEGIN: Duration = Duration::from_secs(5);

const CLOSED_SWEEP: Duration = Duration::from_secs(2);

/// Has all parts serve; `taking`: in the place of a running weir, whose rules hold until then.
pub(super) async fn begin(
    wired: Wired,
    taking: Option<Taking>,
    hangup: Signal,
) -> Result<(Served, Wishes), StartError> {
    let Wired { running, giver, plan, explicit, transparent, inside, admin, .. } = wired;
    // That of the running weir is there until its place is taken.
    let state_file = match &taking {
        Some(_) => None,
        None => Some(StateFile::write(&running)?),
    };
    let (door, told) = explicit.address.map(Door::new).unzip();
    let told = told.unwrap_or_else(|| watch::channel(true).1);
    let workers = Workers::start(&plan, explicit.groups, transparent, inside, &told)?;
    drop(told);
    let is_successor = taking.is_some();
    if let Some(taking) = taking {
        timeout(BEGIN, running.beats.begun()).await.map_err(|_| TakeError::NotBegun)?;
        handover::succeed(&taking, &running, wired.rules, wired.asked).await?;
        holder::watch(&running);
        giver.enter(Phase::Serving);
    } else {
        capture::start(&running, wired.asked).await;
        admin::adopt_captured(&running);
    }
    let state_file = state_file.or_else(|| state_file::replace_old(&running));
    let token = admin.token();
    let admin = admin.serve(Arc::clone(&running), &plan.phase);
    if !is_successor {
        // An earlier weir's programs refuse until then; without a beat, this one's would let through. A worker that never
        // begins is found out below.
        let _ = timeout(BEGIN, running.beats.begun()).await;
        // Nobody is answered before: this waits for nothing.
        holder::take_over(&running)?;
    }
    if let Some(decisions) = wired.decisions {
        tokio::spawn(decisions::hand_out(decisions, Arc::clone(&running)));
    }
    let orders = workers.orders();
    let (to_change, own) = (wired.asked_to_change, wired.own);
    let control =
        Control { running: Arc::clone(&running), giver: Arc::clone(&giver), plan, orders, door, own, token };
    let mut tasks = tasks(&running);
    tasks.push(tokio::spawn(control.run(to_change, hangup)));
    announce(&running);
    supervisor::tell_ready();
    let served = Served { running, giver, workers, queries: wired.queries, admin, state_file, tasks };
    Ok((served, wired.wishes))
}

/// What is done beside the requests.
fn tasks(running: &Arc<Running>) -> Vec<JoinHandle<()>> {
    vec![
        tokio::spawn(sweep_closed(Arc::clone(running))),
        tokio::spawn(rules::refresh(Arc::clone(running))),
        tokio::spawn(policy::keep_current(Arc::clone(running))),
        tokio::spawn(predecessors::watch(Arc::clone(running))),
        tokio::spawn(services::watch(Arc::clone(&running.services), engines(running))),
        tokio::spawn(services::probe(Arc::clone(&running.services), allowed(running))),
        tokio::spawn(checks::run(Arc::clone(running))),
    ]
}

/// The engines whose containers may be services.
fn engines(running: &Running) -> Vec<PathBuf> {
    running.config().capture.engine_sockets.clone()
}

/// Nobody is led to weir itself.
fn allowed(running: &Arc<Running>) -> services::Allowed {
    let running = Arc::clone(running);
    Arc::new(move |address| running.live().acl.check_named(address).is_ok())
}

/// Every so often: no connection waits that long to be accepted.
async fn sweep_closed(running: Arc<Running>) {
    loop {
        tokio::time::sleep(CLOSED_SWEEP).await;
        if let Capture::On(redirect) = &*running.capture() {
            redirect.sweep_closed();
            redirect.names().sweep();
        }
    }
}

/// What leads commands to this weir, where they would not look for it.
fn place(running: &Running) -> String {
    let socket = running.config().admin.socket_path();
    match super::default_admin_sockets().contains(&socket) {
        true => String::new(),
        false => format!(" --admin {}", socket.display()),
    }
}

fn announce(running: &Running) {
    match running.live().proxy {
        Some(proxy) => {
            tracing::info!(
                "explicit proxy on http://{proxy}: try `curl -x http://{proxy} http://example.com/`"
            );
        }
        None => tracing::info!("the explicit proxy is stopped, as it was; POST /proxy/start starts it"),
    }
    if matches!(*running.capture(), Capture::On(_)) {
        tracing::info!("capturing: try `weir{} exec -- curl http://example.com/`", place(running));
    }
}
