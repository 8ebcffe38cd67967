//! HTTP/2 to the next hop: one stream on a connection that is shared.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use bytes::BytesMut;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};

use crate::config::Limits;
use crate::http::framing::{BadFraming, Framing};
use crate::http::head::ResponseHead;
use crate::http::{framing, http2};
use crate::pipeline::failure::Failure;
use crate::pipeline::side::{Afterwards, Answer, Onward, UpstreamSide};
use crate::relay::Side;
use crate::relay::body::http2::{Received, Sent};
use crate::relay::body::{BodyError, Sink, Trailers};
use crate::upstream::Place;

/// A place for a stream.
#[derive(Debug)]
pub(in crate::pipeline) struct Http2(Place);

impl Http2 {
    /// Waits until there is room for one more stream.
    pub(in crate::pipeline) async fn on(mut place: Place) -> Result<Self, Failure> {
        poll_fn(|cx| place.send.poll_ready(cx)).await.map_err(|_| Failure::NoAnswer)?;
        Ok(Self(place))
    }
}

impl UpstreamSide for Http2 {
    type Sending<'a> = Http2Sending;
    type Answer<'a> = Http2Answer;

    fn begin(&mut self, onward: &Onward<'_>) -> Result<(Http2Sending, Http2Answer), Failure> {
        let request = http2::onward(onward.head, &onward.form, onward.via)
            .ok_or_else(|| Failure::BadRequest("its target can't be said in HTTP/2".into()))?;
        let whole = onward.form.framing == Framing::None;
        let (response, stream) = self.0.send.send_request(request, whole).map_err(|_| Failure::NoAnswer)?;
        let sent = Sent::behind_head(Side::Upstream, stream, BytesMut::new(), None);
        Ok((Http2Sending { sent, whole }, Http2Answer { response, heads: Vec::new(), body: None }))
    }
}

/// The request's body on its way.
#[derive(Debug)]
pub(in crate::pipeline) struct Http2Sending {
    sent: Sent,
    /// It has none, and its head said so.
    whole: bool,
}

impl Drop for Http2Sending {
    /// A request that is given up before its end is none. (One that is whole takes no harm.)
    fn drop(&mut self) {
        if !self.whole {
            self.sent.reset(Reason::CANCEL);
        }
    }
}

impl Sink for Http2Sending {
    fn side(&self) -> Side {
        Side::Upstream
    }

    fn put(&mut self, content: &[u8]) -> Result<(), BodyError> {
        self.sent.put(content)
    }

    fn staged(&self) -> usize {
        self.sent.staged()
    }

    fn end(&mut self, trailers: Trailers) -> Result<(), BodyError> {
        if self.whole { Ok(()) } else { self.sent.end(trailers) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.sent.flush().await?;
        self.whole |= self.sent.is_over();
        Ok(())
    }

    fn gone(&mut self) -> impl Future<Output = ()> {
        self.sent.gone()
    }
}

/// The way back on a stream.
#[derive(Debug)]
pub(in crate::pipeline) struct Http2Answer {
    response: ResponseFuture,
    /// Heads that have arrived, the last one first.
    heads: Vec<ResponseHead>,
    body: Option<RecvStream>,
}

impl Answer for Http2Answer {
    type Body<'a> = Received;

    fn next_head(&mut self, limits: &Limits) -> Result<Option<ResponseHead>, Failure> {
        let Some(head) = self.heads.pop() else { return Ok(None) };
        if head.headers.iter().count() > Limits::MAX_HEADER_COUNT {
            return Err(Failure::BadAnswer("the head has too many fields".into()));
        }
        let size: usize = head.headers.iter().map(|field| field.name.len() + field.value.len() + 4).sum();
        if size > limits.head {
            return Err(Failure::BadAnswer("the head is too large".into()));
        }
        Ok(Some(head))
    }

    async fn more(&mut self) -> Result<(), Failure> {
        poll_fn(|cx| {
            if let Poll::Ready(Some(Ok(interim))) = self.response.poll_informational(cx) {
                self.heads.insert(0, http2::response_head(&interim));
                return Poll::Ready(Ok(()));
            }
            let response = std::task::ready!(Future::poll(std::pin::Pin::new(&mut self.response), cx));
            Poll::Ready(match response {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    self.heads.insert(0, http2::response_head(&http::Response::from_parts(head, ())));
                    self.body = Some(body);
                    Ok(())
                }
                Err(error) => Err(failure(&error)),
            })
        })
        .await
    }

    fn framing(&self, head: &ResponseHead, method: &str) -> Result<Framing, BadFraming> {
        let ended = self.body.as_ref().is_none_or(RecvStream::is_end_stream);
        Ok(match framing::of_response(head, method)? {
            Framing::UntilClose if ended => Framing::Length(0),
            // The end of the stream is that of the body.
            Framing::UntilClose => Framing::Chunked,
            framing => framing,
        })
    }

    fn body(&mut self, _framing: Framing) -> Received {
        Received::after_head(Side::Upstream, self.body.take())
    }

    fn beyond(&mut self) -> &[u8] {
        &[]
    }

    fn afterwards(&self, _head: &ResponseHead, _framing: Framing) -> Afterwards {
        // The connection is nobody's own; it stays where it is.
        Afterwards::Reusable
    }
}

/// What a stream that yields no response says.
fn failure(error: &h2::Error) -> Failure {
    match error.reason() {
        // RFC 9113 §8.7: nothing of it was worked on.
        Some(Reason::REFUSED_STREAM) => Failure::NoAnswer,
        _ if error.is_go_away() || error.is_io() => Failure::NoAnswer,
        _ => Failure::BadAnswer(error.to_string()),
    }
}
