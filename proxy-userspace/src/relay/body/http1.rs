//! A body on an HTTP/1 connection: out of one framing, into another (RFC 9112 §6, §7).

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::{BodyError, Piece, Sink, Source, Trailers};
use crate::http::chunked::{self, Decoder, Step};
use crate::http::framing::Framing;
use crate::http::trailers;
use crate::net::buffered::Inbox;
use crate::net::place::Place;
use crate::net::transport::WriteHalf;
use crate::relay::tunnel::Side;

/// A body that arrives on a connection, behind a head that was read from it.
#[derive(Debug)]
pub struct Arriving<'a, R> {
    side: Side,
    reader: R,
    inbox: &'a mut Inbox,
    framing: Framing,
    decoder: Decoder,
    /// Bytes of content still to come, where that is known.
    left: u64,
    /// Bytes of the inbox that were given as content.
    given: usize,
    /// The connection has ended.
    ended: bool,
    /// What has arrived of the trailer section.
    trailers: Vec<u8>,
}

impl<'a, R> Arriving<'a, R> {
    /// A body of which the inbox may hold the first bytes.
    pub fn new(side: Side, reader: R, inbox: &'a mut Inbox, framing: Framing) -> Self {
        let left = match framing {
            Framing::None => 0,
            Framing::Length(length) => length,
            Framing::Chunked | Framing::UntilClose => u64::MAX,
        };
        Self {
            side,
            reader,
            inbox,
            framing,
            decoder: Decoder::new(),
            left,
            given: 0,
            ended: false,
            trailers: Vec::new(),
        }
    }

    /// How many of the inbox's bytes are content; 0 if that needs more bytes, or there is no more.
    fn content(&mut self) -> Result<usize, BodyError> {
        let available = self.inbox.bytes().len();
        if self.framing != Framing::Chunked {
            let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(available);
            if self.framing != Framing::UntilClose {
                self.left -= taken as u64;
            }
            return Ok(taken);
        }
        while !self.decoder.is_done() && !self.inbox.bytes().is_empty() {
            match self.decoder.step(self.inbox.bytes())? {
                Step::Skip(count) => self.inbox.consume(count),
                Step::Data(count) => return Ok(count),
                Step::Trailer(count) => {
                    // Nearly always the empty line alone, in which there is nothing to keep.
                    let part = &self.inbox.bytes()[..count];
                    if !(self.trailers.is_empty() && part == b"\r\n") {
                        self.trailers.extend_from_slice(part);
                    }
                    self.inbox.consume(count);
                }
            }
        }
        Ok(0)
    }

    fn is_whole(&self) -> bool {
        match self.framing {
            Framing::None | Framing::Length(_) => self.left == 0,
            Framing::Chunked => self.decoder.is_done(),
            Framing::UntilClose => self.ended,
        }
    }
}

impl<R: AsyncRead + Unpin> Source for Arriving<'_, R> {
    fn side(&self) -> Side {
        self.side
    }

    fn has_length(&self) -> bool {
        matches!(self.framing, Framing::Length(_))
    }

    fn next(&mut self) -> Result<Piece<'_>, BodyError> {
        self.inbox.consume(std::mem::take(&mut self.given));
        self.given = self.content()?;
        match self.given {
            0 if self.is_whole() && self.trailers.is_empty() => Ok(Piece::End(None)),
            0 if self.is_whole() => Ok(Piece::End(trailers::parse(&std::mem::take(&mut self.trailers))?)),
            0 if self.ended => Err(BodyError::Truncated(self.side)),
            0 => Ok(Piece::Nothing),
            count => Ok(Piece::Content(&self.inbox.bytes()[..count])),
        }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        let filled = match self.framing {
            // A stream that says nothing for long, as in a tunnel, is to cost nothing meanwhile.
            Framing::UntilClose => self.inbox.fill_patiently(&mut self.reader).await,
            _ => self.inbox.fill(&mut self.reader).await,
        };
        match filled {
            Ok(count) => self.ended = count == 0,
            Err(error) => return Err(BodyError::Io(self.side, error)),
        }
        Ok(())
    }
}

/// A body on its way out, behind a head that is staged with it.
#[derive(Debug)]
pub struct Leaving<W> {
    side: Side,
    writer: W,
    framing: Framing,
    staged: Vec<u8>,
    /// The receiver takes trailers.
    passes_trailers: bool,
}

impl<W> Leaving<W> {
    /// A body with nothing staged yet.
    pub fn new(side: Side, writer: W, framing: Framing) -> Self {
        Self { side, writer, framing, staged: Vec::new(), passes_trailers: false }
    }

    /// Passes trailers on, where the framing has a place for them; otherwise they are dropped (RFC 9110 §6.5.1).
    pub fn pass_trailers(&mut self, passes: bool) {
        self.passes_trailers = passes;
    }

    /// Stages what goes before the body.
    pub fn stage_head(&mut self, framing: Framing, head: impl FnOnce(&mut Vec<u8>)) {
        self.framing = framing;
        if self.staged.capacity() == 0 {
            self.staged = STAGES.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        self.staged.reserve(HEAD_CAPACITY);
        head(&mut self.staged);
    }
}

impl<W: AsyncWrite + Unpin> Leaving<W> {
    /// Sends FIN behind all that was flushed.
    ///
    /// # Errors
    /// What shutdown(2) says.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.writer.shutdown().await
    }
}

impl<W> Drop for Leaving<W> {
    /// The next head finds the memory: two such allocations a request took a tenth of its time.
    fn drop(&mut self) {
        let mut staged = std::mem::take(&mut self.staged);
        if staged.capacity() == HEAD_CAPACITY {
            staged.clear();
            // While the thread ends, the pool may be gone.
            let _ = STAGES.try_with(|stages| {
                let mut stages = stages.borrow_mut();
                if stages.len() < MAX_STAGES {
                    stages.push(staged);
                }
            });
        }
    }
}

impl<W: Receiver> Leaving<W> {
    /// One write of what is staged and of what follows it. How much of the latter went out.
    async fn write_some(&mut self, content: &[u8]) -> io::Result<usize> {
        let written = match self.staged.is_empty() {
            true => self.writer.write(content).await?,
            false => self.writer.write_vectored(&[IoSlice::new(&self.staged), IoSlice::new(content)]).await?,
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        // A TLS session may hold back what its socket did not take.
        self.writer.flush().await?;
        let of_staged = written.min(self.staged.len());
        self.staged.drain(..of_staged);
        Ok(written - of_staged)
    }

    /// Sends what is staged, and then some of `count` bytes from their place. How many of these went out.
    async fn send_from(
        place: Place,
        count: usize,
        staged: &mut Vec<u8>,
        socket: &TcpStream,
    ) -> io::Result<usize> {
        while !staged.is_empty() {
            // The head is not to leave in a segment of its own.
            let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL;
            let send = || SockRef::from(socket).send_with_flags(staged, flags);
            let sent = socket.async_io(Interest::WRITABLE, send).await?;
            staged.drain(..sent);
        }
        place.send(count, socket).await
    }
}

/// Enough for nearly every head and a small body behind it.
const HEAD_CAPACITY: usize = 4 << 10;

/// Unused buffers for heads that a worker keeps.
const MAX_STAGES: usize = 64;

thread_local! {
    static STAGES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl<W: Receiver> Sink for Leaving<W> {
    fn side(&self) -> Side {
        self.side
    }

    fn put(&mut self, content: &[u8]) -> Result<(), BodyError> {
        match self.framing {
            Framing::Chunked => chunked::encode(content, &mut self.staged),
            _ => self.staged.extend_from_slice(content),
        }
        Ok(())
    }

    async fn put_some(&mut self, content: &[u8], place: Option<Place>) -> Result<usize, BodyError> {
        // A chunk needs its size before it and a line's end behind: gathered, that is one write.
        if self.framing == Framing::Chunked {
            return self.put(content).map(|()| content.len());
        }
        let sent = match (place, self.writer.socket()) {
            (Some(place), Some(socket)) => {
                Self::send_from(place, content.len(), &mut self.staged, socket).await
            }
            _ => self.write_some(content).await,
        };
        sent.map_err(|error| BodyError::Io(self.side, error))
    }

    fn staged(&self) -> usize {
        self.staged.len()
    }

    fn end(&mut self, trailers: Trailers) -> Result<(), BodyError> {
        match trailers.filter(|_| self.passes_trailers) {
            _ if self.framing != Framing::Chunked => {}
            None => self.staged.extend_from_slice(chunked::END),
            Some(trailers) => chunked::encode_end(trailers::passed_on(&trailers), &mut self.staged),
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        let written = self.writer.write_all(&self.staged).await;
        self.staged.clear();
        // A TLS session may hold back what its socket did not take.
        written.and(self.writer.flush().await)
    }

    fn gone(&mut self) -> impl Future<Output = ()> {
        self.writer.reset()
    }
}

/// A receiver that can tell that it is gone while nothing is sent to it.
pub trait Receiver: AsyncWrite + Unpin {
    /// Ready once its connection has been reset.
    fn reset(&self) -> impl Future<Output = ()>;

    /// Its socket, if what is sent to it goes there as it is.
    fn socket(&self) -> Option<&TcpStream>;
}

impl Receiver for WriteHalf<'_> {
    fn reset(&self) -> impl Future<Output = ()> {
        WriteHalf::reset(self)
    }

    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(writer) => Some(writer.as_ref()),
            Self::Tls(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
