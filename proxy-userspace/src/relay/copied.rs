//! A tunnel of which an end is no plain socket: TLS, or a stream within a connection. Its bytes are copied; nothing can
//! be spliced.
//!
//! As with plain sockets, an end that is dropped before the tunnel is complete is reset, and a direction that has ended
//! in order ends in order on the other side.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tunnel::Side;
use crate::net::pacing::{Pace, Paced};
use crate::net::transport::Transport;

/// An end of such a tunnel.
pub trait TunnelEnd: AsyncRead + AsyncWrite + Unpin {
    /// Both directions have ended in order: dropping it is no reset any more.
    fn complete(&self);
}

impl TunnelEnd for Transport {
    fn complete(&self) {
        self.end_in_order();
    }
}

/// What one read may bring.
const SCRATCH_SIZE: usize = 16 << 10;

/// Reads per poll, after which the task lets others run.
const MOVES_PER_POLL: usize = 8;

/// One direction. Holds memory only while bytes are on their way.
#[derive(Debug, Default)]
struct Direction {
    carry: Vec<u8>,
    start: usize,
    received_end: bool,
    ended: bool,
    bytes: u64,
    paced: Option<Box<Paced>>,
}

/// Both ends and both directions.
pub(super) struct Copied {
    downstream: Box<dyn TunnelEnd>,
    upstream: Box<dyn TunnelEnd>,
    up: Direction,
    down: Direction,
}

type Broken = (Side, io::Error);

impl std::fmt::Debug for Copied {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        text.debug_struct("Copied").field("up", &self.up).field("down", &self.down).finish_non_exhaustive()
    }
}

impl Copied {
    pub(super) fn new(downstream: Box<dyn TunnelEnd>, upstream: Box<dyn TunnelEnd>, prefix: &[u8]) -> Self {
        let up = Direction { carry: prefix.to_vec(), ..Direction::default() };
        Self { downstream, upstream, up, down: Direction::default() }
    }

    /// Bytes that the upstream and the downstream have taken so far.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.up.bytes, self.down.bytes)
    }

    pub(super) fn keep_to(&mut self, up: Option<Pace>, down: Option<Pace>) {
        self.up.paced = up.map(|pace| Box::new(Paced::new(pace)));
        self.down.paced = down.map(|pace| Box::new(Paced::new(pace)));
    }

    pub(super) fn complete(&self) {
        self.downstream.complete();
        self.upstream.complete();
    }

    pub(super) fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Self { downstream, upstream, up, down } = self;
        let sides = (Side::Downstream, Side::Upstream);
        let up = up.poll(cx, (sides.0, &mut **downstream), (sides.1, &mut **upstream))?;
        let down = down.poll(cx, (sides.1, &mut **upstream), (sides.0, &mut **downstream))?;
        if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (from_side, from): (Side, &mut dyn TunnelEnd),
        (to_side, to): (Side, &mut dyn TunnelEnd),
    ) -> Poll<Result<(), Broken>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..MOVES_PER_POLL {
            ready!(self.poll_send(cx, to)).map_err(|error| (to_side, error))?;
            if self.received_end {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|error| (to_side, error))?;
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            if let Some(paced) = &mut self.paced {
                ready!(paced.poll_ready(cx, self.bytes));
            }
            ready!(self.poll_receive(cx, from)).map_err(|error| (from_side, error))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends what is carried, to the last byte that a session or stream may hold back.
    fn poll_send(&mut self, cx: &mut Context<'_>, to: &mut dyn TunnelEnd) -> Poll<io::Result<()>> {
        while self.start < self.carry.len() {
            match ready!(Pin::new(&mut *to).poll_write(cx, &self.carry[self.start..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => {
                    self.start += written;
                    self.bytes += written as u64;
                }
            }
        }
        (self.carry, self.start) = (Vec::new(), 0);
        Pin::new(to).poll_flush(cx)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, from: &mut dyn TunnelEnd) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut received = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut received))?;
            self.received_end = received.filled().is_empty();
            self.carry = received.filled().to_vec();
            Poll::Ready(Ok(()))
        })
    }
}

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice());
}
