//! The way out: names to addresses, addresses to connections, connections used again. Which addresses may be
//! used is for the caller to say; which bytes go over them as well.

pub mod connect;
pub mod dns;
pub mod pool;

pub use connect::{ConnectError, Connected};

use std::net::SocketAddr;
use std::time::Instant;

use crate::config;
use crate::http::authority::{Authority, Host};
use crate::target::Hop;
use connect::connect_any;
use dns::Resolver;
use pool::Pool;

/// One worker's way out.
#[derive(Debug)]
pub struct Upstream {
    settings: config::Upstream,
    resolver: Resolver,
    pub pool: Pool,
}

impl Upstream {
    /// A way out with nothing resolved and nothing pooled.
    #[must_use]
    pub fn new(settings: &config::Upstream) -> Self {
        Self {
            settings: settings.clone(),
            resolver: Resolver::new(settings.dns_cache_ttl, settings.dns_cache_size),
            pool: Pool::new(settings.idle_per_origin, settings.idle_timeout),
        }
    }

    /// The addresses of a hop that `allow` lets through, and how long it took to find them.
    ///
    /// # Errors
    /// [`ConnectError::Resolve`], or the refusal of the first address if all were refused.
    pub async fn addresses<Refusal>(
        &self,
        hop: &Hop,
        allow: impl Fn(SocketAddr) -> Result<(), Refusal>,
    ) -> Result<Addresses, AddressError<Refusal>> {
        let (found, dns_us) = match hop {
            Hop::Address(address, _) => (vec![*address], None),
            Hop::Authority(Authority { host: Host::Address(address), port }) => {
                (vec![SocketAddr::new(*address, *port)], None)
            }
            Hop::Authority(Authority { host: Host::Name(name), port }) => {
                let began = Instant::now();
                let found = self.resolver.resolve(name).await.map_err(AddressError::Unresolved)?;
                let found = found.iter().map(|address| SocketAddr::new(*address, *port)).collect();
                (found, Some(crate::telemetry::flow::micros(began.elapsed())))
            }
        };
        // Checked here and nowhere else: what passes is what gets connected to, whatever DNS says next.
        let mut refusal = None;
        let mut allowed = found;
        allowed.retain(|address| match allow(*address) {
            Ok(()) => true,
            Err(reason) => {
                refusal.get_or_insert(reason);
                false
            }
        });
        match (allowed.is_empty(), refusal) {
            (true, Some(refusal)) => Err(AddressError::Refused(refusal)),
            _ => Ok(Addresses { addresses: allowed, dns_us }),
        }
    }

    /// Connects to the first of `addresses` that answers.
    ///
    /// # Errors
    /// [`ConnectError`] of the last address tried.
    pub async fn connect(&self, addresses: &Addresses, hop: &Hop) -> Result<Connected, ConnectError> {
        let source = match hop {
            Hop::Address(_, source) => *source,
            Hop::Authority(_) => None,
        };
        connect_any(&addresses.addresses, source, self.settings.connect_timeout).await
    }
}

/// Addresses that may be connected to.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// In the order to try; never empty unless the name has none.
    pub addresses: Vec<SocketAddr>,
    /// How long the name took to resolve, in microseconds.
    pub dns_us: Option<u64>,
}

/// Why there is no address to connect to.
#[derive(Debug)]
pub enum AddressError<Refusal> {
    Unresolved(dns::DnsError),
    Refused(Refusal),
}
