//! Moves the content of one body from where it arrives to where it goes. How it is framed on either side is that
//! side's own matter ([`http1`] is one of them), and what is done to it in between that of [`super::stage`].

pub mod held;
pub mod http1;
pub mod http2;
mod pace;

pub use pace::Waited;

use std::cell::Cell;
use std::future::{Future, ready};
use std::io;
use std::time::Duration;

use super::tunnel::Side;
use crate::http::chunked::BadChunk;
use crate::http::headers::Headers;
use crate::net::deadline::{self, Deadline, Expired};
use crate::net::pacing::Pace;
use crate::net::place::Place;
use crate::telemetry::metrics;

/// What is gathered before it is written: a head and the first part of its body leave in one write.
const GATHER: usize = 64 << 10;

/// A part of this size or more is written from where it is, instead of being copied to what is gathered. Below, the copy
/// costs less than a write of its own would.
const LARGE: usize = 32 << 10;

/// Where something bounds how much may pass in a second, so much is sent at one time.
const PACED: usize = 64 << 10;

/// Where content comes from: a connection, a stream of one, or a store.
pub trait Source {
    /// Whose body it is.
    fn side(&self) -> Side;

    /// Whether it was said at the start how long it is. Else it may be a stream, with its own idea of time.
    fn has_length(&self) -> bool {
        false
    }

    /// What has arrived and was not given yet, or why there is no more. Never waits. What it gives counts as used
    /// from the next call on.
    ///
    /// # Errors
    /// [`BodyError`]: the body ends here, incomplete.
    fn next(&mut self) -> Result<Piece<'_>, BodyError>;

    /// Waits until [`Source::next`] has something to say. Called only after it had not.
    ///
    /// # Errors
    /// [`BodyError::Io`], as the connection says it.
    fn fill(&mut self) -> impl Future<Output = Result<(), BodyError>>;
}

impl<S: Source> Source for &mut S {
    fn side(&self) -> Side {
        S::side(self)
    }

    fn has_length(&self) -> bool {
        S::has_length(self)
    }

    fn next(&mut self) -> Result<Piece<'_>, BodyError> {
        S::next(self)
    }

    fn fill(&mut self) -> impl Future<Output = Result<(), BodyError>> {
        S::fill(self)
    }
}

/// Fields that follow a body. Boxed: there rarely are any, and pieces are passed around a lot.
pub type Trailers = Option<Box<Headers>>;

/// A part of a body.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Never empty.
    Content(&'a [u8]),
    /// The same, and where else it is.
    Placed(&'a [u8], Place),
    /// Nothing has arrived.
    Nothing,
    /// The body is whole. Trailers may follow it (RFC 9110 §6.5).
    End(Trailers),
}

impl Piece<'_> {
    fn place(&self) -> Option<Place> {
        if let Self::Placed(_, place) = self { Some(*place) } else { None }
    }
}

/// Where content goes.
pub trait Sink {
    /// Who takes it.
    fn side(&self) -> Side;

    /// Takes the next part, to go out with the next flush.
    ///
    /// # Errors
    /// [`BodyError`] of who looks at it on the way: none of what follows may go out.
    fn put(&mut self, content: &[u8]) -> Result<(), BodyError>;

    /// Takes as much of a large part as the receiver's side has room for, and sends it at once behind what is staged,
    /// without copying it, from its place if it has one; or takes all of it as [`Sink::put`] does. How much it took.
    ///
    /// # Errors
    /// As [`Sink::put`], and as the connection says it.
    fn put_some(
        &mut self,
        content: &[u8],
        _place: Option<Place>,
    ) -> impl Future<Output = Result<usize, BodyError>> {
        ready(self.put(content).map(|()| content.len()))
    }

    /// How many bytes wait for a flush.
    fn staged(&self) -> usize;

    /// Takes the end: the body is whole. A sink that never hears of it has got an incomplete body, and makes that
    /// known to its receiver when it is dropped, or its connection is.
    ///
    /// # Errors
    /// As [`Sink::put`].
    fn end(&mut self, trailers: Trailers) -> Result<(), BodyError>;

    /// Nothing more has arrived for now: what was held back to be worked on together is to go out with the next flush.
    ///
    /// # Errors
    /// As [`Sink::put`].
    fn pause(&mut self) -> Result<(), BodyError> {
        Ok(())
    }

    /// Waits until the receiver's side has taken all that was put.
    ///
    /// # Errors
    /// As the connection says it.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>>;

    /// Ready once the receiver is gone: nobody waits for what is still to come.
    fn gone(&mut self) -> impl Future<Output = ()>;
}

impl<K: Sink> Sink for &mut K {
    fn side(&self) -> Side {
        K::side(self)
    }

    fn put(&mut self, content: &[u8]) -> Result<(), BodyError> {
        K::put(self, content)
    }

    fn put_some(
        &mut self,
        content: &[u8],
        place: Option<Place>,
    ) -> impl Future<Output = Result<usize, BodyError>> {
        K::put_some(self, content, place)
    }

    fn staged(&self) -> usize {
        K::staged(self)
    }

    fn end(&mut self, trailers: Trailers) -> Result<(), BodyError> {
        K::end(self, trailers)
    }

    fn pause(&mut self) -> Result<(), BodyError> {
        K::pause(self)
    }

    fn flush(&mut self) -> impl Future<Output = io::Result<()>> {
        K::flush(self)
    }

    fn gone(&mut self) -> impl Future<Output = ()> {
        K::gone(self)
    }
}

/// What bounds a transfer, and what counts it.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    pub patience: Patience<'a>,
    /// More content than this is [`BodyError::TooLarge`].
    pub limit: Option<u64>,
    /// A source has to keep the pace that [`Patience::least_rate`] says even if its length is not known.
    pub paces_streams: bool,
    /// Bytes of content that the sink has taken; counted as they go. None for what weir itself says.
    pub moved: Option<&'a Cell<u64>>,
}

/// How long either side may keep the other waiting.
#[derive(Debug, Clone, Copy)]
pub struct Patience<'a> {
    pub deadline: &'a Deadline,
    pub read: Duration,
    pub write: Duration,
    /// Bytes a second that either must move on average, where it is waited for longer than that in all; 0: any.
    pub least_rate: u64,
    /// What bounds how much may pass in a second.
    pub pace: Option<&'a Pace>,
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
    #[error("it moved at less than server.limits.min_rate ({1} bytes a second)")]
    TooSlow(Side, u64),
}

/// Moves one body, and what the sink has staged before it: its head.
///
/// # Errors
/// [`BodyError`]. The sink has then got an incomplete body, and must not be used again.
pub async fn transfer(
    mut source: impl Source,
    mut sink: impl Sink,
    terms: Terms<'_>,
) -> Result<(), BodyError> {
    let (mut total, mut uncounted) = (0, 0);
    let (mut source_waited, mut sink_waited) = (Waited::default(), Waited::default());
    let paces_source = source.has_length() || terms.paces_streams;
    let mut charged = 0;
    loop {
        if let Some(pace) = terms.patience.pace {
            pace.charge(total - std::mem::replace(&mut charged, total));
            if pace.is_used_up() {
                flush(&mut sink, &mut uncounted, (total, &mut sink_waited), terms).await?;
                keep_to(pace, &mut sink).await?;
            }
        }
        let piece = source.next()?;
        let place = piece.place();
        let trailers = match piece {
            Piece::Content(content) | Piece::Placed(content, _) => {
                total += content.len() as u64;
                if let Some(limit) = terms.limit.filter(|limit| total > *limit) {
                    return Err(BodyError::TooLarge(limit));
                }
                let content = (content, place);
                let counts = (&mut uncounted, &mut charged);
                let content = put_large(&mut sink, content, counts, (total, &mut sink_waited), terms).await?;
                // An empty chunk would be the last one.
                if !content.is_empty() {
                    uncounted += content.len() as u64;
                    sink.put(content)?;
                }
                if sink.staged() >= GATHER {
                    flush(&mut sink, &mut uncounted, (total, &mut sink_waited), terms).await?;
                }
                continue;
            }
            Piece::Nothing => {
                sink.pause()?;
                flush(&mut sink, &mut uncounted, (total, &mut sink_waited), terms).await?;
                let since = deadline::ticks();
                fill(&mut source, &mut sink, terms.patience).await?;
                if paces_source {
                    source_waited.note(since, terms.patience.read, terms.patience, total, source.side())?;
                }
                continue;
            }
            Piece::End(trailers) => trailers,
        };
        sink.end(trailers)?;
        return flush(&mut sink, &mut uncounted, (total, &mut sink_waited), terms).await;
    }
}

/// Waits until more may pass.
async fn keep_to(pace: &Pace, sink: &mut impl Sink) -> Result<(), BodyError> {
    let side = sink.side();
    tokio::select! {
        () = pace.ready() => Ok(()),
        () = sink.gone() => Err(BodyError::Io(side, io::ErrorKind::ConnectionReset.into())),
    }
}

async fn fill(
    source: &mut impl Source,
    sink: &mut impl Sink,
    patience: Patience<'_>,
) -> Result<(), BodyError> {
    let (side, sink_side) = (source.side(), sink.side());
    let more = patience.deadline.limit(patience.read, async {
        tokio::select! {
            biased;
            filled = source.fill() => filled,
            // Whoever has reset its connection waits for nothing any more.
            () = sink.gone() => Err(BodyError::Io(sink_side, io::ErrorKind::ConnectionReset.into())),
        }
    });
    match more.await {
        Ok(filled) => filled,
        Err(Expired::TimedOut | Expired::Drained) => Err(BodyError::TimedOut(side)),
    }
}

/// Sends a large part piece by piece, as the receiver takes it: each has its time. What is left is not large.
async fn put_large<'a>(
    sink: &mut impl Sink,
    (mut content, mut place): (&'a [u8], Option<Place>),
    (uncounted, charged): (&mut u64, &mut u64),
    (total, waited): (u64, &mut Waited),
    terms: Terms<'_>,
) -> Result<&'a [u8], BodyError> {
    let side = sink.side();
    while content.len() >= LARGE {
        let since = deadline::ticks();
        let part = terms.patience.pace.map_or(content, |_| &content[..content.len().min(PACED)]);
        let taken =
            match terms.patience.deadline.limit(terms.patience.write, sink.put_some(part, place)).await {
                Ok(taken) => taken?,
                Err(Expired::TimedOut | Expired::Drained) => return Err(BodyError::TimedOut(side)),
            };
        *uncounted += taken as u64;
        if sink.staged() == 0 {
            count(side, uncounted, terms);
        }
        content = &content[taken..];
        place = place.map(|place| place.after(taken as u64));
        waited.note(since, terms.patience.write, terms.patience, total - content.len() as u64, side)?;
        if let Some(pace) = terms.patience.pace {
            *charged += taken as u64;
            pace.charge(taken as u64);
            keep_to(pace, sink).await?;
        }
    }
    Ok(content)
}

async fn flush(
    sink: &mut impl Sink,
    uncounted: &mut u64,
    (total, waited): (u64, &mut Waited),
    terms: Terms<'_>,
) -> Result<(), BodyError> {
    let side = sink.side();
    if sink.staged() == 0 {
        return Ok(());
    }
    let since = deadline::ticks();
    match terms.patience.deadline.limit(terms.patience.write, sink.flush()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(BodyError::Io(side, error)),
        Err(Expired::TimedOut | Expired::Drained) => return Err(BodyError::TimedOut(side)),
    }
    count(side, uncounted, terms);
    waited.note(since, terms.patience.write, terms.patience, total, side)
}

/// Counts what the sink has taken for good.
fn count(side: Side, uncounted: &mut u64, terms: Terms<'_>) {
    let Some(moved) = terms.moved else { return };
    let count = std::mem::take(uncounted);
    moved.set(moved.get() + count);
    metrics::with(|metrics| match side {
        Side::Upstream => metrics.sent_bytes.add(count),
        Side::Downstream => metrics.received_bytes.add(count),
    });
}

#[cfg(test)]
mod tests;
