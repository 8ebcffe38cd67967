//! Wiring: what is started in which order, and stopped in the reverse one.
//!
//! Start: sockets → kernel half loaded → workers → admin → captured → holder.
//! Stop: kernel half detached (new connections go direct) → no more accepts → drain → workers end.
//! Start: sockets → kernel half → state file → workers → cgroups of an earlier weir captured again → admin API.
//! Stop: kernel half detached (new connections go direct) → what is queued accepted, listeners closed → drain → workers
//! end. A worker that ends on its own stops weir, too: the heartbeat of those that are left is not that of a whole.

mod certificates;
mod decisions;
mod holder;
mod queries;
mod rules;
mod state_file;
mod store;
mod worker;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cache::store::disk::DiskError;
use crate::config::{CaptureMode, Config, Sources};
use crate::containers::{Namespaces, Targets};
use crate::dns::Inspection;
use crate::http::forward::Pseudonym;
use crate::net::admission::Admission;
use crate::net::listener;
use crate::policy::acl::Acl;
use crate::redirect::{Listeners, Redirect, RedirectError, RulesError};
use crate::running::{Beats, Capture, Following, Running};
use crate::telemetry::flows::Flows;
use crate::tls::client::{ClientTls, FileError};
use crate::tls::server::Acceptance;
use crate::upstream::Common;
use crate::{admin, capture};
use queries::{Queries, Thread};
use state_file::StateFile;
use worker::{Plan, Workers};

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
    #[error("TLS: {0}")]
    Tls(#[from] FileError),
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
    #[error("{0}; weir has stopped, as it can't go on without")]
    Worker(#[from] worker::WorkerError),
}

/// Runs weir until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`]; nothing is left behind then.
pub fn serve(config: Config, sources: Sources) -> Result<(), StartError> {
    raise_file_limit();
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = control.block_on(run(Arc::new(config), sources));
    // Whatever is still under way is of no use to anybody.
    control.shutdown_background();
    result
}

async fn run(config: Arc<Config>, sources: Sources) -> Result<(), StartError> {
    let mut signals = Signals::new()?;
    let tls = Arc::new(ClientTls::load(&config.upstream.tls)?);
    let acceptance = Acceptance::load(&config.server.tls)?.map(Arc::new);
    // From now on it doesn't end weir.
    let hangup = signal(SignalKind::hangup())?;
    let explicit = listen_explicit(&config)?;
    let proxy = local_address(&explicit)?;
    let transparent = Transparent::listen(&config)?;
    let admin = admin::Listeners::bind(&config.admin).await?;
    let queries = Queries::listen(&config.capture).map_err(StartError::Queries)?;
    let mut own = vec![proxy, admin.address()];
    own.extend(transparent.addresses());
    let acl = Acl::new(&config.security.acl.destinations, &own);

    let mut capture = start_capture(&config, &transparent, queries.as_ref())?;
    let (originals, heartbeat) = match &capture {
        Capture::On(redirect) => (Some(redirect.original_destinations()), Some(redirect.heartbeat())),
        _ => (None, None),
    };
    // Without the kernel half nobody is sent there; the sockets close here.
    let queries = queries.filter(|_| originals.is_some());
    let (targets, asked) = Targets::new(&config.capture.targets);
    let (namespaces, doors) = Namespaces::new(config.server.workers, queries.as_ref().map(Queries::doors));
    let cache = store::open(&config.cache)?;
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
    let running = Arc::new(Running {
        proxy,
        started: Instant::now(),
        admission: Admission::new(config.server.limits.connections, config.server.connections_per_client()),
        flows: Flows::collect(config.flows.keep, config.logging.clone())?,
        beats,
        acl: acl.clone(),
        capture: Mutex::new(capture),
        following: Following::new(),
        namespaces,
        targets: Arc::clone(&targets),
        cache: cache.clone(),
        config: Arc::clone(&config),
        sources,
        reloading: Mutex::new(()),
    });
    let (drain, draining) = watch::channel(false);
    let plan = Plan {
        config: Arc::clone(&config),
        acl,
        via: Pseudonym::new(random_seed()),
        cache,
        tls,
        acceptance: acceptance.clone(),
        admission: Arc::clone(&running.admission),
        upstreams: Common::new(&config.upstream, explicit.len()),
        beats: Arc::clone(&running.beats),
        originals,
        dns: inspection,
        targets,
        draining,
    };
    let state_file = StateFile::write(&config.admin.state_dir, &running, &admin)?;
    let workers = Workers::start(&plan, explicit, transparent, doors)?;
    capture::start(&running, asked).await;
    let admin = admin.serve(Arc::clone(&running));
    // An earlier weir's programs refuse until then; without a beat, this one's would let through. A worker that never
    // begins is found out below.
    let _ = timeout(BEGIN, running.beats.begun()).await;
    // Nobody is answered before: this waits for nothing.
    holder::take_over(&running)?;
    if let Some(decisions) = decisions {
        tokio::spawn(decisions::hand_out(decisions, Arc::clone(&running)));
    }
    let tasks = [
        tokio::spawn(sweep_closed(Arc::clone(&running))),
        tokio::spawn(rules::refresh(Arc::clone(&running))),
        tokio::spawn(rules::reload_on_hangup(hangup, Arc::clone(&running))),
        tokio::spawn(certificates::keep_current(acceptance)?),
    ];
    announce(&running);

    tokio::select! {
        () = signals.next() => {}
        () = workers.one_ended() => tracing::error!("a worker has ended"),
        () = Thread::ended(queries.as_ref()) => tracing::error!("the thread for DNS has ended"),
    }
    let drain_seconds = config.server.timeouts.drain.as_secs();
    tracing::info!(open = running.admission.open(), "stopping: open connections have {drain_seconds} s");
    let left_running = admin::release_captured(&running);
    // The receivers live in the workers; if all are gone, they have stopped already.
    let _ = drain.send(true);
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
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    admin.abort();
    // Programs that ended while their transfers were finished.
    admin::remove_empty(left_running);
    drop(state_file);
    tracing::info!("stopped");
    Ok(ended?)
}

fn listen_explicit(config: &Config) -> Result<Vec<TcpListener>, StartError> {
    let server = &config.server;
    let (host, range) = (server.host, &server.port_range);
    listener::listen_in_range(host, server.port, range, server.workers).map_err(|error| StartError::Listen {
        host,
        first: *range.start(),
        last: *range.end(),
        error,
    })
}

/// The sockets that captured connections arrive on: any free ports of loopback, as only the kernel half
/// needs to know them.
#[derive(Debug, Default)]
struct Transparent {
    v4: Vec<TcpListener>,
    v6: Vec<TcpListener>,
}

impl Transparent {
    fn listen(config: &Config) -> Result<Self, StartError> {
        if config.capture.mode == CaptureMode::Off {
            return Ok(Self::default());
        }
        let workers = config.server.workers;
        let v4 =
            listener::listen((Ipv4Addr::LOCALHOST, 0).into(), workers).map_err(StartError::Transparent)?;
        // A host may have no IPv6; then there is nothing of it to capture.
        let v6 = listener::listen((Ipv6Addr::LOCALHOST, 0).into(), workers).unwrap_or_default();
        Ok(Self { v4, v6 })
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        [&self.v4, &self.v6].into_iter().filter_map(|sockets| sockets.first()?.local_addr().ok())
    }
}

fn start_capture(
    config: &Config,
    transparent: &Transparent,
    queries: Option<&Queries>,
) -> Result<Capture, StartError> {
    if config.capture.mode == CaptureMode::Off {
        return Ok(Capture::Off);
    }
    let mut listeners = Listeners::default();
    if let Some(queries) = queries {
        queries.announce(&mut listeners);
    }
    for address in transparent.addresses() {
        match address {
            SocketAddr::V4(address) => listeners.v4 = Some(address),
            SocketAddr::V6(address) => listeners.v6 = Some(address),
        }
    }
    match Redirect::start(&config.capture, &listeners) {
        Ok(redirect) => Ok(Capture::On(Box::new(redirect))),
        Err(error) if config.capture.mode == CaptureMode::Required => Err(error.into()),
        // These are mistakes, and to serve without them could be dangerous.
        Err(RedirectError::Rules(error)) => Err(StartError::Rules(error)),
        Err(error) => {
            tracing::warn!("nothing is captured: {error}");
            Ok(Capture::Unavailable(error))
        }
    }
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

/// SIGTERM and SIGINT. One that arrives while nobody waits is kept for the next who does.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
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

fn local_address(listeners: &[TcpListener]) -> std::io::Result<SocketAddr> {
    listeners.first().ok_or(std::io::ErrorKind::AddrNotAvailable)?.local_addr()
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
