//! Moves one body from a connection to another, framed anew on the way (RFC 9112 §6, §7).

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::tcp::WriteHalf;

use super::tunnel::Side;
use crate::http::chunked::{self, BadChunk, Decoder, Step};
use crate::http::framing::Framing;
use crate::net::buffered::Inbox;
use crate::net::deadline::{Deadline, Expired};
use crate::telemetry::metrics;

/// What is gathered before it is written: a head and the first part of its body leave in one write.
const GATHER: usize = 64 << 10;

/// Where a body comes from.
pub struct Source<'a, R> {
    pub side: Side,
    pub reader: R,
    pub inbox: &'a mut Inbox,
    pub framing: Framing,
    /// More content than this is [`BodyError::TooLarge`].
    pub limit: Option<u64>,
}

/// Where it goes.
pub struct Sink<'a, W> {
    pub side: Side,
    pub writer: W,
    pub framing: Framing,
    /// Bytes to go out before the body: its head.
    pub pending: &'a mut Vec<u8>,
    /// Bytes of content that the sink has taken; counted as they go.
    pub moved: &'a Cell<u64>,
}

/// A receiver that can tell that it is gone while nothing is sent to it.
pub trait Receiver: AsyncWrite + Unpin {
    /// Ready once its connection has been reset.
    fn reset(&self) -> impl Future<Output = ()>;
}

impl Receiver for WriteHalf<'_> {
    async fn reset(&self) {
        // Fails only while the runtime ends.
        let _ = self.ready(Interest::ERROR).await;
    }
}

impl<R: Receiver> Receiver for &mut R {
    fn reset(&self) -> impl Future<Output = ()> {
        R::reset(self)
    }
}

/// How long either side may keep the other waiting.
#[derive(Debug, Clone, Copy)]
pub struct Patience<'a> {
    pub deadline: &'a Deadline,
    pub read: Duration,
    pub write: Duration,
}

/// Why a body did not get through.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The sender closed its connection before the body's end.
    #[error("the body was cut off")]
    Truncated(Side),
    #[error(transparent)]
    Malformed(#[from] BadChunk),
    #[error("it is larger than server.limits.body ({0} bytes)")]
    TooLarge(u64),
    #[error("{1}")]
    Io(Side, io::Error),
    #[error("nothing moved for too long")]
    TimedOut(Side),
}

/// Moves one body, and `sink.pending` before it.
///
/// # Errors
/// [`BodyError`]. The sink has then got an incomplete body, and must not be used again.
pub async fn transfer<R, W>(
    source: Source<'_, R>,
    sink: Sink<'_, W>,
    patience: Patience<'_>,
) -> Result<(), BodyError>
where
    R: AsyncRead + Unpin,
    W: Receiver,
{
    let left = match source.framing {
        Framing::Length(length) => length,
        _ => u64::MAX,
    };
    let mut transfer =
        Transfer { source, sink, patience, left, decoder: Decoder::new(), content: 0, staged: 0 };
    match transfer.source.framing {
        Framing::None => {}
        Framing::Length(_) | Framing::UntilClose => transfer.plain().await?,
        Framing::Chunked => transfer.chunked().await?,
    }
    if transfer.sink.framing == Framing::Chunked {
        transfer.sink.pending.extend_from_slice(chunked::END);
    }
    transfer.flush().await
}

struct Transfer<'a, R, W> {
    source: Source<'a, R>,
    sink: Sink<'a, W>,
    patience: Patience<'a>,
    left: u64,
    decoder: Decoder,
    /// Bytes of content received so far, and those of them that wait in `sink.pending`.
    content: u64,
    staged: u64,
}

impl<R, W> Transfer<'_, R, W>
where
    R: AsyncRead + Unpin,
    W: Receiver,
{
    async fn plain(&mut self) -> Result<(), BodyError> {
        while self.left > 0 {
            let available = self.source.inbox.bytes().len();
            if available == 0 {
                self.flush().await?;
                if self.fill().await? == 0 {
                    return match self.source.framing {
                        Framing::UntilClose => Ok(()),
                        _ => Err(BodyError::Truncated(self.source.side)),
                    };
                }
                continue;
            }
            let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(available);
            self.content(taken).await?;
            self.left -= taken as u64;
        }
        Ok(())
    }

    async fn chunked(&mut self) -> Result<(), BodyError> {
        while !self.decoder.is_done() {
            let bytes = self.source.inbox.bytes();
            if bytes.is_empty() {
                self.flush().await?;
                if self.fill().await? == 0 {
                    return Err(BodyError::Truncated(self.source.side));
                }
                continue;
            }
            match self.decoder.step(bytes)? {
                Step::Skip(count) => self.source.inbox.consume(count),
                Step::Data(count) => self.content(count).await?,
            }
        }
        Ok(())
    }

    /// Passes the next `count` bytes of the inbox on as content.
    async fn content(&mut self, count: usize) -> Result<(), BodyError> {
        let total = self.content + count as u64;
        if let Some(limit) = self.source.limit.filter(|limit| total > *limit) {
            return Err(BodyError::TooLarge(limit));
        }
        let data = &self.source.inbox.bytes()[..count];
        match self.sink.framing {
            Framing::Chunked => chunked::encode(data, self.sink.pending),
            _ => self.sink.pending.extend_from_slice(data),
        }
        self.source.inbox.consume(count);
        self.content = total;
        self.staged += count as u64;
        if self.sink.pending.len() >= GATHER { self.flush().await } else { Ok(()) }
    }

    async fn fill(&mut self) -> Result<usize, BodyError> {
        let (side, sink_side) = (self.source.side, self.sink.side);
        let more = async {
            tokio::select! {
                biased;
                filled = self.source.inbox.fill(&mut self.source.reader) => {
                    filled.map_err(|error| BodyError::Io(side, error))
                }
                // Whoever has reset its connection waits for nothing any more.
                () = self.sink.writer.reset() => {
                    Err(BodyError::Io(sink_side, io::ErrorKind::ConnectionReset.into()))
                }
            }
        };
        match self.patience.deadline.limit(self.patience.read, more).await {
            Ok(filled) => filled,
            Err(Expired::TimedOut | Expired::Drained) => Err(BodyError::TimedOut(side)),
        }
    }

    async fn flush(&mut self) -> Result<(), BodyError> {
        let side = self.sink.side;
        if self.sink.pending.is_empty() {
            return Ok(());
        }
        let write = self.sink.writer.write_all(self.sink.pending);
        let written = self.patience.deadline.limit(self.patience.write, write).await;
        self.sink.pending.clear();
        match written {
            Ok(Ok(())) => self.count(),
            Ok(Err(error)) => return Err(BodyError::Io(side, error)),
            Err(Expired::TimedOut | Expired::Drained) => return Err(BodyError::TimedOut(side)),
        }
        Ok(())
    }

    fn count(&mut self) {
        let staged = std::mem::take(&mut self.staged);
        self.sink.moved.set(self.sink.moved.get() + staged);
        metrics::with(|metrics| match self.sink.side {
            Side::Upstream => metrics.sent_bytes.add(staged),
            Side::Downstream => metrics.received_bytes.add(staged),
        });
    }
}

#[cfg(test)]
mod tests;
