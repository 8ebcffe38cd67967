//! Wiring: what is started in which order, and stopped in the reverse one.
//!
//! Start: sockets → kernel half → state file → workers → cgroups of an earlier weir captured again → admin API.
//! Stop: kernel half detached (new connections go direct) → what is queued accepted, listeners closed → drain → workers
//! end. A worker that ends on its own stops weir, too: the heartbeat of those that are left is not that of a whole.

mod certificates;
mod decisions;
pub mod handover;
mod holder;
mod policy;
mod predecessors;
mod privileges;
mod queries;
mod rules;
mod serving;
mod sockets;
mod state_file;
mod store;
mod supervisor;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::time::Instant;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::cache::store::disk::DiskError;
use crate::config::{self, Config, Sources};
use crate::containers::{Namespaces, Targets};
use crate::dns::Inspection;
use crate::execute::{Executor, UserError};
use crate::http::forward::Pseudonym;
use crate::net::admission::Admission;
use crate::policy::Policy;
use crate::policy::acl::Acl;
use crate::policy::auth::Auth;
use crate::policy::current::Shared;
use crate::policy::filtering::ListError;
use crate::policy::interception::Interception;
use crate::policy::limits::Limits;
use crate::redirect::{RedirectError, RulesError};
use crate::running::{Beats, Capture, Following, Phase, Predecessors, Running};
use crate::telemetry::flows::Flows;
use crate::tls::authority::{Authority, AuthorityError};
use crate::tls::client::{ClientTls, FileError};
use crate::tls::minting::{MintError, Minter};
use crate::tls::server::Acceptance;
use crate::upstream::Common;
use crate::{admin, capture};
use handover::{Giver, TakeError, Taking};
use queries::Queries;
use serving::{Served, Signals, Wishes};
use sockets::Explicit;
use state_file::StateFile;
use worker::{Plan, Workers};

pub use privileges::give_up_privileges;

/// Why weir could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "can't listen on {host}: ports {first}-{last} are taken or not allowed ({error}); \
         free one, or set server.port and server.port_range"
    )]
    Listen { host: std::net::IpAddr, first: u16, last: u16, error: std::io::Error },
    #[error("can't listen for captured connections on loopback: {0}")]
    Transparent(std::io::Error),
    #[error("can't listen for queries to DNS servers on loopback: {0}")]
    Queries(std::io::Error),
    #[error("security.filtering: {0}")]
    Lists(#[from] ListError),
    #[error("TLS: {0}")]
    Tls(#[from] FileError),
    #[error("tls.intercept: {0}")]
    Authority(#[from] AuthorityError),
    #[error("tls.intercept: {0}")]
    Mint(#[from] MintError),
    #[error("{0}")]
    Admin(#[from] admin::ListenError),
    #[error("capture.mode is `required`, but nothing can be captured: {0}")]
    Capture(#[from] RedirectError),
    #[error("{0}")]
    Rules(RulesError),
    #[error("{0}")]
    State(#[from] state_file::StateError),
    #[error("can't start a thread or runtime: {0}")]
    Runtime(#[from] std::io::Error),
    #[error("{0}")]
    Disk(#[from] DiskError),
    #[cfg(not(feature = "redis"))]
    #[error(
        "cache.redis.url: this weir was built without the feature `redis`; set it to none, or build weir with it"
    )]
    WithoutRedis,
    #[error("{0}")]
    TakeOver(#[from] TakeError),
    #[error("{0}")]
    Execute(#[from] UserError),
    #[error("{0}; weir has stopped, as it can't go on without")]
    Worker(#[from] worker::WorkerError),
}

/// Runs weir until SIGTERM or SIGINT, or until another one has taken its place. `take_over`: a running weir has started
/// this one to take its own.
///
/// # Errors
/// [`StartError`]; nothing is left behind then.
pub fn serve(config: Config, sources: Sources, take_over: bool) -> Result<(), StartError> {
    raise_file_limit();
    let taking = if take_over { Taking::begin()? } else { None };
    let voice = taking.as_ref().map(Taking::voice).transpose()?;
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = control.block_on(run(Arc::new(config), sources, taking));
    // Whatever is still under way is of no use to anybody.
    control.shutdown_background();
    if let (Some(voice), Err(error)) = (voice, &result) {
        handover::tell_failure(&voice, &error.to_string());
    }
    result
}

async fn run(config: Arc<Config>, sources: Sources, mut taking: Option<Taking>) -> Result<(), StartError> {
    let signals = Signals::new()?;
    let tls = Arc::new(ClientTls::load(&config.upstream.tls)?);
    let acceptance = Acceptance::load(&config.server.tls)?.map(Arc::new);
    let minter = mint(&config.tls.intercept)?;
    let policy = Shared::new(Policy::load(&config.security)?);
    let auth = Auth::new();
    // From now on it doesn't end weir.
    let hangup = signal(SignalKind::hangup())?;
    let explicit = Explicit::listen(&config, taking.as_mut())?;
    let proxy = explicit.address;
    let transparent = sockets::listen_for_captured(&config)?;
    let taken = taking.as_mut().map(|taking| taking.admin(&config.admin)).unwrap_or_default();
    let admin = admin::Listeners::bind(&config.admin, taken).await?;
    let queries = Queries::listen(&config.capture).map_err(StartError::Queries)?;
    let mut own = vec![proxy, admin.address()];
    own.extend(transparent.addresses());
    let acl = Acl::new(&config.security.acl.destinations, &own);

    let (mut capture, rules) =
        sockets::start_capture(&config, &transparent, queries.as_ref(), taking.as_mut())?;
    let (originals, heartbeat) = match &capture {
        Capture::On(redirect) => (Some(redirect.original_destinations()), Some(redirect.heartbeat())),
        _ => (None, None),
    };
    // Without the kernel half nobody is sent there; the sockets close here.
    let queries = queries.filter(|_| originals.is_some());
    let (targets, asked) = Targets::new(&config.capture.targets);
    let (namespaces, doors) = Namespaces::new(config.server.workers, queries.as_ref().map(Queries::doors));
    let cache = store::open(&config.cache, taking.as_mut().and_then(Taking::cache_lock))?;
    let beats = Beats::new(config.server.workers + usize::from(queries.is_some()), heartbeat);
    let inspection = match (&capture, &queries) {
        (Capture::On(redirect), Some(_)) => Some(Inspection::new(&config.capture.dns, redirect.names())),
        _ => None,
    };
    let queries = match (queries, &capture, inspection.clone()) {
        (Some(queries), Capture::On(redirect), Some(inspection)) => {
            let place = (Arc::clone(&beats), config.server.workers);
            Some(queries.serve(&config.capture.dns, redirect, inspection, place)?)
        }
        _ => None,
    };
    let decisions = match &mut capture {
        Capture::On(redirect) => redirect.decisions(),
        _ => None,
    };
    let (upgrades, asked_for) = mpsc::channel(1);
    let wishes = Wishes::new(asked_for)?;
    let predecessors = taking.as_ref().map_or_else(Vec::new, Taking::predecessors);
    let running = Arc::new(Running {
        proxy,
        admin: admin.address(),
        started: Instant::now(),
        admission: Admission::new(config.server.limits.connections, config.server.connections_per_client()),
        flows: Flows::collect(config.flows.keep, config.logging.clone())?,
        beats,
        acl: acl.clone(),
        policy: Arc::clone(&policy),
        auth: Arc::clone(&auth),
        capture: Mutex::new(capture),
        following: Following::new(),
        namespaces,
        targets: Arc::clone(&targets),
        cache: cache.clone(),
        executor: Executor::new(&config.cli)?,
        config: Arc::clone(&config),
        sources,
        reloading: Mutex::new(()),
        upgrades,
        handing_over: AtomicBool::new(false),
        predecessors: Predecessors::new(predecessors),
    });
    let (entering, phase) = watch::channel(if taking.is_some() { Phase::Starting } else { Phase::Serving });
    let giver = Arc::new(Giver::new(&running, entering, &explicit, &admin));
    let plan = Plan {
        config: Arc::clone(&config),
        acl,
        policy,
        auth,
        limits: Limits::new(),
        via: Pseudonym::new(random_seed()),
        cache,
        tls,
        acceptance: acceptance.clone(),
        interception: Interception::new(&config.tls).map(Arc::new),
        minter,
        admission: Arc::clone(&running.admission),
        upstreams: Common::new(&config.upstream, explicit.groups.len()),
        beats: Arc::clone(&running.beats),
        originals,
        dns: inspection,
        targets,
        phase: phase.clone(),
    };
    let (state_file, workers) = match &taking {
        // That of the running weir is there until its place is taken.
        Some(_) => (None, Workers::start(&plan, explicit.groups, transparent, doors)?),
        None => {
            let file = StateFile::write(&config.admin.state_dir, &running, &admin)?;
            (Some(file), Workers::start(&plan, explicit.groups, transparent, doors)?)
        }
    };
    let is_successor = taking.is_some();
    if let Some(taking) = taking {
        timeout(BEGIN, running.beats.begun()).await.map_err(|_| TakeError::NotBegun)?;
        handover::succeed(&taking, &running, rules, asked).await?;
        holder::watch(&running);
        giver.enter(Phase::Serving);
    } else {
        capture::start(&running, asked).await;
        admin::adopt_captured(&running);
    }
    let state_file = state_file.or_else(|| state_file::replace_old(&running, &admin));
    let admin = admin.serve(Arc::clone(&running), &phase);
    if !is_successor {
        // An earlier weir's programs refuse until then; without a beat, this one's would let through. A worker that never
        // begins is found out below.
        let _ = timeout(BEGIN, running.beats.begun()).await;
        // Nobody is answered before: this waits for nothing.
        holder::take_over(&running)?;
    }
    if let Some(decisions) = decisions {
        tokio::spawn(decisions::hand_out(decisions, Arc::clone(&running)));
    }
    let tasks = vec![
        tokio::spawn(sweep_closed(Arc::clone(&running))),
        tokio::spawn(rules::refresh(Arc::clone(&running))),
        tokio::spawn(rules::reload_on_hangup(hangup, Arc::clone(&running))),
        tokio::spawn(certificates::keep_current(acceptance)?),
        tokio::spawn(policy::keep_current(Arc::clone(&running))?),
        tokio::spawn(predecessors::watch(Arc::clone(&running))),
    ];
    announce(&running);
    supervisor::tell_ready();
    let served = Served { running, giver, workers, queries, admin, state_file, tasks };
    served.until_the_end(signals, wishes).await
}

/// What makes certificates for intercepted TLS; None where none is.
fn mint(settings: &config::Intercept) -> Result<Option<Arc<Minter>>, StartError> {
    if !settings.enabled {
        return Ok(None);
    }
    let authority = Authority::load_or_make(&settings.folder)?;
    Ok(Some(Arc::new(Minter::new(authority, settings.lifetime, settings.certificates)?)))
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

/// How long the threads may take to begin.
const BEGIN: Duration = Duration::from_secs(5);

const CLOSED_SWEEP: Duration = Duration::from_secs(2);

fn announce(running: &Running) {
    let proxy = running.proxy;
    tracing::info!("explicit proxy on http://{proxy}: try `curl -x http://{proxy} http://example.com/`");
    if matches!(*running.capture(), Capture::On(_)) {
        tracing::info!("capturing: try `weir exec -- curl http://example.com/`");
    }
}

/// As many descriptors as are allowed: a tunnel takes two, and two more while a pipe is in use.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, "can't raise the limit of open files");
    }
}

/// A number that differs from instance to instance. `RandomState` is seeded by the kernel.
fn random_seed() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    let hash = RandomState::new().hash_one(std::process::id());
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or_default()
}

/// Where a running weir's admin API listens, by default.
#[must_use]
pub fn default_admin_address() -> SocketAddr {
    let admin = Config::default().admin;
    SocketAddr::new(admin.host, admin.port)
}

/// The sockets where a weir is looked for: that of this user, and that of root.
#[must_use]
pub fn default_admin_sockets() -> [PathBuf; 2] {
    [Config::default().admin.socket_path(), "/run/weir/admin.sock".into()]
}
