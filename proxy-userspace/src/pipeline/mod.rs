//! The way of a request, once a front knows where it goes: policy, filters, cache, route, upstream, relay,
//! record. [`request`] and [`tunnel`] read as that straight line.

mod caching;
mod exchange;
pub mod failure;
mod hop;
mod recording;
pub mod request;
mod respond;
mod response;
mod sending;
pub mod side;
pub mod tunnel;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::cache::Cache;
use crate::config::Config;
use crate::http::forward::Pseudonym;
use crate::policy::acl::{Acl, Denied};
use crate::relay;
use crate::route;
use crate::target::Hop;
use crate::tls::server::Acceptance;
use crate::upstream::Upstream;

/// What one worker needs to serve requests.
#[derive(Debug)]
pub struct Engine {
    pub config: Arc<Config>,
    pub acl: Acl,
    pub via: Pseudonym,
    pub upstream: Upstream,
    /// Shared by all workers; None where nothing is cached.
    pub cache: Option<Arc<Cache>>,
    pub routes: route::Table,
    /// For TLS with clients, where that is configured.
    pub acceptance: Option<Arc<Acceptance>>,
}

impl Engine {
    /// Whether an address may be connected to as this hop.
    fn allow(&self, hop: &Hop, address: SocketAddr) -> Result<(), Denied> {
        match hop {
            Hop::Backend(_) => self.acl.check_named(address),
            Hop::Authority(..) | Hop::Address(..) => self.acl.check(address),
        }
    }

    fn relay_settings(&self) -> relay::Settings {
        relay::Settings {
            pipe_size: self.config.relay.pipe_size,
            socket_buffer: self.config.relay.socket_buffer,
            idle: self.config.server.timeouts.tunnel_idle,
        }
    }
}
