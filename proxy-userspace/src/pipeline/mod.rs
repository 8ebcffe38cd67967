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

use std::sync::Arc;

use crate::cache::Cache;
use crate::config::Config;
use crate::http::forward::Pseudonym;
use crate::policy::acl::Acl;
use crate::relay;
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
}

impl Engine {
    fn relay_settings(&self) -> relay::Settings {
        relay::Settings {
            pipe_size: self.config.relay.pipe_size,
            idle: self.config.server.timeouts.tunnel_idle,
        }
    }
}
