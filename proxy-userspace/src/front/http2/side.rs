//! An HTTP/2 stream as the downstream side of one exchange.

use std::future::poll_fn;
use std::io;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};

use crate::http::forward::{self, Pseudonym};
use crate::http::framing::{self, BadFraming, Framing};
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::http2;
use crate::net::deadline::Deadline;
use crate::pipeline::side::{Directions, DownstreamSide, Manner, Reply};
use crate::relay::Side;
use crate::relay::body::http2::{Received, Sent, into_io};
use crate::relay::body::{BodyError, Piece, Sink, Source, Trailers};
use crate::target::Client;
use crate::telemetry::flow::Protocol;

/// A stream on which a request's head was received.
#[derive(Debug)]
pub(super) struct Http2 {
    client: Client,
    content: Received,
    reply: Http2Reply,
    deadline: Deadline,
}

impl Http2 {
    pub(super) fn new(client: Client, content: RecvStream, respond: SendResponse<Bytes>) -> Self {
        Self {
            client,
            content: Received::new(Side::Downstream, content),
            reply: Http2Reply { respond, head: None, sent: None },
            deadline: Deadline::new(),
        }
    }

    /// Resets the stream: its response is not whole, or there is none.
    pub(super) fn reset(&mut self, reason: Reason) {
        match &mut self.reply.sent {
            Some(sent) => sent.reset(reason),
            None => self.reply.respond.send_reset(reason),
        }
    }

    /// Both directions, for a tunnel: the head must have been sent.
    pub(super) fn into_tunnel(self) -> Option<(Received, Sent)> {
        Some((self.content, self.reply.sent?))
    }

    /// Sends a head behind which the stream stays open.
    pub(super) fn accept(&mut self, head: &ResponseHead) -> io::Result<()> {
        self.reply.head(head, Manner { framing: Framing::UntilClose, via: None, may_keep: true });
        self.reply.send_head(false)
    }
}

impl DownstreamSide for Http2 {
    type Content<'a> = Content<'a>;
    type Reply<'a> = &'a mut Http2Reply;

    fn client(&self) -> &Client {
        &self.client
    }

    fn protocol(&self) -> Protocol {
        Protocol::Http2
    }

    /// The stream's end is the body's; h2 has a stream reset whose Content-Length says otherwise (RFC 9113 §8.1.1).
    fn framing(&self, head: &RequestHead) -> Result<Framing, BadFraming> {
        match framing::of_request(head)? {
            // What comes on the stream belongs to the protocol that is asked for.
            Framing::None if forward::wants_connection(head) => Ok(Framing::None),
            Framing::None if !self.content.has_ended() => Ok(Framing::Chunked),
            Framing::Length(0) | Framing::None => Ok(Framing::None),
            framing => Ok(framing),
        }
    }

    fn open(&mut self, framing: Framing) -> Directions<'_, Content<'_>, &mut Http2Reply> {
        let content = Content((framing != Framing::None).then_some(&mut self.content));
        Directions { content, reply: &mut self.reply, deadline: &self.deadline }
    }
}

/// The request's content, if it has any.
#[derive(Debug)]
pub(super) struct Content<'a>(Option<&'a mut Received>);

impl Source for Content<'_> {
    fn side(&self) -> Side {
        Side::Downstream
    }

    fn has_length(&self) -> bool {
        self.0.as_ref().is_some_and(Source::has_length)
    }

    fn next(&mut self) -> Result<Piece<'_>, BodyError> {
        match &mut self.0 {
            Some(content) => content.next(),
            None => Ok(Piece::End(None)),
        }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        match &mut self.0 {
            Some(content) => content.fill().await,
            None => Ok(()),
        }
    }
}

/// The way back on a stream.
#[derive(Debug)]
pub(super) struct Http2Reply {
    respond: SendResponse<Bytes>,
    /// A final head to go out with the next flush, and the body staged behind it.
    head: Option<(http::Response<()>, Behind)>,
    sent: Option<Sent>,
}

#[derive(Debug, Default)]
struct Behind {
    content: BytesMut,
    end: Option<Trailers>,
}

impl Http2Reply {
    /// Sends the head; `whole` if nothing comes behind it.
    fn send_head(&mut self, whole: bool) -> io::Result<()> {
        if let Some((head, behind)) = self.head.take() {
            let stream = self.respond.send_response(head, whole).map_err(into_io)?;
            let end = behind.end.filter(|_| !whole);
            self.sent = Some(Sent::behind_head(Side::Downstream, stream, behind.content, end));
        }
        Ok(())
    }
}

impl Reply for &mut Http2Reply {
    async fn interim(&mut self, head: &ResponseHead, via: &Pseudonym) -> io::Result<()> {
        let head = http2::response(head, Framing::None, Some(via));
        self.respond.send_informational(head).map_err(into_io)
    }

    fn head(&mut self, head: &ResponseHead, manner: Manner<'_>) {
        Http2Reply::head(self, head, manner);
    }

    /// RFC 8441 §5: what answers the upgrade there is a 200 here, and the handshake's fields stay there.
    async fn switch_protocols(
        &mut self,
        head: &ResponseHead,
        via: &Pseudonym,
        first: &[u8],
    ) -> io::Result<()> {
        let mut accepted = http2::response(head, Framing::UntilClose, Some(via));
        if head.status == 101 {
            *accepted.status_mut() = http::StatusCode::OK;
            accepted.headers_mut().remove("sec-websocket-accept");
        }
        self.head = Some((accepted, Behind { content: first.into(), end: None }));
        self.flush().await
    }
}

impl Http2Reply {
    fn head(&mut self, head: &ResponseHead, manner: Manner<'_>) {
        self.head = Some((http2::response(head, manner.framing, manner.via), Behind::default()));
    }
}

impl Sink for Http2Reply {
    fn side(&self) -> Side {
        Side::Downstream
    }

    fn put(&mut self, content: &[u8]) -> Result<(), BodyError> {
        match (&mut self.head, &mut self.sent) {
            (Some((_, behind)), _) => behind.content.extend_from_slice(content),
            (None, Some(sent)) => sent.put(content)?,
            (None, None) => {}
        }
        Ok(())
    }

    fn staged(&self) -> usize {
        let behind = self.head.as_ref().map_or(0, |(_, behind)| 1 + behind.content.len());
        behind + self.sent.as_ref().map_or(0, Sink::staged)
    }

    fn end(&mut self, trailers: Trailers) -> Result<(), BodyError> {
        match (&mut self.head, &mut self.sent) {
            (Some((_, behind)), _) => behind.end = Some(trailers),
            (None, Some(sent)) => sent.end(trailers)?,
            (None, None) => {}
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        // A body of no bytes ends with its head.
        let whole = matches!(&self.head, Some((_, behind)) if behind.content.is_empty() && matches!(behind.end, Some(None)));
        self.send_head(whole)?;
        match &mut self.sent {
            Some(sent) => sent.flush().await,
            None => Ok(()),
        }
    }

    async fn gone(&mut self) {
        match &mut self.sent {
            Some(sent) => sent.gone().await,
            None => drop(poll_fn(|cx| self.respond.poll_reset(cx)).await),
        }
    }
}
