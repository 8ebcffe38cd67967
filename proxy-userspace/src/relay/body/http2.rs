//! A body on an HTTP/2 stream, either way. Flow control is what bounds it: content that is not passed on is not
//! acknowledged, and no more is handed to the connection than the peer has made room for.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};

use super::{BodyError, Piece, Sink, Source, Trailers};
use crate::http::http2;
use crate::relay::tunnel::Side;

/// A body that arrives on a stream.
#[derive(Debug)]
pub struct Received {
    side: Side,
    /// None: nothing came behind the head.
    stream: Option<RecvStream>,
    /// What was received last.
    part: Bytes,
    /// It was given as content.
    given: bool,
    ended: bool,
    has_length: bool,
    trailers: Trailers,
}

impl Received {
    /// The body on `stream`.
    #[must_use]
    pub fn new(side: Side, stream: RecvStream) -> Self {
        Self::after_head(side, Some(stream))
    }

    /// The body behind a head; without a stream, none.
    #[must_use]
    pub fn after_head(side: Side, stream: Option<RecvStream>) -> Self {
        let ended = stream.as_ref().is_none_or(RecvStream::is_end_stream);
        Self { side, stream, part: Bytes::new(), given: false, ended, has_length: false, trailers: None }
    }

    /// The same body, of which it is known how long it is.
    #[must_use]
    pub fn with_length(self, has_length: bool) -> Self {
        Self { has_length, ..self }
    }

    /// Whether the peer has ended its side of the stream already.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }
}

impl Source for Received {
    fn side(&self) -> Side {
        self.side
    }

    fn has_length(&self) -> bool {
        self.has_length
    }

    fn next(&mut self) -> Result<Piece<'_>, BodyError> {
        if std::mem::take(&mut self.given) {
            let used = std::mem::take(&mut self.part).len();
            if let Some(stream) = &mut self.stream {
                // Fails only if more is given back than was received.
                let _ = stream.flow_control().release_capacity(used);
            }
        }
        if !self.part.is_empty() {
            self.given = true;
            return Ok(Piece::Content(&self.part));
        }
        if self.ended { Ok(Piece::End(self.trailers.take())) } else { Ok(Piece::Nothing) }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        let failed = |error| BodyError::Io(self.side, into_io(error));
        let Some(stream) = &mut self.stream else { return Ok(()) };
        match stream.data().await {
            Some(part) => self.part = part.map_err(failed)?,
            None => {
                let trailers = stream.trailers().await.map_err(failed)?;
                self.trailers = trailers.map(|fields| Box::new(http2::trailers(&fields)));
                self.ended = true;
            }
        }
        Ok(())
    }
}

/// A body on its way out on a stream whose head was sent.
#[derive(Debug)]
pub struct Sent {
    side: Side,
    stream: SendStream<Bytes>,
    staged: BytesMut,
    /// The body is whole, and its end still has to be sent.
    ending: Option<Trailers>,
    over: bool,
}

impl Sent {
    /// A body of which some is staged, and perhaps its end.
    #[must_use]
    pub fn behind_head(
        side: Side,
        stream: SendStream<Bytes>,
        staged: BytesMut,
        ending: Option<Trailers>,
    ) -> Self {
        Self { side, stream, staged, ending, over: false }
    }

    /// Whether the end was sent.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Ends the stream at once, and tells the peer that its body is not whole.
    pub fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.staged.is_empty() {
            self.stream.reserve_capacity(self.staged.len());
            let capacity = match self.stream.capacity() {
                // The connection gives out what the peer's windows and its own buffer have room for.
                0 => match ready!(self.stream.poll_capacity(cx)) {
                    Some(capacity) => capacity?,
                    None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
                },
                capacity => capacity,
            };
            let part = self.staged.split_to(capacity.min(self.staged.len())).freeze();
            let last = self.staged.is_empty() && matches!(self.ending, Some(None));
            if !part.is_empty() {
                self.stream.send_data(part, last)?;
            }
            if last {
                (self.ending, self.over) = (None, true);
            }
        }
        let Some(trailers) = self.ending.take() else { return Poll::Ready(Ok(())) };
        self.over = true;
        Poll::Ready(match trailers {
            None => self.stream.send_data(Bytes::new(), true),
            Some(trailers) => self.stream.send_trailers(http2::sent_trailers(&trailers)),
        })
    }
}

impl Sink for Sent {
    fn side(&self) -> Side {
        self.side
    }

    fn put(&mut self, content: &[u8]) -> Result<(), BodyError> {
        self.staged.extend_from_slice(content);
        Ok(())
    }

    fn staged(&self) -> usize {
        self.staged.len() + usize::from(self.ending.is_some())
    }

    fn end(&mut self, trailers: Trailers) -> Result<(), BodyError> {
        self.ending = Some(trailers);
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await.map_err(into_io)
    }

    async fn gone(&mut self) {
        // An error says the same: nobody is there any more.
        let _ = poll_fn(|cx| self.stream.poll_reset(cx)).await;
    }
}

/// What `h2` says, as an error of the connection.
pub fn into_io(error: h2::Error) -> io::Error {
    match error.get_io().map(io::Error::kind) {
        Some(kind) => io::Error::new(kind, error),
        None => io::Error::other(error),
    }
}

/// The code with which the peer has reset its stream, if that is what went wrong.
#[must_use]
pub fn reset_reason(error: &io::Error) -> Option<Reason> {
    let error: &h2::Error = error.get_ref()?.downcast_ref()?;
    error.reason().filter(|_| error.is_reset() && error.is_remote())
}
