//! Bodies that are held back until they were judged (`security.inspection`). Nothing of a request's has reached its server
//! by then, nothing of a response's its client: both can still be answered with 403, and the cache stores nothing that was
//! not judged. What goes on beyond what is held passes behind it, if the rule for that lets it.

#![cfg_attr(not(feature = "inspection"), allow(unused, reason = "nothing is ever held back then"))]

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::Engine;
use super::failure::Failure;
use super::request::Request;
use super::response::within;
use super::side::Reply;
use crate::config::Direction;
use crate::http::forward::Pseudonym;
use crate::http::framing::Framing;
use crate::http::head::{ResponseHead, Version};
use crate::http::headers::{Headers, Name};
use crate::net::deadline::Expired;
use crate::policy::inspection::{Held, Inspection, Verdict};
use crate::relay::Side;
use crate::relay::body::{BodyError, Patience, Piece, Source, Trailers};
use crate::telemetry::metrics;

/// What is passed on at one time: who compresses it has other connections, too.
const PIECE: usize = 64 << 10;

/// A body, of which the beginning may have been held back.
pub(super) struct Judged<S> {
    source: S,
    held: Option<Arc<Held>>,
    /// How much of that was passed on.
    passed: usize,
    /// The end was seen while it was held.
    ended: Option<Trailers>,
}

/// What bodies of this exchange are judged by, in this direction; None: by nothing.
pub(super) fn inspected(
    engine: &Engine,
    request: &Request,
    direction: Direction,
    framing: Framing,
) -> Option<Arc<Inspection>> {
    if framing == Framing::None {
        return None;
    }
    inspection(engine, request, direction)
}

fn inspection(engine: &Engine, request: &Request, direction: Direction) -> Option<Arc<Inspection>> {
    let policy = engine.policy.current();
    let host = request.target.authority.as_ref().map(|authority| &authority.host);
    policy.inspection.as_ref().filter(|inspection| inspection.wants(direction, host)).map(Arc::clone)
}

/// The request for the whole of what a part is asked of, where that has to be judged (RFC 9110 §14.2: whoever does not
/// care for Range may leave it out).
pub(super) fn of_the_whole(engine: &Engine, request: &Request) -> Option<Request> {
    let is_range =
        |name: &[u8]| name.eq_ignore_ascii_case(b"range") || name.eq_ignore_ascii_case(b"if-range");
    inspection(engine, request, Direction::Response)?;
    request.head.headers.iter().any(|field| is_range(field.name)).then(|| {
        let mut head = request.head.clone();
        head.headers.retain(|field| !is_range(field.name));
        request.with_head(head)
    })
}

impl<S: Source> Judged<S> {
    /// Nothing of it is held back yet.
    pub(super) fn of(source: S) -> Self {
        Self { source, held: None, passed: 0, ended: None }
    }

    /// Holds a request's body back until it was judged.
    ///
    /// # Errors
    /// The refusal, and what is wrong with the body.
    pub(super) async fn judge_request(
        &mut self,
        inspection: &Inspection,
        request: &Request,
        reply: &mut impl Reply,
        via: &Pseudonym,
        patience: Patience<'_>,
    ) -> Result<(), Failure> {
        // RFC 9110 §10.1.1: the client waits to be asked, and its server has not heard of it yet.
        if request.head.version > Version::Http10 && request.head.headers.first(Name::Expect).is_some() {
            let head = ResponseHead::new(Version::Http11, 100, "Continue");
            within(patience, reply.interim(&head, via)).await?;
        }
        let judging = self.judge(inspection, Direction::Request, &request.head.headers, false, patience);
        judging.await.map_err(|error| match error {
            Refused::ByRule(failure) => failure,
            Refused::Broken(error) => Failure::RequestBody(error),
        })
    }

    /// Holds a response's body back until it was judged.
    ///
    /// # Errors
    /// The refusal, and what is wrong with the body.
    pub(super) async fn judge_response(
        &mut self,
        inspection: &Inspection,
        head: &ResponseHead,
        patience: Patience<'_>,
    ) -> Result<(), Failure> {
        let is_part = head.status == 206;
        let judging = self.judge(inspection, Direction::Response, &head.headers, is_part, patience);
        judging.await.map_err(|error| match error {
            Refused::ByRule(failure) => failure,
            Refused::Broken(BodyError::TimedOut(Side::Upstream)) => Failure::AnswerTimedOut,
            Refused::Broken(error) => Failure::BadAnswer(error.to_string()),
        })
    }

    async fn judge(
        &mut self,
        inspection: &Inspection,
        direction: Direction,
        headers: &Headers,
        is_part: bool,
        patience: Patience<'_>,
    ) -> Result<(), Refused> {
        let (held, whole) = self.hold(inspection, headers, patience).await?;
        let (mut verdict, held) = inspection.judge(held, whole, headers).await;
        if is_part && verdict == Verdict::Clean {
            verdict = Verdict::Undecided("it is said to be a part, of what can't be said".into());
        }
        metrics::with(|metrics| {
            metrics.inspected.increment();
            if !whole {
                metrics.inspection_partial.increment();
            }
            if matches!(verdict, Verdict::Undecided(_) | Verdict::ClamdFailed(_)) {
                metrics.inspection_undecided.increment();
            }
        });
        inspection.act(verdict, whole, direction).map_err(|refusal| Refused::ByRule(refusal.into()))?;
        self.held = Some(held);
        Ok(())
    }

    /// Takes what is to be held of it. True: that is all of it.
    async fn hold(
        &mut self,
        inspection: &Inspection,
        headers: &Headers,
        patience: Patience<'_>,
    ) -> Result<(Held, bool), Refused> {
        let length = headers
            .first(Name::ContentLength)
            .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        let mut held = inspection.hold(length);
        let until = Instant::now() + inspection.max_wait();
        loop {
            match self.source.next().map_err(Refused::Broken)? {
                Piece::Content(content) | Piece::Placed(content, _) => {
                    if !inspection.take(&mut held, content) {
                        return Ok((held, false));
                    }
                }
                Piece::End(trailers) => {
                    self.ended = Some(trailers);
                    return Ok((held, true));
                }
                Piece::Nothing => {
                    let side = self.source.side();
                    let more = patience.deadline.limit(patience.read, self.source.fill());
                    match timeout_at(until, more).await {
                        Ok(Ok(filled)) => filled.map_err(Refused::Broken)?,
                        Ok(Err(Expired::TimedOut | Expired::Drained)) => {
                            return Err(Refused::Broken(BodyError::TimedOut(side)));
                        }
                        Err(_) => return Ok((held, false)),
                    }
                }
            }
        }
    }
}

/// Why a body does not go on.
enum Refused {
    ByRule(Failure),
    Broken(BodyError),
}

impl<S: Source> Source for Judged<S> {
    fn side(&self) -> Side {
        self.source.side()
    }

    fn has_length(&self) -> bool {
        self.source.has_length()
    }

    fn next(&mut self) -> Result<Piece<'_>, BodyError> {
        if self.held.as_ref().is_some_and(|held| self.passed >= held.content().len()) {
            self.held = None;
        }
        match &self.held {
            Some(held) => {
                let begin = self.passed;
                self.passed = held.content().len().min(begin + PIECE);
                Ok(Piece::Content(&held.content()[begin..self.passed]))
            }
            None => self.ended.take().map_or_else(|| self.source.next(), |trailers| Ok(Piece::End(trailers))),
        }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        self.source.fill().await
    }
}
