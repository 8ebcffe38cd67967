//! What is started in which order, and stopped in the reverse one.
//!
//! Start (`wiring`, then `beginning`): sockets → kernel half → state file → workers → cgroups of an earlier weir captured again → admin API.
//! Stop (`serving`): kernel half detached (new connections go direct) → what is queued accepted, listeners closed → drain → workers
//! end. A worker that ends on its own stops weir, too: the heartbeat of those that are left is not that of a whole.

mod beginning;
mod certificates;
pub mod check;
mod checks;
mod control;
mod decisions;
pub mod handover;
mod holder;
mod orders;
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
mod system_proxy;
mod wiring;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use crate::admin;
use crate::cache::store::disk::DiskError;
use crate::config::{Config, Loaded, Sources};
use crate::execute::UserError;
use crate::policy::PolicyError;
use crate::redirect::{RedirectError, RulesError};
use crate::tls::authority::AuthorityError;
use crate::tls::client::FileError;
use crate::tls::minting::MintError;
use handover::{TakeError, Taking};
use serving::Signals;

pub use privileges::give_up_privileges;
pub use system_proxy::prepare as prepare_system_proxy;

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
    #[error("{0}")]
    Policy(#[from] PolicyError),
    #[error("security.rate_limiting.redis: no thread for it: {0}")]
    Limits(std::io::Error),
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
    #[error("the running weir captures, and this one could not: {0}")]
    WouldNotCapture(RedirectError),
    #[error("{0}")]
    Rules(RulesError),
    #[error("{0}")]
    Services(String),
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
pub fn serve(loaded: Loaded, sources: Sources, take_over: bool) -> Result<(), StartError> {
    raise_file_limit();
    leave_no_core_file();
    let taking = if take_over { Taking::begin()? } else { None };
    let voice = taking.as_ref().map(Taking::voice).transpose()?;
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = control.block_on(run(loaded, sources, taking));
    // Whatever is still under way is of no use to anybody.
    control.shutdown_background();
    if let (Some(voice), Err(error)) = (voice, &result) {
        handover::tell_failure(&voice, &error.to_string());
    }
    result
}

async fn run(loaded: Loaded, sources: Sources, mut taking: Option<Taking>) -> Result<(), StartError> {
    let signals = Signals::new()?;
    // From now on it doesn't end weir.
    let hangup = signal(SignalKind::hangup())?;
    let wired = wiring::wire(loaded, sources, taking.as_mut()).await?;
    let (served, wishes) = beginning::begin(wired, taking, hangup).await?;
    served.until_the_end(signals, wishes).await
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

/// What weir holds (keys, passwords, other people's content) is not to be left in a file, or to be given to whoever collects
/// such files: at a limit of 1 byte Linux makes neither (fs/coredump.c). A debugger can still be attached.
fn leave_no_core_file() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let limited = getrlimit(Resource::RLIMIT_CORE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_CORE, hard.min(1), hard));
    if let Err(error) = limited {
        tracing::warn!(%error, "can't forbid core files");
    }
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
