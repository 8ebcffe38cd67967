//! Content that is kept to be sent again, if it has to be: read before anything is sent, of requests that may be repeated.

use std::time::Duration;

use super::failure::Failure;
use super::side::{Directions, DownstreamSide};
use crate::http::framing::{BadFraming, Framing};
use crate::http::head::RequestHead;
use crate::relay::Side;
use crate::relay::body::held::Held;
use crate::relay::body::{BodyError, Piece, Source};
use crate::target::Client;
use crate::telemetry::flow::Protocol;

/// RFC 9110 §9.2.2.
pub(super) fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Whether content of this length can be kept. Who waits for 100 (Continue) waits for the server's word, not for weir's.
pub(super) fn can_keep(head: &RequestHead, framing: Framing, most: usize) -> bool {
    let waits = head.headers.iter().any(|field| field.name.eq_ignore_ascii_case(b"expect"));
    matches!(framing, Framing::Length(length) if length <= most as u64) && !waits
}

/// A downstream side whose content is here.
#[derive(Debug)]
pub(super) struct Kept<'d, D> {
    downstream: &'d mut D,
    content: Vec<u8>,
}

impl<'d, D: DownstreamSide> Kept<'d, D> {
    /// Reads all of it. `patience` is for each wait.
    pub(super) async fn read(
        downstream: &'d mut D,
        framing: Framing,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let mut content = Vec::new();
        {
            let mut directions = downstream.open(framing);
            loop {
                match directions.content.next().map_err(Failure::RequestBody)? {
                    Piece::Content(piece) | Piece::Placed(piece, _) => content.extend_from_slice(piece),
                    Piece::End(_) => break,
                    Piece::Nothing => {
                        let filled = directions.deadline.limit(patience, directions.content.fill()).await;
                        let filled = filled.unwrap_or(Err(BodyError::TimedOut(Side::Downstream)));
                        filled.map_err(Failure::RequestBody)?;
                    }
                }
            }
        }
        Ok(Self { downstream, content })
    }
}

impl<D: DownstreamSide> DownstreamSide for Kept<'_, D> {
    type Content<'a>
        = Held<'a>
    where
        Self: 'a;
    type Reply<'a>
        = D::Reply<'a>
    where
        Self: 'a;

    fn client(&self) -> &Client {
        self.downstream.client()
    }

    fn protocol(&self) -> Protocol {
        self.downstream.protocol()
    }

    fn framing(&self, head: &RequestHead) -> Result<Framing, BadFraming> {
        self.downstream.framing(head)
    }

    fn open(&mut self, _: Framing) -> Directions<'_, Held<'_>, D::Reply<'_>> {
        // Of the connection nothing more is read.
        let Directions { reply, deadline, .. } = self.downstream.open(Framing::None);
        Directions { content: Held::new(Side::Downstream, &self.content), reply, deadline }
    }
}
