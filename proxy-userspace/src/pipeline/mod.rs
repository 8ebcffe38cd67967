//! The way of a request, once a front knows where it goes: policy, filters, cache, route, upstream, relay,
//! record. [`request`] and [`tunnel`] read as that straight line.

mod additions;
mod attempt;
mod balanced;
mod caching;
#[cfg(feature = "compression")]
mod compression;
pub mod dns;
mod engines;
mod exchange;
pub mod failure;
mod form;
mod hop;
pub mod identify;
mod inspecting;
pub mod interception;
mod judge;
mod max_forwards;
#[cfg(not(feature = "compression"))]
mod no_compression;
mod recording;
mod replacing;
mod replay;
pub mod request;
mod respond;
mod response;
pub mod rewriting;
mod sending;
pub mod serving;
pub mod side;
pub mod tunnel;
mod upgrades;

#[cfg(not(feature = "compression"))]
use no_compression as compression;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Weak;
use std::sync::Arc;

use crate::cache::Cache;
use crate::config::Config;
use crate::dns::Inspection;
use crate::http::authority::{Authority, Host};
use crate::http::forward::Pseudonym;
use crate::net::pacing::Pace;
use crate::policy::acl::Acl;
use crate::policy::auth::{Auth, Identity};
use crate::policy::current::Follower;
use crate::policy::interception::Interception;
use crate::policy::limits::Limits;
use crate::policy::{Policy, Subject};
use crate::relay;
use crate::route;
use crate::services;
use crate::target::{Client, Hop};
use crate::tls::minting::Minter;
use crate::tls::server::Acceptance;
use crate::upstream::{Addresses, Upstream};
pub use engines::Engines;
use failure::Failure;

/// What one worker needs to serve requests.
#[derive(Debug)]
pub struct Engine {
    pub config: Arc<Config>,
    pub acl: Acl,
    pub policy: Follower<Policy>,
    /// Who clients can be; shared by all workers.
    pub auth: Arc<Auth>,
    pub limits: Arc<Limits>,
    pub via: Pseudonym,
    pub upstream: Upstream,
    /// Shared by all workers; None where nothing is cached.
    pub cache: Option<Arc<Cache>>,
    /// Shared by all workers.
    pub routes: Arc<route::Table>,
    /// Apps that the gateway serves.
    pub services: Follower<services::Table>,
    /// For DNS of captured processes, where that is captured.
    pub dns: Option<Inspection>,
    /// For TLS with clients, where that is configured.
    pub acceptance: Option<Arc<Acceptance>>,
    /// Which TLS is looked at, or intercepted; None where none is. Shared by all workers.
    pub interception: Option<Arc<Interception>>,
    /// Makes the certificates for that.
    pub minter: Option<Arc<Minter>>,
    /// Where the engine is found that takes this one's place.
    pub place: Weak<Engines>,
}

impl Engine {
    /// The addresses of a hop, each of which may be connected to.
    async fn addresses(&self, hop: &Hop, subject: &Subject<'_>) -> Result<Addresses, Failure> {
        if let Hop::Parent { authority, .. } = hop {
            self.check_behind(authority, subject)?;
        }
        let policy = self.policy.current();
        // What either refuses is refused, what either lifts is lifted.
        let check = |address| {
            let lifted = policy.check_address(subject, address)?;
            let own = subject.own_policy().map(|own| own.check_address(subject, address)).transpose()?;
            Ok::<_, Failure>(lifted || own == Some(true))
        };
        let allow = |address| {
            let named = match hop {
                // What is asked for behind it has been judged.
                Hop::Parent { .. } => true,
                Hop::Backend(_) => {
                    check(address)?;
                    true
                }
                Hop::Service(way) => {
                    check(address)?;
                    // In another network namespace, an address that is weir's own here is somebody else's.
                    if way.vantage.namespace.is_some() {
                        return Ok(());
                    }
                    true
                }
                Hop::Authority(..) | Hop::Address(..) => check(address)?,
            };
            let checked = if named { self.acl.check_named(address) } else { self.acl.check(address) };
            checked.map_err(Failure::Denied)
        };
        Ok(self.upstream.addresses(hop, allow).await?)
    }

    /// Whether a rule lets this client reach an address that its class would keep it from.
    fn lifts(&self, subject: &Subject<'_>, address: SocketAddr) -> bool {
        let policy = self.policy.current().check_address(subject, address);
        let own = subject.own_policy().map(|own| own.check_address(subject, address));
        match (policy, own) {
            (Err(_), _) | (_, Some(Err(_))) => false,
            (Ok(lifted), own) => lifted || matches!(own, Some(Ok(true))),
        }
    }

    /// What a parent proxy is asked for it resolves itself; what can be told without that is checked here.
    fn check_behind(&self, authority: &Authority, subject: &Subject<'_>) -> Result<(), Failure> {
        let address = match &authority.host {
            Host::Address(address) => *address,
            Host::Name(name) if is_local(name) => IpAddr::from(Ipv4Addr::LOCALHOST),
            Host::Name(_) => return Ok(()),
        };
        let address = SocketAddr::new(address, authority.port);
        if self.policy.current().check_address(subject, address)? {
            return Ok(());
        }
        self.acl.check(address).map_err(Failure::Denied)
    }

    /// What a client's connections keep to: what it sends, and what it gets.
    fn paces(&self, client: &Client, identity: Option<&Identity>) -> (Option<Pace>, Option<Pace>) {
        self.limits.paces(&self.policy.current().rate, client, identity)
    }

    /// How tunnels are relayed.
    #[must_use]
    pub fn relay_settings(&self) -> relay::Settings {
        relay::Settings {
            pipe_size: self.config.relay.pipe_size,
            socket_buffer: self.config.relay.socket_buffer,
            idle: self.config.server.timeouts.tunnel_idle,
        }
    }
}

/// RFC 6761 §6.3: names that are always this machine.
fn is_local(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}
