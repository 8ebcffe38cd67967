//! What weir consists of, and which part knows which: sockets, the kernel half, and what the parts share. Only DNS is
//! served from here on, as its thread has to beat before the kernel half sends anybody anywhere; all else begins in
//! `beginning`.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::StartError;
use super::handover::{Giver, Taking};
use super::queries::{Queries, Thread};
use super::serving::Wishes;
use super::sockets::{self, Explicit};
use super::store;
use super::worker::Plan;
use crate::admin;
use crate::config::{self, Config, Loaded, Sources};
use crate::containers::{Asked, CaptureListeners, Door, Namespaces, Targets};
use crate::dns::Inspection;
use crate::execute::Executor;
use crate::http::forward::Pseudonym;
use crate::net::admission::Admission;
use crate::policy::Policy;
use crate::policy::acl::Acl;
use crate::policy::auth::Auth;
use crate::policy::current::Shared;
use crate::policy::interception::Interception;
use crate::policy::limits::Limits;
use crate::redirect::{Decisions, OriginalDestinations, Rules};
use crate::route::Table;
use crate::running::{Beats, Capture, Following, Live, Phase, Predecessors, Running, Wish};
use crate::services::Services;
use crate::telemetry::flows::Flows;
use crate::tls::authority::Authority;
use crate::tls::client::ClientTls;
use crate::tls::minting::Minter;
use crate::tls::server::Acceptance;
use crate::upstream::Common;

/// All parts, none of which has begun.
pub(super) struct Wired {
    pub(super) running: Arc<Running>,
    pub(super) giver: Arc<Giver>,
    pub(super) plan: Plan,
    /// The workers' listeners.
    pub(super) explicit: Explicit,
    pub(super) transparent: CaptureListeners,
    pub(super) inside: Vec<mpsc::Receiver<Door>>,
    pub(super) admin: admin::Listeners,
    pub(super) queries: Option<Thread>,
    pub(super) decisions: Option<Decisions>,
    /// Those that are to hold once the place of a running weir is taken.
    pub(super) rules: Option<Rules>,
    /// Who asks for a look at the targets.
    pub(super) asked: mpsc::Receiver<Asked>,
    pub(super) wishes: Wishes,
    /// What is asked of the task that changes what runs.
    pub(super) asked_to_change: mpsc::Receiver<Wish>,
    /// weir's listeners, but for the explicit proxy.
    pub(super) own: Vec<SocketAddr>,
}

/// In the order of what may fail: first what is read, then what is opened, then what the kernel is told.
pub(super) async fn wire(
    loaded: Loaded,
    sources: Sources,
    mut taking: Option<&mut Taking>,
) -> Result<Wired, StartError> {
    let (config, effective) = (Arc::new(loaded.config), Arc::new(loaded.effective));
    let tls = Arc::new(ClientTls::load(&config.upstream.tls)?);
    let acceptance = Acceptance::load(&config.server.tls)?.map(Arc::new);
    let minter = mint(&config.tls.intercept)?;
    let policy = Shared::new(Policy::load(&config.security)?);
    let limits = Limits::new(&config.security.shared_limits).map_err(StartError::Limits)?;
    let services = Arc::new(Services::new(&config.services).map_err(StartError::Services)?);
    let (sockets, queries) = Sockets::open(&config, taking.as_deref_mut()).await?;
    let own = sockets.addresses();
    let acl = Acl::new(
        &config.security.acl.destinations,
        &[&own[..], sockets.explicit.address.as_slice()].concat(),
    );
    let Sockets { explicit, transparent, admin } = sockets;
    let kernel = Kernel::start(
        &config,
        explicit.address.or_else(|| expected(&config)),
        &transparent,
        queries,
        taking.as_deref_mut(),
    )?;
    let (targets, asked) = Targets::new(&config.capture.targets);
    let cache = store::open(&config.cache, taking.as_deref_mut().and_then(Taking::cache_lock))?;
    let (upgrades, asked_for) = mpsc::channel(1);
    let (asking, asked_to_change) = mpsc::channel(1);
    let routes = Arc::new(Table::new(&config, None));
    let live = Live { config: Arc::clone(&config), effective, proxy: explicit.address, acl, routes };
    let running = Arc::new(Running {
        live: Shared::new(live),
        admin: admin.address(),
        started: Instant::now(),
        admission: Admission::new(config.server.limits.connections, config.server.connections_per_client()),
        flows: Flows::collect(config.flows.keep, &config.logging)?,
        beats: kernel.beats,
        policy,
        auth: Auth::new(),
        capture: Mutex::new(kernel.capture),
        following: Following::new(),
        namespaces: kernel.namespaces,
        targets,
        services,
        cache,
        commands: RwLock::new(Executor::new(&config.cli)?.map(Arc::new)),
        sources,
        reloading: tokio::sync::Mutex::default(),
        reloads: Mutex::default(),
        wishes: asking,
        system_proxy: super::system_proxy::client(&config, taking.as_deref_mut().and_then(Taking::guardian)),
        upgrades,
        handing_over: AtomicBool::new(false),
        predecessors: Predecessors::new(taking.as_deref().map_or_else(Vec::new, Taking::predecessors)),
    });
    let (entering, phase) = watch::channel(if taking.is_some() { Phase::Starting } else { Phase::Serving });
    let known = (kernel.originals, kernel.inspection);
    let plan = plan(&running, (tls, acceptance, minter), limits, known, explicit.groups.len(), phase);
    Ok(Wired {
        giver: Arc::new(Giver::new(&running, entering, &explicit, &admin)),
        plan,
        running,
        explicit,
        transparent,
        inside: kernel.inside,
        admin,
        queries: kernel.queries,
        decisions: kernel.decisions,
        rules: kernel.rules,
        asked,
        wishes: Wishes::new(asked_for)?,
        asked_to_change,
        own,
    })
}

/// Where a stopped proxy would listen, if nobody else does by then.
fn expected(config: &Config) -> Option<SocketAddr> {
    (config.server.port != 0).then(|| SocketAddr::new(config.server.host, config.server.port))
}

/// What the workers are given, out of what the control plane has.
fn plan(
    running: &Running,
    (tls, acceptance, minter): (Arc<ClientTls>, Option<Arc<Acceptance>>, Option<Arc<Minter>>),
    limits: Arc<Limits>,
    (originals, dns): (Option<OriginalDestinations>, Option<Inspection>),
    workers: usize,
    phase: watch::Receiver<Phase>,
) -> Plan {
    let live = running.live();
    Plan {
        config: Arc::clone(&live.config),
        acl: live.acl.clone(),
        policy: Arc::clone(&running.policy),
        auth: Arc::clone(&running.auth),
        limits,
        via: Pseudonym::new(random_seed()),
        cache: running.cache.clone(),
        tls,
        acceptance,
        interception: Interception::new(&live.config.tls).map(Arc::new),
        minter,
        routes: Arc::clone(&live.routes),
        admission: Arc::clone(&running.admission),
        upstreams: Common::new(&live.config.upstream, workers),
        beats: Arc::clone(&running.beats),
        originals,
        dns,
        targets: Arc::clone(&running.targets),
        services: Arc::clone(&running.services),
        phase,
    }
}

/// What makes certificates for intercepted TLS; None where none is.
fn mint(settings: &config::Intercept) -> Result<Option<Arc<Minter>>, StartError> {
    if !settings.enabled {
        return Ok(None);
    }
    let authority = Authority::load_or_make(&settings.folder)?;
    Ok(Some(Arc::new(Minter::new(authority, settings.lifetime, settings.certificates)?)))
}

/// What is listened to.
struct Sockets {
    explicit: Explicit,
    transparent: CaptureListeners,
    admin: admin::Listeners,
}

impl Sockets {
    async fn open(
        config: &Config,
        mut taking: Option<&mut Taking>,
    ) -> Result<(Self, Option<Queries>), StartError> {
        let explicit = Explicit::listen(config, taking.as_deref_mut())?;
        let transparent = sockets::listen_for_captured(config)?;
        let taken = taking.map(|taking| taking.admin(&config.admin)).unwrap_or_default();
        let admin = admin::Listeners::bind(config, taken).await?;
        let queries = Queries::listen(&config.capture).map_err(StartError::Queries)?;
        Ok((Self { explicit, transparent, admin }, queries))
    }

    /// Where nobody is to be led by weir, but for the explicit proxy.
    fn addresses(&self) -> Vec<SocketAddr> {
        let mut own = vec![self.admin.address()];
        own.extend(self.transparent.addresses());
        own
    }
}

/// The kernel half, and what goes with it.
struct Kernel {
    capture: Capture,
    rules: Option<Rules>,
    originals: Option<OriginalDestinations>,
    decisions: Option<Decisions>,
    inspection: Option<Inspection>,
    queries: Option<Thread>,
    beats: Arc<Beats>,
    namespaces: Arc<Namespaces>,
    inside: Vec<mpsc::Receiver<Door>>,
}

impl Kernel {
    fn start(
        config: &Config,
        explicit: Option<SocketAddr>,
        transparent: &CaptureListeners,
        queries: Option<Queries>,
        taking: Option<&mut Taking>,
    ) -> Result<Self, StartError> {
        let workers = config.server.workers;
        let (mut capture, rules) =
            sockets::start_capture(config, explicit, transparent, queries.as_ref(), taking)?;
        let Capture::On(redirect) = &mut capture else {
            // Without the kernel half nobody asks weir for names: those sockets close here.
            let (namespaces, inside) = Namespaces::new(workers, None);
            let beats = Beats::new(workers, None);
            let (originals, decisions, inspection, queries) = (None, None, None, None);
            return Ok(Self {
                capture,
                rules,
                originals,
                decisions,
                inspection,
                queries,
                beats,
                namespaces,
                inside,
            });
        };
        let (originals, decisions) = (Some(redirect.original_destinations()), redirect.decisions());
        let (namespaces, inside) = Namespaces::new(workers, queries.as_ref().map(Queries::doors));
        let beats = Beats::new(workers + usize::from(queries.is_some()), Some(redirect.heartbeat()));
        let inspects = queries.is_some();
        let inspection = inspects.then(|| Inspection::new(&config.capture.dns, redirect.names()));
        let queries = match (queries, inspection.clone()) {
            (Some(queries), Some(inspection)) => {
                let place = (Arc::clone(&beats), workers);
                Some(queries.serve(&config.capture.dns, redirect, inspection, place)?)
            }
            _ => None,
        };
        Ok(Self { capture, rules, originals, decisions, inspection, queries, beats, namespaces, inside })
    }
}

/// A number that differs from instance to instance. `RandomState` is seeded by the kernel.
fn random_seed() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    let hash = RandomState::new().hash_one(std::process::id());
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or_default()
}
