//! Where connections arrive, and the kernel half that sends them there: opened anew, or taken over from a running weir.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use super::StartError;
use super::handover::Taking;
use super::queries::Queries;
use crate::config::{CaptureMode, Config};
use crate::net::listener;
use crate::redirect::{Listeners, Redirect, RedirectError, Rules};
use crate::running::Capture;

/// The explicit proxy's sockets.
#[derive(Debug)]
pub(super) struct Explicit {
    /// For each worker, at least one.
    pub(super) groups: Vec<Vec<TcpListener>>,
    pub(super) address: SocketAddr,
}

impl Explicit {
    pub(super) fn listen(config: &Config, taking: Option<&mut Taking>) -> Result<Self, StartError> {
        let server = &config.server;
        let (host, range) = (server.host, &server.port_range);
        let failed = |error| StartError::Listen { host, first: *range.start(), last: *range.end(), error };
        let taken = taking.and_then(|taking| taking.explicit(server));
        let sockets = match taken {
            Some(mut sockets) => {
                let more = server.workers.saturating_sub(sockets.len());
                sockets.extend(listener::listen_beside(&sockets[0], more).map_err(failed)?);
                sockets
            }
            None => listener::listen_in_range(host, server.port, range, server.workers).map_err(failed)?,
        };
        let address = local_address(&sockets)?;
        let mut groups: Vec<_> = (0..server.workers).map(|_| Vec::new()).collect();
        // There may be more of them than workers: what waits at one is lost if nobody accepts from it.
        for (index, socket) in sockets.into_iter().enumerate() {
            groups[index % server.workers].push(socket);
        }
        Ok(Self { groups, address })
    }
}

fn local_address(sockets: &[TcpListener]) -> std::io::Result<SocketAddr> {
    sockets.first().ok_or(std::io::ErrorKind::AddrNotAvailable)?.local_addr()
}

/// The sockets that captured connections arrive on: any free ports of loopback, as only the kernel half
/// needs to know them.
#[derive(Debug, Default)]
pub(super) struct Transparent {
    pub(super) v4: Vec<TcpListener>,
    pub(super) v6: Vec<TcpListener>,
}

impl Transparent {
    pub(super) fn listen(config: &Config) -> Result<Self, StartError> {
        if config.capture.mode == CaptureMode::Off {
            return Ok(Self::default());
        }
        let workers = config.server.workers;
        let v4 =
            listener::listen((Ipv4Addr::LOCALHOST, 0).into(), workers).map_err(StartError::Transparent)?;
        // A host may have no IPv6; then there is nothing of it to capture.
        let v6 = listener::listen((Ipv6Addr::LOCALHOST, 0).into(), workers).unwrap_or_default();
        Ok(Self { v4, v6 })
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        [&self.v4, &self.v6].into_iter().filter_map(|sockets| sockets.first()?.local_addr().ok())
    }
}

/// The kernel half, and beside that of a running weir the rules that are to hold once its place is taken.
pub(super) fn start_capture(
    config: &Config,
    transparent: &Transparent,
    queries: Option<&Queries>,
    taking: Option<&mut Taking>,
) -> Result<(Capture, Option<Rules>), StartError> {
    if config.capture.mode == CaptureMode::Off {
        return Ok((Capture::Off, None));
    }
    let mut listeners = Listeners::default();
    if let Some(queries) = queries {
        queries.announce(&mut listeners);
    }
    for address in transparent.addresses() {
        match address {
            SocketAddr::V4(address) => listeners.v4 = Some(address),
            SocketAddr::V6(address) => listeners.v6 = Some(address),
        }
    }
    let is_captured_now = taking.as_ref().is_some_and(|taking| taking.captures());
    let started = match taking {
        Some(taking) => {
            let (lock, siblings) = (taking.instance_lock(), taking.siblings());
            Redirect::start_beside(&config.capture, &listeners, lock, &siblings)
                .map(|(redirect, rules)| (redirect, Some(rules)))
        }
        None => Redirect::start(&config.capture, &listeners).map(|redirect| (redirect, None)),
    };
    match started {
        Ok((redirect, rules)) => Ok((Capture::On(Box::new(redirect)), rules)),
        // What is captured now is not to go direct all of a sudden.
        Err(error) if config.capture.mode == CaptureMode::Required || is_captured_now => Err(error.into()),
        // These are mistakes, and to serve without them could be dangerous.
        Err(RedirectError::Rules(error)) => Err(StartError::Rules(error)),
        Err(error) => {
            tracing::warn!("nothing is captured: {error}");
            Ok((Capture::Unavailable(error), None))
        }
    }
}
