//! A tunnel: two sockets, both directions, one ending.
//!
//! How a tunnel ends is passed on as what it was. Both sockets carry SO_LINGER{on, 0}, so whenever they are
//! closed before both streams have ended (an error, a time-out, SIGKILL), the kernel sends RST and no peer
//! mistakes a broken stream for a complete one. Only after both FINs were passed on is the option cleared.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;

use super::copied::{Copied, TunnelEnd};
use super::direction::{Broken, Direction};
use crate::net::deadline::Deadline;
use crate::net::pacing::{Pace, Paced};
use crate::net::transport::Transport;
use crate::telemetry::metrics;

/// Which peer, seen from weir.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Downstream,
    /// The next hop.
    Upstream,
}

/// What the relay needs to know of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Bytes asked for a splice pipe.
    pub pipe_size: usize,
    /// Bytes that each socket of a bulk transfer may hold in either direction; None: see [`super::buffers`].
    pub socket_buffer: Option<usize>,
    /// A tunnel in which nothing moves for so long is reset.
    pub idle: Duration,
}

/// How a tunnel ended.
#[derive(Debug)]
pub enum End {
    /// Both sides sent FIN, and all bytes were passed on.
    Complete,
    /// A side reset the connection or became unreachable; the other side was sent RST.
    Broken(Side, io::Error),
    /// Nothing moved for the configured time; both sides were sent RST.
    Idle,
}

/// Relays between `downstream` and `upstream` until the tunnel ends. `prefix` was already read from the
/// downstream and goes first.
///
/// Both sockets must carry SO_LINGER{on, 0} (see [`crate::net::listener`] and [`crate::upstream`]).
#[must_use]
pub fn relay(downstream: Transport, upstream: Transport, prefix: &[u8], settings: Settings) -> Tunnel {
    match (downstream, upstream) {
        (Transport::Plain(downstream), Transport::Plain(upstream)) => Tunnel::over(
            Way::Sockets(Sockets {
                downstream: (Side::Downstream, downstream),
                upstream: (Side::Upstream, upstream),
                up: Direction::with_prefix(prefix),
                down: Direction::default(),
            }),
            settings,
        ),
        (downstream, upstream) => copy(Box::new(downstream), Box::new(upstream), prefix, settings),
    }
}

/// As [`relay`], between ends that need not be sockets.
#[must_use]
pub fn copy(
    downstream: Box<dyn TunnelEnd>,
    upstream: Box<dyn TunnelEnd>,
    prefix: &[u8],
    settings: Settings,
) -> Tunnel {
    Tunnel::over(Way::Copied(Box::new(Copied::new(downstream, upstream, prefix))), settings)
}

/// A tunnel under way; a future that ends with it.
#[derive(Debug)]
pub struct Tunnel {
    way: Way,
    deadline: Deadline,
    settings: Settings,
}

/// How its bytes are moved.
#[derive(Debug)]
enum Way {
    Sockets(Sockets),
    Copied(Box<Copied>),
}

#[derive(Debug)]
struct Sockets {
    downstream: (Side, TcpStream),
    upstream: (Side, TcpStream),
    up: Direction,
    down: Direction,
}

impl Future for Tunnel {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let tunnel = &mut *self;
        let before = tunnel.bytes();
        let end = match &mut tunnel.way {
            Way::Sockets(sockets) => sockets.poll_both(cx, tunnel.settings),
            Way::Copied(copied) => copied.poll_both(cx),
        };
        let after = tunnel.bytes();
        let moved = (after.0 - before.0, after.1 - before.1);
        if moved != (0, 0) {
            metrics::with(|metrics| {
                metrics.sent_bytes.add(moved.0);
                metrics.received_bytes.add(moved.1);
            });
            tunnel.deadline.arm(tunnel.settings.idle);
        }
        let end = match end {
            Poll::Ready(Ok(())) => tunnel.complete(),
            Poll::Ready(Err((side, error))) => End::Broken(side, error),
            Poll::Pending if tunnel.deadline.poll_expired(cx).is_ready() => End::Idle,
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(end)
    }
}

impl Tunnel {
    fn over(way: Way, settings: Settings) -> Self {
        let tunnel = Self { way, deadline: Deadline::new(), settings };
        tunnel.deadline.arm(settings.idle);
        tunnel
    }

    /// Has each direction keep to its pace: what goes to the upstream, and what comes from there.
    #[must_use]
    pub fn paced(mut self, (up, down): (Option<Pace>, Option<Pace>)) -> Self {
        if up.is_some() || down.is_some() {
            match &mut self.way {
                Way::Sockets(sockets) => {
                    sockets.up.paced = up.map(|pace| Box::new(Paced::new(pace)));
                    sockets.down.paced = down.map(|pace| Box::new(Paced::new(pace)));
                }
                Way::Copied(copied) => copied.keep_to(up, down),
            }
        }
        self
    }

    /// Bytes that the upstream and the downstream have taken so far.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        match &self.way {
            Way::Sockets(sockets) => (sockets.up.bytes, sockets.down.bytes),
            Way::Copied(copied) => copied.bytes(),
        }
    }

    fn complete(&self) -> End {
        match &self.way {
            Way::Sockets(sockets) => sockets.complete(),
            Way::Copied(copied) => {
                copied.complete();
                End::Complete
            }
        }
    }
}

impl Sockets {
    fn poll_both(&mut self, cx: &mut Context<'_>, settings: Settings) -> Poll<Result<(), Broken>> {
        let up = match self.up.has_ended() {
            true => Poll::Ready(Ok(())),
            false => {
                let last = self.down.has_ended();
                self.up.poll(cx, &mut self.downstream, &mut self.upstream, &settings, last)
            }
        };
        let down = match self.down.has_ended() {
            true => Poll::Ready(Ok(())),
            false => {
                let last = self.up.has_ended();
                self.down.poll(cx, &mut self.upstream, &mut self.downstream, &settings, last)
            }
        };
        match (up, down) {
            (Poll::Ready(Err(broken)), _) | (_, Poll::Ready(Err(broken))) => Poll::Ready(Err(broken)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    /// Both streams have ended: close(2) now sends FIN where it is still missing, after what is queued.
    fn complete(&self) -> End {
        for (side, socket) in [&self.downstream, &self.upstream] {
            if let Err(error) = socket2::SockRef::from(socket).set_linger(None) {
                return End::Broken(*side, error);
            }
        }
        End::Complete
    }
}
