//! A body that is stored on its way to the client. The store takes it as it arrives, the client as it can: whoever reads
//! slowly does not keep others waiting for the rest, and whoever leaves does not take it from them.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::cache::entry::Body;
use crate::cache::filling::{Given, Reader, Writer};
use crate::net::deadline::{Deadline, Expired};
use crate::pipeline::failure::Failure;
use crate::pipeline::response::deliver;
use crate::pipeline::side::Reply;
use crate::relay::Side;
use crate::relay::body::{BodyError, Patience, Piece, Source};
use crate::relay::stage::Stages;

/// Stores and delivers a body. Returns what is to be stored, if it was received whole and is not too large.
pub(in crate::pipeline) async fn store_and_deliver(
    body: impl Source,
    (writer, reader): (Writer, Reader),
    reply: &mut impl Reply,
    stages: &mut Stages,
    received: &Cell<u64>,
    patience: Patience<'_>,
) -> (Option<Body>, Result<(), Failure>) {
    let filling = std::sync::Arc::clone(writer.filling());
    let own_deadline = Deadline::new();
    let mut fill = pin!(fill(body, writer, Patience { deadline: &own_deadline, ..patience }));
    let mut deliver = pin!(deliver(Follow::new(reader), reply, stages, Some(received), patience));
    let (mut filled, mut delivered) = (None, None);
    poll_fn(|cx| {
        if filled.is_none()
            && let Poll::Ready(result) = fill.as_mut().poll(cx)
        {
            filled = Some(result);
        }
        if delivered.is_none()
            && let Poll::Ready(result) = deliver.as_mut().poll(cx)
        {
            delivered = Some(result);
        }
        match (&filled, &delivered) {
            (Some(_), Some(_)) => Poll::Ready(()),
            // The client is gone, and nobody else is there.
            (None, Some(Err(_))) if !filling.has_followers() => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
    let delivered = match (&mut filled, delivered) {
        // What went wrong with the source is the reason, not that the reader saw it cut off.
        (Some(Err(_)), Some(Err(_)) | None) => match filled.take() {
            Some(Err(error)) => Err(Failure::ResponseBody(error)),
            _ => Ok(()),
        },
        (_, delivered) => delivered.unwrap_or(Ok(())),
    };
    (filled.and_then(Result::ok).flatten(), delivered)
}

/// Puts a body into the store's hands.
async fn fill(
    mut body: impl Source,
    mut writer: Writer,
    patience: Patience<'_>,
) -> Result<Option<Body>, BodyError> {
    loop {
        match body.next()? {
            Piece::Content(content) => writer.put(content),
            Piece::Nothing => {
                writer.show();
                writer.room().await;
                match patience.deadline.limit(patience.read, body.fill()).await {
                    Ok(filled) => filled?,
                    Err(Expired::TimedOut | Expired::Drained) => {
                        return Err(BodyError::TimedOut(body.side()));
                    }
                }
            }
            Piece::End(_) => return Ok(writer.complete()),
        }
    }
}

/// A response under way, as the source of a body.
pub(super) struct Follow {
    reader: Reader,
    held: bytes::Bytes,
}

impl Follow {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, held: bytes::Bytes::new() }
    }
}

impl Source for Follow {
    fn side(&self) -> Side {
        Side::Upstream
    }

    fn next(&mut self) -> Result<Piece<'_>, BodyError> {
        match self.reader.next() {
            Given::Piece(piece) => {
                self.held = piece;
                Ok(Piece::Content(&self.held))
            }
            Given::Nothing => Ok(Piece::Nothing),
            Given::Whole => Ok(Piece::End(None)),
            Given::Cut => Err(BodyError::Truncated(Side::Upstream)),
        }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        self.reader.more().await;
        Ok(())
    }
}
