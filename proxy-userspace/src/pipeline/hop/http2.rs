//! HTTP/2 to the next hop: one stream on a connection that is shared.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};

use crate::config::Limits;
use crate::http::framing::{BadFraming, Framing};
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::{framing, http2, websocket};
use crate::pipeline::failure::Failure;
use crate::pipeline::side::{Afterwards, Answer, Onward, UpstreamSide};
use crate::relay::Side;
use crate::relay::body::http2::{Received, Sent};
use crate::relay::body::{BodyError, Sink, Trailers};
use crate::upstream::Place;

/// A place for a stream.
#[derive(Debug)]
pub(in crate::pipeline) struct Http2(Place);

/// A stream that carries a tunnel.
#[derive(Debug)]
pub struct OnStream {
    pub received: Received,
    pub sent: Sent,
    /// It counts as taken for as long.
    _place: Place,
}

impl Http2 {
    /// Waits until there is room for one more stream.
    pub(in crate::pipeline) async fn on(mut place: Place) -> Result<Self, Failure> {
        poll_fn(|cx| place.send.poll_ready(cx)).await.map_err(|_| Failure::NoAnswer)?;
        Ok(Self(place))
    }

    /// The stream behind an answer that has switched it to another protocol.
    pub(in crate::pipeline) fn carrying(self, (received, sent): (RecvStream, SendStream<Bytes>)) -> OnStream {
        OnStream {
            received: Received::new(Side::Upstream, received),
            sent: Sent::behind_head(Side::Upstream, sent, BytesMut::new(), None),
            _place: self.0,
        }
    }
}

impl UpstreamSide for Http2 {
    type Sending<'a> = Http2Sending;
    type Answer<'a> = Http2Answer;
    type Stream = Option<(RecvStream, SendStream<Bytes>)>;

    fn begin(&mut self, onward: &Onward<'_>) -> Result<(Http2Sending, Http2Answer), Failure> {
        let request = http2::onward(onward.head, &onward.form, onward.via)
            .ok_or_else(|| Failure::BadRequest("its target can't be said in HTTP/2".into()))?;
        let asked = onward.form.upgrade.then(|| onward.head.clone());
        let whole = asked.is_none() && onward.form.framing == Framing::None;
        let (response, stream) = self.0.send.send_request(request, whole).map_err(|_| Failure::NoAnswer)?;
        let (sent, asked) = match asked {
            // The stream stays open for what comes behind the answer.
            Some(head) => (None, Some(Asked { head, stream })),
            None => (Some(Sent::behind_head(Side::Upstream, stream, BytesMut::new(), None)), None),
        };
        let sending = Http2Sending { whole: whole || sent.is_none(), sent };
        Ok((sending, Http2Answer { response, heads: Vec::new(), body: None, asked }))
    }
}

/// The request's body on its way.
#[derive(Debug)]
pub(in crate::pipeline) struct Http2Sending {
    /// None: the stream carries another protocol.
    sent: Option<Sent>,
    /// It has none, and its head said so.
    whole: bool,
}

impl Drop for Http2Sending {
    /// A request that is given up before its end is none. (One that is whole takes no harm.)
    fn drop(&mut self) {
        if let Some(sent) = &mut self.sent
            && !self.whole
        {
            sent.reset(Reason::CANCEL);
        }
    }
}

impl Sink for Http2Sending {
    fn side(&self) -> Side {
        Side::Upstream
    }

    fn put(&mut self, content: &[u8]) -> Result<(), BodyError> {
        self.sent.as_mut().map_or(Ok(()), |sent| sent.put(content))
    }

    fn staged(&self) -> usize {
        self.sent.as_ref().map_or(0, Sink::staged)
    }

    fn end(&mut self, trailers: Trailers) -> Result<(), BodyError> {
        match &mut self.sent {
            Some(sent) if !self.whole => sent.end(trailers),
            _ => Ok(()),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if let Some(sent) = &mut self.sent {
            sent.flush().await?;
            self.whole |= sent.is_over();
        }
        Ok(())
    }

    async fn gone(&mut self) {
        match &mut self.sent {
            Some(sent) => sent.gone().await,
            None => std::future::pending().await,
        }
    }
}

/// The way back on a stream.
#[derive(Debug)]
pub(in crate::pipeline) struct Http2Answer {
    response: ResponseFuture,
    /// Heads that have arrived, the last one first.
    heads: Vec<ResponseHead>,
    body: Option<RecvStream>,
    asked: Option<Asked>,
}

/// A WebSocket or a tunnel that was asked for.
#[derive(Debug)]
struct Asked {
    head: RequestHead,
    stream: SendStream<Bytes>,
}

impl Drop for Http2Answer {
    /// A stream that was to carry something else, and does not.
    fn drop(&mut self) {
        if let Some(asked) = &mut self.asked {
            asked.stream.send_reset(Reason::CANCEL);
        }
    }
}

impl Answer for Http2Answer {
    type Body<'a> = Received;
    type Stream = Option<(RecvStream, SendStream<Bytes>)>;

    fn next_head(&mut self, limits: &Limits) -> Result<Option<ResponseHead>, Failure> {
        let Some(head) = self.heads.pop() else { return Ok(None) };
        if head.headers.iter().count() > Limits::MAX_HEADER_COUNT {
            return Err(Failure::BadAnswer("the head has too many fields".into()));
        }
        let size: usize = head.headers.iter().map(|field| field.name.len() + field.value.len() + 4).sum();
        if size > limits.head {
            return Err(Failure::BadAnswer("the head is too large".into()));
        }
        Ok(Some(match &self.asked {
            Some(asked) if head.is_success() && websocket::is_asked_for(&asked.head) => {
                websocket::accepted(&asked.head, &head)
            }
            _ => head,
        }))
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

    fn body(&mut self, framing: Framing) -> Received {
        let has_length = matches!(framing, Framing::Length(_));
        Received::after_head(Side::Upstream, self.body.take()).with_length(has_length)
    }

    fn beyond(&mut self) -> &[u8] {
        &[]
    }

    fn switched(mut self) -> Option<(RecvStream, SendStream<Bytes>)> {
        Some((self.body.take()?, self.asked.take()?.stream))
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
        Some(Reason::REFUSED_STREAM) if error.is_remote() => Failure::Unprocessed,
        // Of a stream that the server still had in hand, it does not say that.
        Some(_) if error.is_go_away() && error.is_remote() => Failure::Unprocessed,
        Some(reason) if error.is_reset() && error.is_remote() => Failure::Reset(reason),
        _ if error.is_go_away() || error.is_io() => Failure::NoAnswer,
        _ => Failure::BadAnswer(error.to_string()),
    }
}
