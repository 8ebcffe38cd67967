//! Where connections arrive, and the kernel half that sends them there: opened anew, or taken over from a running weir.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;

use super::StartError;
use super::handover::Taking;
use super::queries::Queries;
use crate::config::{CaptureMode, Config};
use crate::containers::CaptureListeners;
use crate::net::listener;
use crate::redirect::{Listeners, Redirect, RedirectError, Rules};
use crate::running::Capture;

/// The explicit proxy's sockets.
#[derive(Debug)]
pub(super) struct Explicit {
    /// For each worker, at least one.
    pub(super) groups: Vec<Vec<TcpListener>>,
    /// None where it does not listen.
    pub(super) address: Option<SocketAddr>,
}

impl Explicit {
    pub(super) fn listen(config: &Config, taking: Option<&mut Taking>) -> Result<Self, StartError> {
        let server = &config.server;
        let (host, range) = (server.host, &server.port_range);
        let failed = |error| StartError::Listen { host, first: *range.start(), last: *range.end(), error };
        if taking.as_ref().is_some_and(|taking| taking.is_stopped()) {
            return Ok(Self::none(server.workers));
        }
        let taken = taking.and_then(|taking| taking.explicit(server));
        let sockets = match taken {
            Some(mut sockets) => {
                let more = server.workers.saturating_sub(sockets.len());
                sockets.extend(listener::listen_beside(&sockets[0], more).map_err(failed)?);
                sockets
            }
            None => listener::listen_in_range(host, server.port, range, server.workers).map_err(failed)?,
        };
        Ok(Self::dealt_out(sockets, server.workers)?)
    }

    /// None, for so many workers.
    pub(super) fn none(workers: usize) -> Self {
        Self { groups: (0..workers).map(|_| Vec::new()).collect(), address: None }
    }

    /// At the first free port: `port`, then those of `range`.
    pub(super) fn open(
        host: IpAddr,
        port: u16,
        range: &RangeInclusive<u16>,
        workers: usize,
    ) -> io::Result<Self> {
        Self::dealt_out(listener::listen_in_range(host, port, range, workers)?, workers)
    }

    fn dealt_out(sockets: Vec<TcpListener>, workers: usize) -> io::Result<Self> {
        let mut explicit = Self { address: Some(local_address(&sockets)?), ..Self::none(workers) };
        // There may be more of them than workers: what waits at one is lost if nobody accepts from it.
        for (index, socket) in sockets.into_iter().enumerate() {
            explicit.groups[index % workers].push(socket);
        }
        Ok(explicit)
    }
}

fn local_address(sockets: &[TcpListener]) -> io::Result<SocketAddr> {
    sockets.first().ok_or(io::ErrorKind::AddrNotAvailable)?.local_addr()
}

/// None where nothing is to be captured. Any free ports of loopback: only the kernel half needs to know them.
pub(super) fn listen_for_captured(config: &Config) -> Result<CaptureListeners, StartError> {
    match config.capture.mode {
        CaptureMode::Off => Ok(CaptureListeners::default()),
        _ => CaptureListeners::open(config.server.workers).map_err(StartError::Transparent),
    }
}

/// The kernel half, and beside that of a running weir the rules that are to hold once its place is taken.
pub(super) fn start_capture(
    config: &Config,
    explicit: Option<SocketAddr>,
    transparent: &CaptureListeners,
    queries: Option<&Queries>,
    taking: Option<&mut Taking>,
) -> Result<(Capture, Option<Rules>), StartError> {
    if config.capture.mode == CaptureMode::Off {
        return Ok((Capture::Off, None));
    }
    let mut listeners = Listeners { explicit, ..transparent.announced() };
    if let Some(queries) = queries {
        queries.announce(&mut listeners);
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
        Err(error) if config.capture.mode == CaptureMode::Required => Err(error.into()),
        // What is captured now is not to go direct all of a sudden.
        Err(error) if is_captured_now => Err(StartError::WouldNotCapture(error)),
        // These are mistakes, and to serve without them could be dangerous.
        Err(RedirectError::Rules(error)) => Err(StartError::Rules(error)),
        Err(error) => {
            tracing::warn!("nothing is captured: {error}");
            Ok((Capture::Unavailable(error), None))
        }
    }
}
