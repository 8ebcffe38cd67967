//! A body that is stored on its way to the client. The store takes it as it arrives, the client as it can: whoever reads
//! slowly does not keep others waiting for the rest, and whoever leaves does not take it from them.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use super::content::parsed;
use super::fetch::{Fetch, Storing};
use crate::cache::body::Body;
use crate::cache::filling::{Given, Place, Reader, Writer};
use crate::http::trailers;
use crate::net::deadline::{self, Deadline, Expired};
use crate::pipeline::failure::Failure;
use crate::pipeline::response::deliver;
use crate::pipeline::side::Reply;
use crate::relay::Side;
use crate::relay::body::{BodyError, Patience, Piece, Source, Waited};
use crate::relay::stage::Stages;

/// Stores and delivers a body. It is in store before the client has the last of it: who then asks again finds it.
pub(in crate::pipeline) async fn store_and_deliver(
    body: impl Source,
    storing: Storing,
    fetch: &mut Fetch<'_>,
    (reply, stages): (&mut impl Reply, &mut Stages),
    received: &Cell<u64>,
    patience: Patience<'_>,
) -> Result<(), Failure> {
    let Storing { mut writer, reader, begun, .. } = storing;
    let filling = Arc::clone(writer.filling());
    writer.prepare().await;
    fetch.announce(&filling);
    let own_deadline = Deadline::new();
    let begun = begun.held().map(|pieces| pieces.to_vec()).unwrap_or_default();
    let mut fill = pin!(fill(body, begun, writer, Patience { deadline: &own_deadline, ..patience }));
    let mut deliver = pin!(deliver(Follow::new(reader), reply, stages, Some(received), patience));
    let (mut filled, mut delivered) = (None, None);
    poll_fn(|cx| {
        if filled.is_none()
            && let Poll::Ready(result) = fill.as_mut().poll(cx)
        {
            filled = Some(result.map(|body| {
                if let Some(body) = body {
                    fetch.filled(&filling, body);
                }
            }));
        }
        if delivered.is_none()
            && let Poll::Ready(result) = deliver.as_mut().poll(cx)
        {
            delivered = Some(result);
        }
        match (&filled, &delivered) {
            (Some(_), Some(_)) => Poll::Ready(()),
            // The client is gone, and nobody else is there.
            (None, Some(Err(_))) if !filling.has_followers() && !fetch.is_awaited() => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
    // What was stored is nobody's to cut off any more.
    fetch.cut_off(&filling);
    match (filled, delivered) {
        // What went wrong with the source is the reason, not that the reader saw it cut off.
        (Some(Err(error)), _) => Err(Failure::ResponseBody(error)),
        (_, delivered) => delivered.unwrap_or(Ok(())),
    }
}

/// Puts a body into the store's hands.
async fn fill(
    mut body: impl Source,
    begun: Vec<Bytes>,
    mut writer: Writer,
    patience: Patience<'_>,
) -> Result<Option<Body>, BodyError> {
    let (mut total, mut waited) = (0, Waited::default());
    let is_rest = !begun.is_empty();
    for piece in begun {
        total += piece.len() as u64;
        writer.put(&piece);
        writer.show();
        writer.room().await;
    }
    loop {
        match body.next()? {
            Piece::Content(content) | Piece::Placed(content, _) => {
                total += content.len() as u64;
                writer.put(content);
            }
            Piece::Nothing => {
                writer.show();
                writer.room().await;
                let since = deadline::ticks();
                match patience.deadline.limit(patience.read, body.fill()).await {
                    Ok(filled) => filled?,
                    Err(Expired::TimedOut | Expired::Drained) => {
                        return Err(BodyError::TimedOut(body.side()));
                    }
                }
                if body.has_length() {
                    waited.note(since, patience.read, patience, total, body.side())?;
                }
            }
            Piece::End(trailers) => {
                // What follows a part is not what follows the whole.
                let trailers = trailers.filter(|_| !is_rest).and_then(|fields| trailers::section(&fields));
                if let Some(section) = trailers {
                    writer.put_trailers(&section);
                }
                writer.settle().await;
                return Ok(writer.complete());
            }
        }
    }
}

/// A response under way, as the source of a body.
pub(super) struct Follow {
    reader: Reader,
    held: Bytes,
    /// Where on disk what comes next is to be read, and what was read.
    place: Option<Place>,
    read: Option<Bytes>,
    /// It was seen that the response is cut off.
    cut: bool,
}

impl Follow {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, held: Bytes::new(), place: None, read: None, cut: false }
    }
}

impl Source for Follow {
    fn side(&self) -> Side {
        Side::Upstream
    }

    fn next(&mut self) -> Result<Piece<'_>, BodyError> {
        if let Some(read) = self.read.take() {
            self.held = read;
            return Ok(Piece::Content(&self.held));
        }
        match self.reader.take() {
            Given::Filed(place) => {
                self.place = Some(place);
                Ok(Piece::Nothing)
            }
            Given::Piece(piece) => {
                self.held = piece;
                Ok(Piece::Content(&self.held))
            }
            Given::Nothing => Ok(Piece::Nothing),
            Given::Whole(trailers) => Ok(Piece::End(parsed(trailers.as_deref()))),
            // What came before goes out first.
            Given::Cut if !self.cut => {
                self.cut = true;
                Ok(Piece::Nothing)
            }
            Given::Cut => Err(BodyError::Truncated(Side::Upstream)),
        }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        if let Some(place) = self.place {
            let read = self.reader.filling().read(place).await;
            self.read = Some(read.map_err(|error| BodyError::Io(Side::Upstream, error))?);
            self.place = None;
        } else if !self.cut {
            self.reader.more().await;
        }
        Ok(())
    }
}
