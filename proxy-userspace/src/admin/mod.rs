//! The admin API: what weir does and has done, over HTTP on loopback and on a Unix socket.
//!
//! Over TCP, which every local user can reach, it only tells how weir is. What changes something, and the flows,
//! which are about other users' programs too, are asked for over the Unix socket, where its file permissions say who
//! may, or with a token.

mod backends;
mod cache;
mod capture;
mod config;
mod contexts;
mod decisions;
mod execute;
mod existing;
mod explain;
mod explain_gateway;
mod flows;
mod guard;
mod health;
mod hook;
mod metrics;
mod object;
mod openapi;
mod policy;
mod problem;
mod proxy;
mod resources;
mod rules;
mod services;
mod status;
mod targets;
mod test;
mod token;
mod upgrade;

use std::fs::DirBuilder;
use std::io;
use std::net::{self, IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::extract::connect_info::Connected;
use axum::middleware::from_fn_with_state;
use axum::serve::IncomingStream;
use axum::{Extension, Router};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use capture::{adopt_existing as adopt_captured, release as release_captured, remove_empty};
pub use policy::reload as reload_policy;
pub use rules::none_left;
pub use token::{Secret, Token, TokenError};

use crate::config::{Admin, Config, Metrics};
use crate::netns;
use crate::running::{Phase, Running};
use resources::Resources;

/// Largest body of a request, in bytes.
const MAX_BODY: usize = 1 << 20;

/// The admin API's sockets, bound but not served yet.
#[derive(Debug)]
pub struct Listeners {
    tcp: TcpListener,
    address: SocketAddr,
    unix: UnixListener,
    socket: SocketFile,
    token: Token,
    /// A port for metrics alone.
    metrics: Option<TcpListener>,
}

/// Sockets of another weir, whose place this one takes; non-blocking already.
#[derive(Debug, Default)]
pub struct Taken {
    pub tcp: Option<net::TcpListener>,
    pub unix: Option<unix::net::UnixListener>,
}

/// The Unix socket's file; removed when dropped, if it is this weir's.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    is_ours: bool,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours {
            // Gone already is as good.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "can't listen on {address} for the admin API: {error}; is another weir running? \
         `weir status` tells, admin.port chooses another port"
    )]
    Tcp { address: SocketAddr, error: io::Error },
    #[error("can't listen on {address} for metrics: {error}; metrics.port chooses another port")]
    Metrics { address: SocketAddr, error: io::Error },
    #[error("can't listen on {} for the admin API: {error}; set admin.state_dir or admin.socket", .path.display())]
    Unix { path: PathBuf, error: io::Error },
    #[error("{} belongs to a weir that is running; stop it, or set admin.state_dir", .path.display())]
    Taken { path: PathBuf },
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Whether the token file would do.
///
/// # Errors
/// What is wrong with it.
pub fn check_token(admin: &Admin) -> Result<(), TokenError> {
    Secret::read(admin.token_file.as_deref()).map(drop)
}

impl Listeners {
    /// Binds both sockets, but for those that are `taken` over. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`ListenError`].
    pub async fn bind(config: &Config, taken: Taken) -> Result<Self, ListenError> {
        let admin = &config.admin;
        let token = Token::new(Secret::read(admin.token_file.as_deref())?);
        let address = SocketAddr::new(admin.host, admin.port);
        let tcp = |error| ListenError::Tcp { address, error };
        let listener = match taken.tcp {
            Some(listener) => TcpListener::from_std(listener).map_err(tcp)?,
            None => TcpListener::bind(address).await.map_err(tcp)?,
        };
        let address = listener.local_addr().map_err(tcp)?;
        let socket = admin.socket_path();
        let is_ours = taken.unix.is_none();
        let unix = match taken.unix {
            Some(unix) => UnixListener::from_std(unix)
                .map_err(|error| ListenError::Unix { path: socket.clone(), error })?,
            None => bind_unix(&socket).await?,
        };
        let metrics = bind_metrics(admin.host, config.metrics)?;
        let socket = SocketFile { path: socket, is_ours };
        Ok(Self { tcp: listener, address, unix, socket, token, metrics })
    }

    /// Of TCP, and of the Unix socket.
    #[must_use]
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.tcp.as_fd(), self.unix.as_fd()]
    }

    /// What callers over TCP have to know.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token.clone()
    }

    /// The TCP address in use.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves both sockets until the handle is aborted, or another weir has taken this one's place.
    pub fn serve(mut self, running: Arc<Running>, phase: &watch::Receiver<Phase>) -> Serving {
        // If it was another weir's, that one has left it by now.
        self.socket.is_ours = true;
        let replaced = Replaced(phase.clone());
        let allowed = guard::AllowedHosts::of(self.address);
        let served = |resources: Resources| resources.into_parts().0;
        let whole = |routes: Router<Arc<Running>>| {
            routes
                .fallback(problem::no_such_resource)
                .method_not_allowed_fallback(problem::no_such_method)
                .layer(DefaultBodyLimit::max(MAX_BODY))
                .layer(Extension(replaced.clone()))
        };
        let for_all = || served(questions().merge(documents()));
        let with_token = served(for_owner()).layer(from_fn_with_state(self.token, token::check));
        let tcp = whole(for_all().merge(with_token).merge(served(upgrade::refused())))
            .layer(from_fn_with_state(allowed, guard::check))
            .with_state(Arc::clone(&running));
        let metrics = self.metrics.take().map(|listener| {
            let address = listener.local_addr().unwrap_or(self.address);
            tracing::info!("metrics on http://{address}/metrics");
            let serving = axum::serve(listener, metrics::alone(address, Arc::clone(&running)));
            let serving = serving.with_graceful_shutdown(replaced.clone().wait());
            tokio::spawn(async move { report(serving.await) })
        });
        let unix =
            whole(for_all().merge(served(for_owner())).merge(served(upgrade::changes()))).with_state(running);
        Serving {
            tasks: [
                tokio::spawn({
                    let tcp = tcp.into_make_service_with_connect_info::<Caller>();
                    let serving = axum::serve(self.tcp, tcp).with_graceful_shutdown(replaced.clone().wait());
                    async move { report(serving.await) }
                }),
                tokio::spawn({
                    let unix = unix.into_make_service_with_connect_info::<Caller>();
                    let serving = axum::serve(self.unix, unix).with_graceful_shutdown(replaced.wait());
                    async move { report(serving.await) }
                }),
            ]
            .into_iter()
            .chain(metrics)
            .collect(),
            socket: self.socket,
        }
    }
}

/// The API being served.
#[derive(Debug)]
pub struct Serving {
    tasks: Vec<JoinHandle<()>>,
    socket: SocketFile,
}

impl Serving {
    /// Leaves serving to the weir that has taken this one's place: what was asked here is answered here. Its socket may be
    /// at the same place.
    pub fn leave(mut self, keeps_socket: bool) {
        self.socket.is_ours = !keeps_socket;
    }

    /// Stops serving and removes the socket file.
    pub fn abort(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Knows when another weir has taken this one's place.
#[derive(Debug, Clone)]
struct Replaced(watch::Receiver<Phase>);

impl Replaced {
    async fn wait(mut self) {
        // An error means that weir is gone altogether.
        drop(self.0.wait_for(|phase| matches!(phase, Phase::Replaced { .. })).await);
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
struct Caller {
    /// The process that connected; None over TCP, if the kernel doesn't tell, or where it lives in a pid namespace that
    /// weir can't see.
    pid: Option<u32>,
    /// It lives in weir's own network namespace, as far as the kernel tells (Linux 5.14).
    is_at_home: bool,
}

impl Connected<IncomingStream<'_, TcpListener>> for Caller {
    fn connect_info(_: IncomingStream<'_, TcpListener>) -> Self {
        Self { pid: None, is_at_home: false }
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let pid = stream.io().peer_cred().ok().and_then(|caller| caller.pid());
        let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
        // The accepted end of a Unix socket is of the namespace of the one that connected.
        let is_at_home = netns::is_of_this_thread(stream.io().as_fd());
        Self { pid, is_at_home }
    }
}

/// What everybody may ask. A resource is a file and a line here or below.
fn questions() -> Resources {
    Resources::new()
        .merge(status::routes())
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(explain::routes())
        .merge(capture::questions())
        .merge(cache::questions())
        .merge(policy::questions())
        .merge(proxy::questions())
        .merge(backends::questions())
}

/// What changes something, and what tells where everybody's programs went: on the Unix socket, and for a token.
fn for_owner() -> Resources {
    Resources::new()
        .merge(capture::changes())
        .merge(rules::changes())
        .merge(targets::changes())
        .merge(hook::changes())
        .merge(existing::for_owner())
        .merge(decisions::routes())
        .merge(policy::changes())
        .merge(contexts::changes())
        .merge(services::changes())
        .merge(config::for_owner())
        .merge(proxy::changes())
        .merge(flows::routes())
        .merge(execute::changes())
        .merge(test::changes())
        .merge(cache::for_owner())
        .merge(backends::changes())
        .for_owner()
}

/// What tells of the whole API.
fn documents() -> Resources {
    openapi::documents(questions().merge(for_owner()).merge(upgrade::changes().for_owner()))
}

/// Two weirs have it while one takes the other's place.
fn bind_metrics(host: IpAddr, wanted: Metrics) -> Result<Option<TcpListener>, ListenError> {
    if !wanted.enabled {
        return Ok(None);
    }
    let address = SocketAddr::new(host, wanted.port);
    let bind = || {
        let socket = if host.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        socket.listen(METRICS_BACKLOG)
    };
    bind().map(Some).map_err(|error| ListenError::Metrics { address, error })
}

/// Scrapers that may wait.
const METRICS_BACKLOG: u32 = 64;

async fn bind_unix(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |error| ListenError::Unix { path: path.to_owned(), error };
    if let Some(folder) = path.parent() {
        make_folder(folder).map_err(failed)?;
    }
    if let Ok(present) = std::fs::symlink_metadata(path) {
        if !present.file_type().is_socket() {
            return Err(failed(io::Error::other("something is there that is no socket")));
        }
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(ListenError::Taken { path: path.to_owned() });
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Makes the folder for weir's state, for its owner alone to change.
fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    // In a folder that others may write to, somebody may have made it first.
    let owner = std::fs::metadata(folder)?.uid();
    let user = nix::unistd::geteuid();
    if owner != user.as_raw() && !user.is_root() {
        return Err(io::Error::other(format!("{} belongs to user {owner}", folder.display())));
    }
    Ok(())
}

fn report(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::error!(%error, "the admin API stopped");
    }
}
