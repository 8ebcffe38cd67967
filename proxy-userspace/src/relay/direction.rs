//! One direction of a tunnel: from one socket to the other, until the end of the stream has been passed on.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::buffers;
use super::pipe::Pipe;
use super::tunnel::{Settings, Side};
use crate::net::pacing::Paced;

/// One read(2). Messages up to this size are copied; a read that fills it means bulk, which is spliced.
const SCRATCH_SIZE: usize = 16 << 10;

/// A splice that moves less than this found no bulk.
const SMALL_SPLICE: usize = 4 << 10;

/// So many small splices in a row, and the direction copies again.
const SMALL_SPLICES: u8 = 8;

/// Moves per poll, after which the task lets others run.
const MOVES_PER_POLL: u8 = 8;

/// The state of one direction. Holds memory only while bytes are on their way.
#[derive(Debug, Default)]
pub(super) struct Direction {
    carry: Carry,
    bulk: bool,
    /// It has been in bulk before: the sockets' buffers are bounded.
    bounded: bool,
    small_splices: u8,
    ended: Ended,
    /// Where something bounds how much may pass in a second. Such a direction is copied, in small pieces.
    pub(super) paced: Option<Box<Paced>>,
    /// Bytes that the receiving socket has taken.
    pub(super) bytes: u64,
}

/// Bytes taken from one socket that the other has not yet accepted.
#[derive(Debug, Default)]
enum Carry {
    #[default]
    Nothing,
    Bytes {
        buffer: Box<[u8]>,
        start: usize,
    },
    Pipe(Pipe),
}

/// How far the end of the stream has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Ended {
    #[default]
    No,
    /// The sender has ended; what is carried still has to go.
    Received,
    /// The FIN was passed on.
    PassedOn,
}

/// A direction broke: on which side, and how.
pub(super) type Broken = (Side, io::Error);

impl Direction {
    /// A direction that starts with bytes which were read before the tunnel began.
    pub(super) fn with_prefix(prefix: &[u8]) -> Self {
        let carry = match prefix {
            [] => Carry::Nothing,
            bytes => Carry::Bytes { buffer: bytes.into(), start: 0 },
        };
        Self { carry, ..Self::default() }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended == Ended::PassedOn
    }

    /// Moves bytes until one socket blocks (Pending), or the stream's end was passed on (Ready). The `last`
    /// direction to end leaves its FIN to close(2), which follows at once.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (Side, TcpStream),
        to: &mut (Side, TcpStream),
        settings: &Settings,
        last: bool,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..MOVES_PER_POLL {
            let sent = ready!(self.poll_send(cx, &mut to.1)).map_err(|error| (to.0, error))?;
            self.bytes += sent;
            match self.ended {
                Ended::PassedOn => return Poll::Ready(Ok(())),
                Ended::Received => {
                    if !last {
                        ready!(Pin::new(&mut to.1).poll_shutdown(cx))
                            .or_else(not_connected)
                            .map_err(|error| (to.0, error))?;
                    }
                    self.ended = Ended::PassedOn;
                    return Poll::Ready(Ok(()));
                }
                Ended::No => {}
            }
            if let Some(paced) = &mut self.paced {
                ready!(paced.poll_ready(cx, self.bytes));
            }
            if self.bulk {
                ready!(self.poll_splice(cx, &from.1, settings.pipe_size)).map_err(|error| (from.0, error))?;
            } else {
                ready!(self.poll_copy(cx, from, to))?;
                if self.bulk && !self.bounded {
                    self.bounded = true;
                    buffers::bound(&from.1, &to.1, settings.socket_buffer);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends what is carried. Ready when nothing is left, with the number of bytes sent now.
    fn poll_send(&mut self, cx: &mut Context<'_>, to: &mut TcpStream) -> Poll<io::Result<u64>> {
        let mut sent = 0;
        loop {
            match &mut self.carry {
                Carry::Nothing => return Poll::Ready(Ok(sent)),
                Carry::Bytes { buffer, start } => {
                    // What was sent before the socket blocked is counted: Pending must not lose it.
                    let written = match Pin::new(&mut *to).poll_write(cx, &buffer[*start..]) {
                        Poll::Ready(written) => written?,
                        Poll::Pending => return self.blocked(sent),
                    };
                    sent += written as u64;
                    *start += written;
                    if *start == buffer.len() {
                        self.carry = Carry::Nothing;
                    }
                }
                Carry::Pipe(pipe) if pipe.filled() == 0 => return Poll::Ready(Ok(sent)),
                Carry::Pipe(pipe) => {
                    if to.poll_write_ready(cx)?.is_pending() {
                        return self.blocked(sent);
                    }
                    match to.try_io(Interest::WRITABLE, || pipe.drain_to(&*to)) {
                        Ok(moved) => sent += moved as u64,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
            }
        }
    }

    fn blocked(&mut self, sent: u64) -> Poll<io::Result<u64>> {
        self.bytes += sent;
        Poll::Pending
    }

    /// Receives into a pipe. A socket with nothing to give makes the pipe go back to the pool.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        pipe_size: usize,
    ) -> Poll<io::Result<()>> {
        loop {
            if from.poll_read_ready(cx)?.is_pending() {
                self.put_down_pipe();
                return Poll::Pending;
            }
            if matches!(self.carry, Carry::Nothing) {
                match Pipe::take(pipe_size) {
                    Ok(pipe) => self.carry = Carry::Pipe(pipe),
                    // Out of descriptors or pipe pages: go on by copying.
                    Err(_) => {
                        self.bulk = false;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            let Carry::Pipe(pipe) = &mut self.carry else { return Poll::Ready(Ok(())) };
            match from.try_io(Interest::READABLE, || pipe.fill_from(from)) {
                Ok(0) => {
                    self.put_down_pipe();
                    self.ended = Ended::Received;
                    return Poll::Ready(Ok(()));
                }
                Ok(moved) => {
                    self.small_splices = if moved < SMALL_SPLICE { self.small_splices + 1 } else { 0 };
                    if self.small_splices == SMALL_SPLICES {
                        (self.bulk, self.small_splices) = (false, 0);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Receives into the thread's scratch buffer and sends on from there; only what the other socket does
    /// not take at once is put into memory of the direction's own.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (Side, TcpStream),
        to: &mut (Side, TcpStream),
    ) -> Poll<Result<(), Broken>> {
        // A pipe may be left over from before the direction went back to copying; it is empty here.
        self.put_down_pipe();
        SCRATCH.with_borrow_mut(|scratch| {
            let mut received = ReadBuf::new(scratch);
            ready!(Pin::new(&mut from.1).poll_read(cx, &mut received)).map_err(|error| (from.0, error))?;
            let received = received.filled();
            if received.is_empty() {
                self.ended = Ended::Received;
                return Poll::Ready(Ok(()));
            }
            self.bulk = received.len() == SCRATCH_SIZE && self.paced.is_none();
            let sent = match Pin::new(&mut to.1).poll_write(cx, received) {
                Poll::Ready(sent) => sent.map_err(|error| (to.0, error))?,
                Poll::Pending => 0,
            };
            self.bytes += sent as u64;
            if sent < received.len() {
                self.carry = Carry::Bytes { buffer: received[sent..].into(), start: 0 };
            }
            Poll::Ready(Ok(()))
        })
    }

    fn put_down_pipe(&mut self) {
        if let Carry::Pipe(pipe) = std::mem::take(&mut self.carry) {
            pipe.give_back();
        }
    }
}

/// A peer that is gone already needs no FIN: the other direction will hear of its reset.
fn not_connected(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotConnected => Ok(()),
        _ => Err(error),
    }
}

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice());
}
