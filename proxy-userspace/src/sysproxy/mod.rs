//! The proxy that this system uses: snapshot → configure → restore.
//!
//! What is changed is written down before anything is changed (`state`), and given back exactly: on the way out, and by the
//! guardian (`guardian`), a small process that outlives weir, when there was none. What somebody else changes meanwhile is
//! theirs; it is kept, and told. A backend is a file here and a line in [`BACKENDS`].
//!
//! Nothing here knows what runs: whoever asks says where the proxy listens.

mod apt;
mod backend;
mod client;
mod command;
mod docker;
mod environment;
mod files;
mod gnome;
mod guardian;
mod interface;
mod kde;
mod keeper;
mod lines;
mod networkmanager;
mod restoring;
mod session;
mod state;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Config, SystemBackend};

pub use client::{Client, Guardian};
pub use guardian::guard;
pub use restoring::restore;

use backend::Backend;

/// In the order in which they are asked.
const BACKENDS: &[&dyn Backend] = &[
    &gnome::Gnome,
    &kde::Kde,
    &networkmanager::NetworkManager,
    &environment::Environment,
    &apt::Apt,
    &docker::Docker,
];

/// Those of a desktop, which are found without being named.
const FOUND: [&str; 3] = ["gnome", "kde", "networkmanager"];

/// What the guardian is told at its start. Nobody can tell it anything else later: it may have more privileges than weir.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Backends, or `auto`.
    pub backends: Vec<String>,
    pub user: Option<String>,
    pub pac: bool,
    pub no_proxy: Vec<String>,
    pub environment_file: Option<PathBuf>,
    pub apt_file: PathBuf,
    pub docker_file: Option<PathBuf>,
    pub state_dir: PathBuf,
    /// Where a proxy may be, beside loopback addresses.
    pub host: IpAddr,
}

impl Settings {
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let system = &config.system_proxy;
        let name = |backend: &SystemBackend| match backend {
            SystemBackend::Auto => AUTO.to_owned(),
            SystemBackend::Named(name) => (*name).to_owned(),
        };
        Self {
            backends: system.backends.iter().map(name).collect(),
            user: system.user.clone(),
            // Without the file there is none to name.
            pac: system.pac && config.server.pac,
            no_proxy: system.no_proxy.clone(),
            environment_file: system.environment_file.clone(),
            apt_file: system.apt_file.clone(),
            docker_file: system.docker_file.clone(),
            state_dir: system.state_dir.clone(),
            host: config.server.host,
        }
    }

    /// Whether a backend is wanted by its name, so that to do without it is a failure.
    fn names(&self, backend: &str) -> bool {
        self.backends.iter().any(|name| name == backend)
    }

    fn wants(&self, backend: &str) -> bool {
        self.names(backend) || FOUND.contains(&backend) && self.names(AUTO)
    }
}

const AUTO: &str = "auto";

/// The system uses weir.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configured {
    /// That of the default route, or the one asked for. None: none was found.
    pub interface: Option<String>,
    pub proxy_target: String,
    /// What there was before, for people and programs; what is needed to restore it is in `state.json`.
    pub original_state: Value,
    pub backends: Vec<String>,
    pub warnings: Vec<String>,
}

/// The system does not use weir any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    pub interface: Option<String>,
    pub restored_to: Value,
    /// What somebody else has changed meanwhile, and what was not there any more.
    pub warnings: Vec<String>,
}

/// Why nothing was done.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
pub enum Refused {
    #[error("the system's proxy is weir already ({0}); unconfigure it first")]
    AlreadyOurs(String),
    #[error("the system's proxy was not set by weir")]
    NotOurs,
    #[error("the explicit proxy does not listen: start it first (POST /proxy/start)")]
    NotRunning,
    #[error("there is no network interface `{0}` on this machine")]
    NoInterface(String),
    #[error("{0}")]
    Failed(String),
}

/// Where programs of this machine reach a proxy that listens there.
#[must_use]
pub fn reached_at(proxy: SocketAddr) -> SocketAddr {
    let mut reached = proxy;
    if proxy.ip().is_unspecified() {
        reached.set_ip(match proxy {
            SocketAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    reached
}
