//! The two sides of an exchange, whatever protocol each speaks. The exchange is written once, against these traits, and
//! compiled for each pair: a front implements [`DownstreamSide`] for what it accepts, [`super::hop`] has the
//! implementations of [`UpstreamSide`]. Nothing here knows how a message looks on the wire.

use std::future::Future;
use std::io;

use super::failure::Failure;
use crate::config::Limits;
use crate::http::forward::{Form, Pseudonym};
use crate::http::framing::{BadFraming, Framing};
use crate::http::head::{RequestHead, ResponseHead};
use crate::net::deadline::Deadline;
use crate::relay::body::{Sink, Source};
use crate::target::Client;
use crate::telemetry::flow::Protocol;

/// Where one request comes from, and its response goes to.
pub trait DownstreamSide {
    type Content<'a>: Source
    where
        Self: 'a;
    type Reply<'a>: Reply
    where
        Self: 'a;

    /// Who asks.
    fn client(&self) -> &Client;

    /// How it asks.
    fn protocol(&self) -> Protocol;

    /// How long the request's body is.
    ///
    /// # Errors
    /// [`BadFraming`]: two readings are possible.
    fn framing(&self, head: &RequestHead) -> Result<Framing, BadFraming>;

    /// The request's content, framed as [`DownstreamSide::framing`] said, and the way back. Both are used at the same
    /// time: a response may begin before the request has ended.
    fn open(&mut self, framing: Framing) -> Directions<'_, Self::Content<'_>, Self::Reply<'_>>;
}

/// Both directions of a downstream side.
#[derive(Debug)]
pub struct Directions<'a, C, R> {
    pub content: C,
    pub reply: R,
    /// For waits on the way back.
    pub deadline: &'a Deadline,
}

/// The way back to the client. As a [`Sink`], it takes the content of the response whose head it was given.
pub trait Reply: Sink {
    /// Sends an interim head (RFC 9110 §15.2), if this client can take one.
    fn interim(&mut self, head: &ResponseHead, via: &Pseudonym) -> impl Future<Output = io::Result<()>>;

    /// Takes the final head, to go out with the next flush. Content follows as `manner` says.
    fn head(&mut self, head: &ResponseHead, manner: Manner<'_>);

    /// Sends the head after which the connection or stream carries another protocol, and that protocol's first bytes.
    fn switch_protocols(
        &mut self,
        head: &ResponseHead,
        via: &Pseudonym,
        first: &[u8],
    ) -> impl Future<Output = io::Result<()>>;
}

/// How a response is to be delivered.
#[derive(Debug, Clone, Copy)]
pub struct Manner<'a> {
    /// How its body arrives. How it leaves is for the reply to choose.
    pub framing: Framing,
    /// Our name in Via; none for a response of weir's own.
    pub via: Option<&'a Pseudonym>,
    /// The request may yet be read to its end: if not, its connection can't be used for another.
    pub may_keep: bool,
}

/// Where one request goes, and its response comes from.
pub trait UpstreamSide {
    type Sending<'a>: Sink
    where
        Self: 'a;
    type Answer<'a>: Answer<Stream = Self::Stream>
    where
        Self: 'a;
    /// What carries the protocol that was switched to.
    type Stream;

    /// Stages the request's head: it goes out with the first flush of its content.
    ///
    /// # Errors
    /// [`Failure`]: this upstream can't be sent this request.
    fn begin<'a>(&'a mut self, onward: &Onward<'_>)
    -> Result<(Self::Sending<'a>, Self::Answer<'a>), Failure>;
}

/// A request as it is sent on.
#[derive(Debug)]
pub struct Onward<'a> {
    pub head: &'a RequestHead,
    pub form: Form<'a>,
    pub via: &'a Pseudonym,
}

/// What comes back from an upstream: heads, then a body.
pub trait Answer {
    type Body<'a>: Source
    where
        Self: 'a;
    /// As [`UpstreamSide::Stream`].
    type Stream;

    /// The next head, if it has arrived.
    ///
    /// # Errors
    /// [`Failure::BadAnswer`].
    fn next_head(&mut self, limits: &Limits) -> Result<Option<ResponseHead>, Failure>;

    /// Waits for more of a head to arrive.
    ///
    /// # Errors
    /// [`Failure::NoAnswer`] if nothing ever came, [`Failure::BadAnswer`] if only a part did.
    fn more(&mut self) -> impl Future<Output = Result<(), Failure>>;

    /// How long the body behind a final head is.
    ///
    /// # Errors
    /// [`BadFraming`]: nothing of it may be forwarded.
    fn framing(&self, head: &ResponseHead, method: &str) -> Result<Framing, BadFraming>;

    /// The body behind the final head.
    fn body(&mut self, framing: Framing) -> Self::Body<'_>;

    /// What has arrived already in the protocol that was switched to.
    fn beyond(&mut self) -> &[u8];

    /// What carries the protocol that was switched to, once the request was sent.
    fn switched(self) -> Self::Stream;

    /// What the connection is good for, now that the request was sent and its response received.
    fn afterwards(&self, head: &ResponseHead, framing: Framing) -> Afterwards;
}

/// What an upstream connection is good for after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// Something is still under way on it: it is to be reset.
    Broken,
    /// Nothing more comes over it: it is to be closed in order.
    Over,
    /// The next exchange.
    Reusable,
}
