//! The response on its way back.

use std::cell::Cell;
use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::failure::Failure;
use crate::config::Limits;
use crate::http::forward::{self, Delivery, Pseudonym};
use crate::http::framing::Framing;
use crate::http::head::{ResponseHead, Version};
use crate::http::parse::{self, Parsed};
use crate::net::buffered::Inbox;
use crate::relay::Side;
use crate::relay::body::{Patience, Receiver, Sink, Source, transfer};

/// Interim responses before the final one. There is rarely more than one.
const MAX_INTERIM: usize = 16;

/// Both ends of the way back.
pub(super) struct Response<'a> {
    pub upstream: ReadHalf<'a>,
    pub inbox: &'a mut Inbox,
    pub downstream: WriteHalf<'a>,
    pub patience: Patience<'a>,
    pub limits: &'a Limits,
    pub via: &'a Pseudonym,
}

impl Response<'_> {
    /// The head of the final response; interim ones are passed on (RFC 9110 §15.2).
    pub(super) async fn final_head(&mut self, version: Version) -> Result<ResponseHead, Failure> {
        for passed_on in 0..=MAX_INTERIM {
            let head = self.head().await?;
            if head.status == 101 || !(100..200).contains(&head.status) {
                return Ok(head);
            }
            if passed_on == MAX_INTERIM {
                break;
            }
            // HTTP/1.0 knows no interim responses.
            if version == Version::Http11 {
                let mut out = Vec::new();
                forward::response(&head, Delivery::of_head(), self.via, &mut out);
                self.write(&out).await?;
            }
        }
        Err(Failure::BadAnswer("its interim responses do not end".into()))
    }

    async fn head(&mut self) -> Result<ResponseHead, Failure> {
        loop {
            match parse::response(self.inbox.bytes(), self.limits) {
                Ok(Parsed::Complete(head, length)) => {
                    self.inbox.consume(length);
                    return Ok(head);
                }
                Ok(Parsed::Partial) => {}
                Err(error) => return Err(Failure::BadAnswer(error.to_string())),
            }
            let more = async {
                tokio::select! {
                    biased;
                    filled = self.inbox.fill(&mut self.upstream) => Ok(filled),
                    // A client that has reset its connection waits for nothing any more.
                    () = self.downstream.reset() => Err(Failure::ClientGone),
                }
            };
            let filled = self.patience.deadline.limit(self.patience.read, more).await;
            match filled.map_err(|_| Failure::AnswerTimedOut)?? {
                Ok(1..) => {}
                Ok(0) | Err(_) if self.inbox.bytes().is_empty() => return Err(Failure::NoAnswer),
                Ok(0) | Err(_) => return Err(Failure::BadAnswer("its head was cut off".into())),
            }
        }
    }

    /// Writes `out`, and the body behind it.
    pub(super) async fn deliver(
        &mut self,
        arriving: Framing,
        delivered: Framing,
        out: &mut Vec<u8>,
        received: &Cell<u64>,
    ) -> Result<(), Failure> {
        let source = Source {
            side: Side::Upstream,
            reader: &mut self.upstream,
            inbox: self.inbox,
            framing: arriving,
            limit: None,
        };
        let sink = Sink {
            side: Side::Downstream,
            writer: &mut self.downstream,
            framing: delivered,
            pending: out,
            moved: received,
        };
        transfer(source, sink, self.patience).await.map_err(Failure::ResponseBody)
    }

    /// Passes a 101 on, and what the server said already in the new protocol.
    pub(super) async fn switch_protocols(&mut self, head: &ResponseHead) -> Result<(), Failure> {
        let mut out = Vec::new();
        forward::response(head, Delivery { upgrade: true, ..Delivery::of_head() }, self.via, &mut out);
        out.extend_from_slice(self.inbox.bytes());
        self.inbox.consume(usize::MAX);
        self.write(&out).await
    }

    async fn write(&mut self, out: &[u8]) -> Result<(), Failure> {
        let written = self.patience.deadline.limit(self.patience.write, self.downstream.write_all(out)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|_| Failure::ClientGone)
    }
}
