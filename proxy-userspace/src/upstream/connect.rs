//! Addresses to a connection: happy eyeballs (RFC 8305), and the socket options a relay needs.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::Domain;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::parent::NoPassage;
use super::secure::Insecure;
use crate::target::Vantage;
use crate::telemetry::metrics;

/// How long one address may be silent before the next is tried beside it (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Attempts under way at one time.
const MAX_ATTEMPTS: usize = 6;

/// Why there is no connection. Nothing was sent yet: another address or a later try is always safe.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no connection to {address} within {} ms", .after.as_millis())]
    TimedOut { address: SocketAddr, after: Duration },
    #[error("no connection to {address}: {error}")]
    Failed { address: SocketAddr, error: io::Error },
    #[error("there is no address to connect to")]
    NoAddress,
    #[error(transparent)]
    Parent(Box<NoPassage>),
    #[error(transparent)]
    Tls(Box<Insecure>),
}

impl ConnectError {
    /// Whether a later try may well succeed: somebody was there, and would not have it.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        use io::ErrorKind::{AddrNotAvailable, ConnectionAborted, ConnectionRefused, ConnectionReset};
        let passing = [ConnectionRefused, ConnectionReset, ConnectionAborted, AddrNotAvailable];
        matches!(self, Self::Failed { error, .. } if passing.contains(&error.kind()))
    }
}

/// Connects to the first of `addresses` that answers, within `limit` for all of them together.
///
/// # Errors
/// [`ConnectError`] of the last address that failed.
pub(super) async fn connect_any(
    addresses: &[SocketAddr],
    vantage: &Vantage,
    limit: Duration,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let result = match addresses {
        [] => Err(ConnectError::NoAddress),
        [address] => match timeout(limit, connect_one(*address, vantage.clone())).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { address: *address, after: limit }),
        },
        [first, ..] => match timeout(limit, race(addresses, vantage)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { address: *first, after: limit }),
        },
    };
    metrics::with(|metrics| match &result {
        Ok(_) => metrics.upstream_connects.increment(),
        Err(_) => metrics.upstream_failures.increment(),
    });
    result
}

async fn race(addresses: &[SocketAddr], vantage: &Vantage) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let mut waiting = addresses.iter().copied();
    let mut attempts = JoinSet::new();
    let mut last_error = ConnectError::NoAddress;
    loop {
        if attempts.len() < MAX_ATTEMPTS
            && let Some(address) = waiting.next()
        {
            attempts.spawn_local(connect_one(address, vantage.clone()));
        }
        let next_attempt = tokio::time::Instant::now() + ATTEMPT_DELAY;
        let more_wait = waiting.len() > 0;
        tokio::select! {
            ended = attempts.join_next() => match ended {
                // Dropping the set ends the attempts that lost.
                Some(Ok(Ok(connected))) => return Ok(connected),
                Some(Ok(Err(error))) => last_error = error,
                Some(Err(_)) => {}
                None => return Err(last_error),
            },
            () = sleep_until(next_attempt), if more_wait => {}
        }
    }
}

async fn connect_one(address: SocketAddr, vantage: Vantage) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let failed = |error| ConnectError::Failed { address, error };
    let socket = new_socket(address, &vantage).await.map_err(failed)?;
    let stream = socket.connect(address).await.map_err(failed)?;
    Ok((stream, address))
}

async fn new_socket(address: SocketAddr, vantage: &Vantage) -> io::Result<TcpSocket> {
    let socket = match &vantage.namespace {
        None if address.is_ipv4() => TcpSocket::new_v4()?,
        None => TcpSocket::new_v6()?,
        Some(namespace) => {
            TcpSocket::from_std_stream(namespace.tcp_socket(Domain::for_address(address)).await?.into())
        }
    };
    socket.set_nodelay(true)?;
    // Whatever happens to weir, the upstream must not take a broken stream for a complete one.
    socket.set_zero_linger()?;
    if let Some(source) = vantage.source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
        // Otherwise bind(2) would take a port for this socket alone; connect(2) shares it among destinations (ip(7)).
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    #[tokio::test]
    async fn a_source_address_takes_no_port_before_it_connects() {
        for source in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let vantage = Vantage { source: Some(source), namespace: None };
            let socket = new_socket(SocketAddr::new(source, 80), &vantage).await.unwrap();
            assert_eq!(socket.local_addr().unwrap(), SocketAddr::new(source, 0));
        }
    }
}
