//! An HTTP/1 connection as the downstream side of one exchange.

use std::io;

use crate::http::forward::{self, Delivery, Pseudonym, wants_keep_alive};
use crate::http::framing::{self, BadFraming, Framing};
use crate::http::head::{RequestHead, ResponseHead, Version};
use crate::http::headers::Name;
use crate::net::deadline;
use crate::net::place::Place;
use crate::net::stream::Downstream;
use crate::net::transport::{ReadHalf, WriteHalf};
use crate::pipeline::side::{Directions, DownstreamSide, Manner, Reply};
use crate::relay::Side;
use crate::relay::body::http1::{Arriving, Leaving};
use crate::relay::body::{BodyError, Sink, Trailers};
use crate::target::Client;
use crate::telemetry::flow::Protocol;

/// A connection on which a request's head was read.
#[derive(Debug)]
pub(super) struct Http1<'a> {
    connection: &'a mut Downstream,
    version: Version,
    /// Whether the client wants its connection kept; once a response's head is out, whether it is.
    keep: bool,
    /// It takes trailers.
    trailers: bool,
}

impl<'a> Http1<'a> {
    /// The side of the request with this head.
    pub(super) fn of(connection: &'a mut Downstream, head: &RequestHead) -> Self {
        let keep = wants_keep_alive(head.version, &head.headers);
        let trailers = head.version > Version::Http10 && head.headers.lists(Name::Te, "trailers");
        Self { connection, version: head.version, keep, trailers }
    }

    /// The side of what is no request, or of its last one.
    pub(super) fn last(connection: &'a mut Downstream) -> Self {
        Self { connection, version: Version::Http11, keep: false, trailers: false }
    }

    /// Whether the client was told that its connection is kept.
    pub(super) fn keeps(&self) -> bool {
        self.keep
    }
}

impl DownstreamSide for Http1<'_> {
    type Content<'a>
        = Arriving<'a, ReadHalf<'a>>
    where
        Self: 'a;
    type Reply<'a>
        = Http1Reply<'a>
    where
        Self: 'a;

    fn client(&self) -> &Client {
        &self.connection.client
    }

    fn protocol(&self) -> Protocol {
        Protocol::Http1
    }

    fn framing(&self, head: &RequestHead) -> Result<Framing, BadFraming> {
        framing::of_request(head)
    }

    fn open(&mut self, framing: Framing) -> Directions<'_, Arriving<'_, ReadHalf<'_>>, Http1Reply<'_>> {
        let Downstream { stream, inbox, deadline, .. } = &mut *self.connection;
        let (reader, writer) = stream.split();
        let mut out = Leaving::new(Side::Downstream, writer, Framing::None);
        out.pass_trailers(self.trailers);
        Directions {
            content: Arriving::new(Side::Downstream, reader, inbox, framing),
            reply: Http1Reply { out, version: self.version, keep: &mut self.keep, trailers: self.trailers },
            deadline,
        }
    }
}

/// The way back to an HTTP/1 client.
#[derive(Debug)]
pub(super) struct Http1Reply<'a> {
    out: Leaving<WriteHalf<'a>>,
    version: Version,
    keep: &'a mut bool,
    trailers: bool,
}

impl Reply for Http1Reply<'_> {
    async fn interim(&mut self, head: &ResponseHead, via: &Pseudonym) -> io::Result<()> {
        // HTTP/1.0 knows no interim responses.
        if self.version == Version::Http10 {
            return Ok(());
        }
        let delivery = Delivery::of_head();
        self.out.stage_head(Framing::None, |out| forward::response(head, delivery, Some(via), out));
        self.out.flush().await
    }

    fn head(&mut self, head: &ResponseHead, manner: Manner<'_>) {
        let framing = forward::delivered_framing(manner.framing, self.version);
        *self.keep &= framing != Framing::UntilClose && manner.may_keep && !deadline::is_retired();
        let keep_alive_10 = *self.keep && self.version == Version::Http10;
        let delivery =
            Delivery { framing, close: !*self.keep, keep_alive_10, upgrade: false, trailers: self.trailers };
        self.out.stage_head(framing, |out| forward::response(head, delivery, manner.via, out));
    }

    async fn switch_protocols(
        &mut self,
        head: &ResponseHead,
        via: &Pseudonym,
        first: &[u8],
    ) -> io::Result<()> {
        let delivery = Delivery { upgrade: true, ..Delivery::of_head() };
        self.out.stage_head(Framing::None, |out| {
            forward::response(head, delivery, Some(via), out);
            out.extend_from_slice(first);
        });
        self.out.flush().await
    }
}

impl Sink for Http1Reply<'_> {
    fn side(&self) -> Side {
        self.out.side()
    }

    fn put(&mut self, content: &[u8]) -> Result<(), BodyError> {
        self.out.put(content)
    }

    fn put_some(
        &mut self,
        content: &[u8],
        place: Option<Place>,
    ) -> impl Future<Output = Result<usize, BodyError>> {
        self.out.put_some(content, place)
    }

    fn staged(&self) -> usize {
        self.out.staged()
    }

    fn end(&mut self, trailers: Trailers) -> Result<(), BodyError> {
        self.out.end(trailers)
    }

    fn flush(&mut self) -> impl Future<Output = io::Result<()>> {
        self.out.flush()
    }

    fn gone(&mut self) -> impl Future<Output = ()> {
        self.out.gone()
    }
}
