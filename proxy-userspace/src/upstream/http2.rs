//! HTTP/2 connections to upstreams, each shared by many requests of all workers; it lives on the runtime of the worker
//! that has opened it. Which servers speak HTTP/2 is known from
//! the configuration, or found by ALPN and remembered.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::{Mutex as Gate, watch};
use tokio::time::timeout;

use super::pool::Key;
use super::{Addresses, ConnectError, Connection, Upstream};
use crate::config::UpstreamHttp2;
use crate::net::buffered::Inbox;
use crate::net::frames::Watched;
use crate::telemetry::metrics;
use crate::tls::alpn;

/// Servers of which it is remembered what they speak.
const MAX_SERVERS: usize = 4096;

/// Connections to one server; more requests than fit on all of them wait.
const MAX_CONNECTIONS: usize = 8;

/// Bytes that a server may send ahead of what was passed on, on one stream.
const STREAM_WINDOW: u32 = 256 << 10;

/// The most that it may send so on all streams of a connection (RFC 9113 §6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Bytes of a request that wait for the server to take them.
const SEND_BUFFER: usize = 64 << 10;

/// Largest list of fields of a response.
const HEADER_LIST: u32 = 64 << 10;

/// What an upstream is asked to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    /// Whichever it chooses in the TLS handshake.
    Either,
    /// HTTP/2 with prior knowledge (RFC 9113 §3.3).
    Http2,
}

impl Speaks {
    /// What is offered in the TLS handshake, the best first.
    #[must_use]
    pub fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http1 => vec![alpn::HTTP1.to_vec()],
            Self::Either | Self::Http2 => vec![alpn::HTTP2.to_vec(), alpn::HTTP1.to_vec()],
        }
    }
}

/// How a request gets to its upstream.
#[derive(Debug)]
pub enum Way {
    /// A connection of its own for as long as it takes.
    Http1(Connection),
    /// A place on a shared one.
    Http2(Place),
}

/// A place on a shared connection, for one stream.
#[derive(Debug)]
pub struct Place {
    pub send: SendRequest<Bytes>,
    pub address: SocketAddr,
    /// How long the handshakes took, in microseconds; None if the connection was there.
    pub connect_us: Option<u64>,
    pub tls_us: Option<u64>,
    /// Counts this place as taken.
    taken: Arc<()>,
    /// True once the server has said what it can do.
    greeted: watch::Receiver<bool>,
}

/// The shared connections.
#[derive(Debug)]
pub(super) struct Shared {
    settings: UpstreamHttp2,
    idle_timeout: Duration,
    servers: Mutex<HashMap<Key, Server>>,
}

#[derive(Debug)]
struct Server {
    connections: Vec<Open>,
    /// Held by whoever opens a connection, so that others wait for that one.
    opening: Arc<Gate<()>>,
    /// It was asked, and chose HTTP/1.1.
    speaks_http1: bool,
    used: Instant,
}

#[derive(Debug)]
struct Open {
    send: SendRequest<Bytes>,
    address: SocketAddr,
    places: Arc<()>,
    greeted: watch::Receiver<bool>,
}

impl Place {
    /// Whether the server takes WebSockets on streams (RFC 8441 §3), and there is room for one that may last: half of the
    /// connection is for requests. Waits until the server has said so, but no longer than `limit`.
    pub(super) async fn takes_websocket(&mut self, max_streams: usize, limit: Duration) -> bool {
        let taken = Arc::strong_count(&self.taken) - 1;
        taken <= max_streams.min(self.send.current_max_send_streams()) / 2
            && matches!(timeout(limit, self.greeted.wait_for(|greeted| *greeted)).await, Ok(Ok(_)))
            && self.send.is_extended_connect_protocol_enabled()
    }
}

impl Shared {
    pub(super) fn new(settings: &UpstreamHttp2, idle_timeout: Duration) -> Self {
        Self { settings: settings.clone(), idle_timeout, servers: Mutex::default() }
    }

    /// As much as all streams together: clients that read nothing are not to hold up those on other streams.
    fn connection_window(&self) -> u32 {
        let streams = u32::try_from(self.settings.max_streams).unwrap_or(u32::MAX);
        STREAM_WINDOW.saturating_mul(streams).min(MAX_WINDOW)
    }

    /// A place on a connection that is there. None: there is none with room.
    fn take(&self, key: &Key) -> Option<Place> {
        let mut servers = self.servers();
        let server = servers.get_mut(key)?;
        server.connections.retain_mut(|open| !open.has_ended());
        let full = server.connections.len() >= MAX_CONNECTIONS;
        let max_streams = self.settings.max_streams;
        let least = server.connections.iter().min_by_key(|open| open.taken())?;
        if !full && least.taken() >= max_streams.min(least.send.current_max_send_streams()) {
            return None;
        }
        server.used = Instant::now();
        Some(least.place())
    }

    /// What is known of a server.
    fn server<T>(&self, key: &Key, look: impl FnOnce(&mut Server) -> T) -> T {
        let mut servers = self.servers();
        if servers.len() >= MAX_SERVERS && !servers.contains_key(key) {
            servers.retain(|_, server| !server.connections.is_empty());
        }
        look(servers.entry(key.clone()).or_insert_with(|| Server {
            connections: Vec::new(),
            opening: Arc::default(),
            speaks_http1: false,
            used: Instant::now(),
        }))
    }

    /// Ends connections on which nothing was asked for too long, and forgets those that have ended.
    pub(super) fn sweep(&self) {
        self.servers().retain(|_, server| {
            let idle = server.used.elapsed() >= self.idle_timeout;
            server.connections.retain_mut(|open| !(open.has_ended() || idle && open.taken() == 0));
            !(idle && server.connections.is_empty() && Arc::strong_count(&server.opening) == 1)
        });
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<Key, Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn taken(&self) -> usize {
        Arc::strong_count(&self.places) - 1
    }

    fn has_ended(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.send.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    fn place(&self) -> Place {
        Place {
            send: self.send.clone(),
            address: self.address,
            connect_us: None,
            tls_us: None,
            taken: Arc::clone(&self.places),
            greeted: self.greeted.clone(),
        }
    }
}

impl Upstream {
    /// A way to one of `addresses`, in what the server speaks: a place on a shared connection, or a new connection.
    ///
    /// # Errors
    /// [`ConnectError`] of the last address tried.
    pub async fn open(&self, addresses: &Addresses) -> Result<Way, ConnectError> {
        let Some(address) = addresses.addresses.first() else { return Err(ConnectError::NoAddress) };
        let key = Key {
            address: *address,
            vantage: addresses.vantage.clone(),
            tls: addresses.tls.clone(),
            through: addresses.through.clone(),
            owner: addresses.owner,
        };
        if addresses.speaks == Speaks::Http1 || self.common.shared.server(&key, |server| server.speaks_http1)
        {
            return self.connect(addresses).await.map(Way::Http1);
        }
        if let Some(place) = self.common.shared.take(&key) {
            return Ok(Way::Http2(place));
        }
        let opening = self.common.shared.server(&key, |server| Arc::clone(&server.opening));
        let turn = opening.lock().await;
        // Somebody else may have opened one meanwhile.
        if let Some(place) = self.common.shared.take(&key) {
            return Ok(Way::Http2(place));
        }
        if self.common.shared.server(&key, |server| server.speaks_http1) {
            drop(turn);
            return self.connect(addresses).await.map(Way::Http1);
        }
        let connection = self.connect(addresses).await?;
        if addresses.speaks == Speaks::Either && connection.stream.alpn().as_deref() != Some(alpn::HTTP2) {
            self.common.shared.server(&key, |server| server.speaks_http1 = true);
            return Ok(Way::Http1(connection));
        }
        let (connect_us, tls_us) = (connection.connect_us, connection.tls_us);
        let open = self.begin(connection).await?;
        let place = Place { connect_us, tls_us, ..open.place() };
        self.common.shared.server(&key, |server| server.connections.push(open));
        Ok(Way::Http2(place))
    }

    /// A way for a WebSocket: a stream where the server takes that, else an HTTP/1.1 connection.
    ///
    /// # Errors
    /// [`ConnectError`] of the last address tried.
    pub async fn open_websocket(&self, addresses: &Addresses) -> Result<Way, ConnectError> {
        let (max_streams, limit) = (self.settings.http2.max_streams, self.settings.connect_timeout);
        match self.open(addresses).await? {
            Way::Http2(mut place) => match place.takes_websocket(max_streams, limit).await {
                true => Ok(Way::Http2(place)),
                false => {
                    let addresses = Addresses { speaks: Speaks::Http1, ..addresses.clone() };
                    self.connect(&addresses).await.map(Way::Http1)
                }
            },
            way => Ok(way),
        }
    }

    /// Shares a connection whose server has chosen HTTP/2: what goes to `addresses` next goes over it.
    ///
    /// # Errors
    /// [`ConnectError`]: it could not be begun.
    pub async fn share(&self, connection: Connection, addresses: &Addresses) -> Result<(), ConnectError> {
        let Some(address) = addresses.addresses.first() else { return Err(ConnectError::NoAddress) };
        let key = Key {
            address: *address,
            vantage: connection.vantage.clone(),
            tls: connection.tls.clone(),
            through: connection.through.clone(),
            owner: addresses.owner,
        };
        let open = self.begin(connection).await?;
        self.common.shared.server(&key, |server| {
            // Where there are enough of them it is not needed, and ends.
            if server.connections.len() < MAX_CONNECTIONS {
                server.used = Instant::now();
                server.connections.push(open);
            }
        });
        Ok(())
    }

    async fn begin(&self, connection: Connection) -> Result<Open, ConnectError> {
        let (address, limit) = (connection.address, self.settings.connect_timeout);
        let (io, watch) = Watched::new(connection.stream, Inbox::default(), 0);
        let handshake = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(self.common.shared.connection_window())
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEADER_LIST)
            .enable_push(false)
            .handshake(io)
            .await;
        let (send, mut connection) = handshake.map_err(|error| failed(address, error))?;
        let (greet, greeted) = watch::channel(false);
        metrics::with(|metrics| metrics.upstream_http2_connections.increment());
        // Ends with the connection; or, when nobody uses it any more, with the last of its handles.
        tokio::task::spawn_local(async move {
            poll_fn(|cx| {
                let ended = Future::poll(std::pin::Pin::new(&mut connection), cx);
                if watch.is_greeted() && !*greet.borrow() {
                    greet.send_replace(true);
                }
                // A server that floods loses its connection, and all that is on it.
                if watch.objection().is_some() { Poll::Ready(()) } else { ended.map(drop) }
            })
            .await;
        });
        // Its settings say how many streams it takes.
        match timeout(limit, send.ready()).await {
            Ok(Ok(send)) => Ok(Open { send, address, places: Arc::default(), greeted }),
            Ok(Err(error)) => Err(failed(address, error)),
            Err(_) => Err(ConnectError::TimedOut { address, after: limit }),
        }
    }
}

fn failed(address: SocketAddr, error: h2::Error) -> ConnectError {
    ConnectError::Failed { address, error: std::io::Error::other(error) }
}
