//! The request on its way out, while the response is already being waited for: a server may answer before it
//! has read everything (RFC 9112 §9.3).

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use super::failure::Failure;
use crate::relay::Side;
use crate::relay::body::{BodyError, Patience};

/// A transfer of the request that is driven beside whatever is awaited.
pub(super) struct Sending<'a, F> {
    transfer: Option<Pin<&'a mut F>>,
    state: State,
    /// Whether it goes on: until it has ended, nobody is late with the answer.
    under_way: &'a Cell<bool>,
    answer: Patience<'a>,
}

enum State {
    UnderWay,
    /// The upstream has taken the whole request.
    Complete(Instant),
    /// The upstream takes no more of it; what it has answered decides.
    Refused,
}

impl<'a, F: Future<Output = Result<(), BodyError>>> Sending<'a, F> {
    /// `answer` is how long the answer may take from the end of the request on.
    pub(super) fn new(transfer: Pin<&'a mut F>, under_way: &'a Cell<bool>, answer: Patience<'a>) -> Self {
        under_way.set(true);
        Self { transfer: Some(transfer), state: State::UnderWay, under_way, answer }
    }

    /// Drives `foreground` to its end, and the request as far as it gets meanwhile.
    pub(super) async fn beside<T>(
        &mut self,
        mut foreground: Pin<&mut impl Future<Output = Result<T, Failure>>>,
    ) -> Result<T, Failure> {
        poll_fn(|cx| {
            if let Some(transfer) = &mut self.transfer
                && let Poll::Ready(result) = transfer.as_mut().poll(cx)
            {
                self.transfer = None;
                self.under_way.set(false);
                self.answer.deadline.arm(self.answer.read);
                self.state = match result {
                    Ok(()) => State::Complete(Instant::now()),
                    Err(
                        BodyError::Io(Side::Upstream, _)
                        | BodyError::TimedOut(Side::Upstream)
                        | BodyError::TooSlow(Side::Upstream, _),
                    ) => State::Refused,
                    // Nothing more can come of this: the request will never be whole.
                    Err(error) => return Poll::Ready(Err(Failure::RequestBody(error))),
                };
            }
            foreground.as_mut().poll(cx)
        })
        .await
    }

    /// Whether the whole request may yet arrive.
    pub(super) fn may_end_well(&self) -> bool {
        !matches!(self.state, State::Refused)
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete(_))
    }

    /// When the request had been sent; now, if it has not yet.
    pub(super) fn ended(&self) -> Instant {
        match self.state {
            State::Complete(ended) => ended,
            State::UnderWay | State::Refused => Instant::now(),
        }
    }
}
