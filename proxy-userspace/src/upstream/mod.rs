//! The way out: names to addresses, addresses to connections, connections used again. Which addresses may be
//! used is for the caller to say; which bytes go over them as well.

mod backoff;
mod connect;
pub mod dns;
mod http2;
mod parent;
mod pool;
mod secure;
mod turns;

pub use backoff::Backoff;
pub use connect::ConnectError;
pub use http2::{Place, Speaks, Way};
pub use parent::{NoPassage, Through, basic};
pub use pool::Idle;
pub use secure::Insecure;
pub use turns::{NoTurn, Turn};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::config::{self, ParentKind};
use crate::http::authority::{Authority, Host, Scheme};
use crate::net::transport::Transport;
use crate::target::{Hop, Vantage};
use crate::telemetry::flow::micros;
use crate::telemetry::metrics;
use crate::tls::client::ClientTls;
use connect::connect_any;
use dns::Resolver;
use pool::{Key, Pool};
use secure::secure;
use turns::Turns;

/// One worker's way out.
#[derive(Debug)]
pub struct Upstream {
    settings: config::Upstream,
    tls: Arc<ClientTls>,
    resolver: Resolver,
    common: Arc<Common>,
    worker: usize,
}

/// What the ways out of all workers share.
#[derive(Debug)]
pub struct Common {
    turns: Arc<Turns>,
    pool: Pool,
    shared: http2::Shared,
}

impl Common {
    /// What that many workers share.
    #[must_use]
    pub fn new(settings: &config::Upstream, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            turns: Turns::new(settings),
            pool: Pool::new(settings, workers),
            shared: http2::Shared::new(&settings.http2, settings.idle_timeout),
        })
    }
}

/// Mostly one.
pub type Few<T> = SmallVec<[T; 1]>;

/// Addresses that may be connected to.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// In the order to try; never empty.
    pub addresses: Few<SocketAddr>,
    pub vantage: Vantage,
    /// Whose certificate the server must have; None for a connection in the clear.
    pub tls: Option<Host>,
    /// What the server is asked to speak, if it is asked for HTTP at all.
    pub speaks: Speaks,
    /// The place behind a parent proxy, whose addresses these are.
    pub through: Option<Through>,
    /// The client for which alone HTTP/2 connections are opened, if they are not for everybody.
    pub owner: Option<SocketAddr>,
    /// How long the name took to resolve, in microseconds.
    pub dns_us: Option<u64>,
}

/// A connection to an upstream. Dropping it resets it: the peer must not take what is cut off for whole. One
/// on which nothing is under way becomes [`Idle`].
#[derive(Debug)]
pub struct Connection {
    pub stream: Transport,
    pub address: SocketAddr,
    pub vantage: Vantage,
    /// Whose certificate the server has shown, if it had to.
    pub tls: Option<Host>,
    /// The place behind a parent proxy that it leads to.
    pub through: Option<Through>,
    /// How long the handshake took, in microseconds; None for one that is used again.
    pub connect_us: Option<u64>,
    /// That of TLS.
    pub tls_us: Option<u64>,
}

/// Why there is no address to connect to.
#[derive(Debug)]
pub enum AddressError<Refusal> {
    Unresolved(dns::DnsError),
    Refused(Refusal),
}

impl Upstream {
    /// The way out of one worker.
    #[must_use]
    pub fn new(settings: &config::Upstream, tls: Arc<ClientTls>, common: Arc<Common>, worker: usize) -> Self {
        Self {
            settings: settings.clone(),
            tls,
            resolver: Resolver::new(settings.dns_cache_ttl, settings.dns_cache_size),
            common,
            worker,
        }
    }

    /// A request's turn at a hop, if requests there have a limit; waits for it.
    ///
    /// # Errors
    /// [`NoTurn`].
    pub async fn turn(&self, hop: &Hop) -> Result<Option<Box<Turn>>, NoTurn> {
        self.common.turns.take(|| hop.authority()).await
    }

    /// The addresses of a hop that `allow` lets through.
    ///
    /// # Errors
    /// [`AddressError::Unresolved`], or the refusal of the first address if all were refused.
    pub async fn addresses<Refusal>(
        &self,
        hop: &Hop,
        allow: impl Fn(SocketAddr) -> Result<(), Refusal>,
    ) -> Result<Addresses, AddressError<Refusal>> {
        let (mut addresses, vantage, dns_us) = match hop {
            Hop::Address(address, vantage, _) => (Few::from_elem(*address, 1), vantage.clone(), None),
            Hop::Authority(authority, _) => self.resolve(authority).await?,
            Hop::Backend(backend) => self.resolve(&backend.authority).await?,
            Hop::Service(way) => {
                let (addresses, _, dns_us) = self.resolve(&way.at).await?;
                (addresses, way.vantage.clone(), dns_us)
            }
            Hop::Parent { parent, .. } => self.resolve(&parent.authority).await?,
        };
        let tls = match hop {
            Hop::Authority(authority, Scheme::Https)
            | Hop::Parent { authority, scheme: Scheme::Https, .. } => Some(authority.host.clone()),
            // The proxy itself is spoken to.
            Hop::Parent { parent, tunnel: false, .. } if parent.kind == ParentKind::Https => {
                Some(parent.authority.host.clone())
            }
            Hop::Backend(backend) if backend.scheme == Scheme::Https => Some(backend.authority.host.clone()),
            Hop::Address(.., host) => host.clone(),
            Hop::Service(way) if way.scheme == Scheme::Https => Some(way.at.host.clone()),
            Hop::Authority(..) | Hop::Backend(_) | Hop::Service(_) | Hop::Parent { .. } => None,
        };
        let through = match hop {
            Hop::Parent { parent, authority, tunnel: true, .. } => {
                Some(Through { parent: Arc::clone(parent), authority: authority.clone() })
            }
            _ => None,
        };
        let speaks = match hop {
            Hop::Authority(authority, _) => self.speaks(authority, tls.is_some()),
            Hop::Backend(backend) => self.speaks(&backend.authority, tls.is_some()),
            Hop::Service(way) => self.speaks(&way.at, tls.is_some()),
            // Through a tunnel, the server is spoken to as without one; a parent that forwards is spoken to in HTTP/1.1.
            Hop::Parent { authority, tunnel: true, .. } => self.speaks(authority, tls.is_some()),
            Hop::Address(.., host) if self.settings.http2.enabled && host.is_some() => Speaks::Either,
            Hop::Address(..) | Hop::Parent { .. } => Speaks::Http1,
        };
        // Checked here and nowhere else: what passes is what gets connected to, whatever DNS says next.
        let mut refusal = None;
        addresses.retain(|address| match allow(*address) {
            Ok(()) => true,
            Err(reason) => {
                refusal.get_or_insert(reason);
                false
            }
        });
        match (addresses.is_empty(), refusal) {
            (true, Some(refusal)) => Err(AddressError::Refused(refusal)),
            _ => Ok(Addresses { addresses, vantage, tls, speaks, through, owner: None, dns_us }),
        }
    }

    fn speaks(&self, authority: &Authority, tls: bool) -> Speaks {
        let http2 = &self.settings.http2;
        match tls {
            true if http2.enabled => Speaks::Either,
            false if http2.prior_knowledge.iter().any(|host| host.matches(&authority.host)) => Speaks::Http2,
            _ => Speaks::Http1,
        }
    }

    async fn resolve<Refusal>(
        &self,
        authority: &Authority,
    ) -> Result<(Few<SocketAddr>, Vantage, Option<u64>), AddressError<Refusal>> {
        match &authority.host {
            Host::Address(address) => {
                Ok((Few::from_elem(SocketAddr::new(*address, authority.port), 1), Vantage::default(), None))
            }
            Host::Name(name) => {
                let began = Instant::now();
                let found = self.resolver.resolve(name).await.map_err(AddressError::Unresolved)?;
                let found = found.iter().map(|address| SocketAddr::new(*address, authority.port)).collect();
                Ok((found, Vantage::default(), Some(micros(began.elapsed()))))
            }
        }
    }

    /// Connects to the first of `addresses` that answers, and makes a TLS session where there is to be one.
    ///
    /// # Errors
    /// [`ConnectError`] of the last address tried.
    pub async fn connect(&self, addresses: &Addresses) -> Result<Connection, ConnectError> {
        let (limit, vantage) = (self.settings.connect_timeout, addresses.vantage.clone());
        let began = Instant::now();
        let connect = || connect_any(&addresses.addresses, &addresses.vantage, limit);
        let (stream, address) = match connect().await {
            // Out of descriptors: those of connections that nobody uses are the first to give back.
            Err(ConnectError::Failed { error, .. }) if is_out_of_files(&error) => {
                self.common.pool.close_all();
                connect().await?
            }
            result => result?,
        };
        let mut stream = Transport::Plain(stream);
        if let Some(through) = &addresses.through {
            // Boxed, as below.
            stream = Box::pin(self.pass(stream, address, through, limit)).await?;
        }
        let connect_us = Some(micros(began.elapsed()));
        let through = addresses.through.clone();
        let connection =
            Connection { stream, address, vantage, tls: None, through, connect_us, tls_us: None };
        match &addresses.tls {
            None => Ok(connection),
            // Boxed: what the handshake needs, a plain connection does not.
            Some(host) => Box::pin(self.secure(connection, host, addresses.speaks.protocols())).await,
        }
    }

    /// Makes a TLS session of a connection over which nothing was sent yet: with the server that must have `host`'s
    /// certificate, to speak one of these protocols.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn secure(
        &self,
        connection: Connection,
        host: &Host,
        protocols: Vec<Vec<u8>>,
    ) -> Result<Connection, ConnectError> {
        let began = Instant::now();
        let limit = self.settings.connect_timeout;
        let secured = secure(&self.tls, connection.stream, connection.address, host, protocols, limit).await;
        metrics::with(|metrics| match &secured {
            Ok(_) => metrics.upstream_tls_sessions.increment(),
            Err(_) => metrics.upstream_tls_failures.increment(),
        });
        let tls_us = Some(micros(began.elapsed()));
        Ok(Connection { stream: secured?, tls: Some(host.clone()), tls_us, ..connection })
    }

    /// Through a parent proxy, and through TLS with it if that is how it is spoken to.
    async fn pass(
        &self,
        mut stream: Transport,
        address: SocketAddr,
        through: &Through,
        limit: Duration,
    ) -> Result<Transport, ConnectError> {
        if through.parent.kind == ParentKind::Https {
            let host = &through.parent.authority.host;
            stream = secure(&self.tls, stream, address, host, Speaks::Http1.protocols(), limit).await?;
        }
        parent::pass(&mut stream, through, limit).await?;
        Ok(stream)
    }

    /// A kept connection to one of `addresses`, if there is one that is still quiet. `repeats`: if it should prove to be
    /// closed, the request can be sent again.
    #[must_use]
    pub fn reuse(&self, addresses: &Addresses, repeats: bool) -> Option<Connection> {
        let key = |address| Key {
            address,
            vantage: addresses.vantage.clone(),
            tls: addresses.tls.clone(),
            through: addresses.through.clone(),
            owner: None,
        };
        let kept = addresses
            .addresses
            .iter()
            .find_map(|address| self.common.pool.take(self.worker, &key(*address), repeats))?;
        metrics::with(|metrics| metrics.upstream_reuses.increment());
        Some(kept)
    }

    /// Keeps a connection for the next request to its address.
    pub fn keep(&self, idle: Idle) {
        self.common.pool.keep(self.worker, idle);
    }

    /// Closes kept connections that have been idle for too long. Called by the worker's tick.
    pub fn sweep(&self) {
        self.common.pool.sweep(self.worker);
        self.common.shared.sweep();
    }
}

fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
