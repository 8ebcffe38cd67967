//! HTTP/1.1 to the next hop: one exchange over a connection, which may be new or kept.

use crate::config::Limits;
use crate::http::forward;
use crate::http::framing::{self, BadFraming, Framing};
use crate::http::head::ResponseHead;
use crate::http::parse::{self, Parsed};
use crate::net::buffered::Inbox;
use crate::net::transport::{ReadHalf, Transport, WriteHalf};
use crate::pipeline::failure::Failure;
use crate::pipeline::side::{Afterwards, Answer, Onward, UpstreamSide};
use crate::relay::Side;
use crate::relay::body::http1::{Arriving, Leaving};

/// A connection with nothing under way on it.
#[derive(Debug)]
pub(in crate::pipeline) struct Http1<'a> {
    stream: &'a mut Transport,
}

impl<'a> Http1<'a> {
    pub(in crate::pipeline) fn over(stream: &'a mut Transport) -> Self {
        Self { stream }
    }
}

impl UpstreamSide for Http1<'_> {
    type Sending<'a>
        = Leaving<WriteHalf<'a>>
    where
        Self: 'a;
    type Answer<'a>
        = Http1Answer<'a>
    where
        Self: 'a;
    /// The connection as a whole, which is whoever's it was.
    type Stream = ();

    fn begin<'a>(
        &'a mut self,
        onward: &Onward<'_>,
    ) -> Result<(Leaving<WriteHalf<'a>>, Http1Answer<'a>), Failure> {
        let (reader, writer) = self.stream.split();
        let framing = onward.form.framing;
        let mut sending = Leaving::new(Side::Upstream, writer, framing);
        sending.pass_trailers(true);
        sending.stage_head(framing, |out| forward::request(onward.head, &onward.form, onward.via, out));
        Ok((sending, Http1Answer { reader, inbox: Inbox::default() }))
    }
}

/// The way back from an HTTP/1.1 upstream.
#[derive(Debug)]
pub(in crate::pipeline) struct Http1Answer<'a> {
    reader: ReadHalf<'a>,
    inbox: Inbox,
}

impl<'c> Answer for Http1Answer<'c> {
    type Body<'a>
        = Arriving<'a, &'a mut ReadHalf<'c>>
    where
        Self: 'a;
    type Stream = ();

    fn next_head(&mut self, limits: &Limits) -> Result<Option<ResponseHead>, Failure> {
        match parse::response(self.inbox.bytes(), limits) {
            Ok(Parsed::Complete(head, length)) => {
                self.inbox.consume(length);
                Ok(Some(head))
            }
            Ok(Parsed::Partial) => Ok(None),
            Err(error) => Err(Failure::BadAnswer(error.to_string())),
        }
    }

    async fn more(&mut self) -> Result<(), Failure> {
        match self.inbox.fill(&mut self.reader).await {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) if self.inbox.bytes().is_empty() => Err(Failure::NoAnswer),
            Ok(0) | Err(_) => Err(Failure::BadAnswer("its head was cut off".into())),
        }
    }

    fn framing(&self, head: &ResponseHead, method: &str) -> Result<Framing, BadFraming> {
        framing::of_response(head, method)
    }

    fn body(&mut self, framing: Framing) -> Self::Body<'_> {
        Arriving::new(Side::Upstream, &mut self.reader, &mut self.inbox, framing)
    }

    fn beyond(&mut self) -> &[u8] {
        self.inbox.bytes()
    }

    fn switched(self) {}

    fn afterwards(&self, head: &ResponseHead, framing: Framing) -> Afterwards {
        if !self.inbox.bytes().is_empty() {
            return Afterwards::Broken;
        }
        match framing != Framing::UntilClose && forward::wants_keep_alive(head.version, &head.headers) {
            true => Afterwards::Reusable,
            false => Afterwards::Over,
        }
    }
}
