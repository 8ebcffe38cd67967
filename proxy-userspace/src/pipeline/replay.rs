//! Content that is kept to be sent again, if it has to be: read before anything is sent, of requests that may be repeated.

use std::time::{Duration, Instant};

use super::failure::Failure;
use super::side::{Directions, DownstreamSide};
use crate::http::framing::{BadFraming, Framing};
use crate::http::head::RequestHead;
use crate::relay::Side;
use crate::relay::body::held::Held;
use crate::relay::body::{BodyError, Piece, Source};
use crate::target::Client;
use crate::telemetry::flow::Protocol;

/// As good as no bound.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// RFC 9110 §9.2.2.
pub(super) fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Whether content of this length can be kept. Who waits for 100 (Continue) waits for the server's word, not for weir's.
pub(super) fn can_keep(head: &RequestHead, framing: Framing, most: usize) -> bool {
    let waits = head.headers.iter().any(|field| field.name.eq_ignore_ascii_case(b"expect"));
    matches!(framing, Framing::Length(length) if length <= most as u64) && !waits
}

/// How long a client may take to send it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Each time that nothing comes.
    pub wait: Duration,
    /// Bytes a second on average; 0 is any.
    pub least_rate: u64,
}

impl Pace {
    /// For all of it.
    fn longest(self, framing: Framing) -> Duration {
        match framing {
            Framing::Length(length) if self.least_rate > 0 => {
                self.wait + Duration::from_secs(length / self.least_rate)
            }
            // Each byte may take as long as it likes; there is a bound on how many there are.
            _ => FOREVER,
        }
    }
}

/// A downstream side whose content is here.
#[derive(Debug)]
pub(super) struct Kept<'d, D> {
    downstream: &'d mut D,
    content: Vec<u8>,
}

impl<'d, D: DownstreamSide> Kept<'d, D> {
    /// Reads all of it.
    pub(super) async fn read(downstream: &'d mut D, framing: Framing, pace: Pace) -> Result<Self, Failure> {
        let mut content = Vec::new();
        let late = || Failure::RequestBody(BodyError::TimedOut(Side::Downstream));
        let deadline = Instant::now() + pace.longest(framing);
        {
            let mut directions = downstream.open(framing);
            loop {
                match directions.content.next().map_err(Failure::RequestBody)? {
                    Piece::Content(piece) | Piece::Placed(piece, _) => content.extend_from_slice(piece),
                    Piece::End(_) => break,
                    Piece::Nothing => {
                        let left = deadline.saturating_duration_since(Instant::now()).min(pace.wait);
                        let filled = directions.deadline.limit(left, directions.content.fill()).await;
                        filled.map_err(|_| late())?.map_err(Failure::RequestBody)?;
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
