//! What an exchange has to know of the others that there could be in its place.

use std::cell::Cell;
use std::future::Future;

use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use crate::http::head::ResponseHead;
use crate::relay::Side;
use crate::relay::body::BodyError;

/// One of several servers.
#[derive(Clone, Copy)]
pub(super) struct OneOf<'a> {
    /// What has the client come back there.
    pub set_cookie: Option<&'a str>,
    /// Whether an answer with this status is dropped, for that of another server.
    pub unwanted: Option<&'a dyn Fn(u16) -> bool>,
    /// For the head of its answer.
    pub deadline: Option<Instant>,
    /// It has ended its answer before that was whole.
    pub cut_off: &'a Cell<bool>,
}

/// Whether there could be another way if this one fails.
#[derive(Clone, Copy)]
pub(super) enum Attempt<'a> {
    /// The only way that there is.
    Only,
    OneOf(OneOf<'a>),
}

impl Attempt<'_> {
    /// Waits for the head of the answer, as long as it has time for that.
    pub(super) async fn in_time<T>(
        self,
        head: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match self {
            Self::OneOf(OneOf { deadline: Some(deadline), .. }) => {
                timeout_at(deadline, head).await.unwrap_or(Err(Failure::AnswerTimedOut))
            }
            Self::Only | Self::OneOf(_) => head.await,
        }
    }

    /// Whether an answer with this status is for the client.
    pub(super) fn check(self, status: u16) -> Result<(), Failure> {
        match self {
            Self::OneOf(OneOf { unwanted: Some(unwanted), .. }) if unwanted(status) => {
                Err(Failure::Unwanted(status))
            }
            Self::Only | Self::OneOf(_) => Ok(()),
        }
    }

    /// Notes whose fault it is that the answer was not delivered.
    pub(super) fn note(self, failure: &Failure) {
        if let (Self::OneOf(one), Failure::ResponseBody(error)) = (self, failure) {
            one.cut_off.set(matches!(
                error,
                BodyError::Truncated(Side::Upstream)
                    | BodyError::Io(Side::Upstream, _)
                    | BodyError::TimedOut(Side::Upstream)
                    | BodyError::TooSlow(Side::Upstream, _)
                    | BodyError::Malformed(_)
            ));
        }
    }

    /// Has the client come back to this server. What is stored for others was taken from the head before.
    pub(super) fn bind(self, head: &mut ResponseHead) {
        if let Self::OneOf(OneOf { set_cookie: Some(cookie), .. }) = self {
            head.headers.push(b"Set-Cookie", cookie.as_bytes());
        }
    }
}
