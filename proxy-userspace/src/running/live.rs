//! What changes while weir runs: the configuration in force, and where the explicit proxy listens.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::config::{Config, Effective};
use crate::policy::acl::Acl;
use crate::route::Table;

/// Replaced as a whole.
#[derive(Debug)]
pub struct Live {
    pub config: Arc<Config>,
    /// As it was read last, with what only holds from the next start on.
    pub effective: Arc<Effective>,
    /// Where the explicit proxy listens; None while it is stopped.
    pub proxy: Option<SocketAddr>,
    pub acl: Acl,
    pub routes: Arc<Table>,
}

/// What has become of the configuration since the start.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Reloads {
    /// How often it was read again and put in force.
    pub reloads: u64,
    /// How often it was wrong, and the one in force stayed.
    pub failures: u64,
    /// What was wrong the last time; null if nothing was.
    pub last_error: Option<String>,
    /// Keys whose values were changed, and hold from the next start on.
    pub needs_restart: Vec<String>,
}

/// What is asked of the one task that changes what runs.
#[derive(Debug)]
pub enum Wish {
    /// To read the configuration again.
    Reload(oneshot::Sender<Result<Reloaded, NotReloaded>>),
    /// To have the explicit proxy listen: where it is said, else where the configuration says.
    Start { port: Option<u16>, host: Option<IpAddr>, answer: oneshot::Sender<Result<SocketAddr, NotStarted>> },
    /// To have it listen no more. What it has open goes on to its end.
    Stop(oneshot::Sender<()>),
}

/// A configuration that was put in force.
#[derive(Debug, Clone, Serialize)]
pub struct Reloaded {
    /// Keys with other values than before.
    pub changed: Vec<String>,
    /// Those of them that hold from the next start on.
    pub needs_restart: Vec<String>,
    pub warnings: Vec<String>,
}

/// Why the configuration in force stays.
#[derive(Debug, thiserror::Error)]
#[error("{0}; the configuration in force stays")]
pub struct NotReloaded(pub String);

/// Why the explicit proxy does not listen there.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    #[error("it listens on {0} already; stop it before you start it elsewhere")]
    Elsewhere(SocketAddr),
    #[error(
        "{0} is no loopback address, and would open the proxy to others; set server.host to it if that is what you want"
    )]
    Open(IpAddr),
    #[error(
        "the kernel half was told another place ({}), and programs that it refuses could pass by this one; start it there, \
         or `weir upgrade` after a change of server.host, server.port and server.port_range",
        .0.map_or_else(|| "none".to_owned(), |address| address.to_string())
    )]
    Unknown(Option<SocketAddr>),
    #[error("can't listen on {address}: {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
}
