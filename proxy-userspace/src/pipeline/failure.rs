//! Every way in which a request can fail before it has an answer, and the status that says so.

use std::borrow::Cow;
use std::sync::LazyLock;

use h2::Reason;

use crate::filters::Denial;
use crate::http::framing::BadFraming;
use crate::http::parse::BadHead;
use crate::policy::Refusal;
use crate::policy::acl::Denied;
use crate::relay::Side;
use crate::relay::body::{BodyError, http2};
use crate::route::NoMember;
use crate::upstream::{AddressError, ConnectError, NoTurn, dns::DnsError};

/// Why a request or tunnel got no answer from its upstream.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    BadHead(#[from] BadHead),
    #[error("the length of the request's body is ambiguous: {0}")]
    BadFraming(#[from] BadFraming),
    #[error("{0}")]
    BadRequest(String),
    /// Another connection may lead there.
    #[error("{0}")]
    Misdirected(String),
    #[error("{0}")]
    NotImplemented(&'static str),
    #[error("{0}")]
    NoRoute(&'static str),
    #[error("the app {name} does not run: {why}")]
    Stopped { name: Box<str>, why: Box<str> },
    /// It is there, but nothing answers: it may be about to start.
    #[error("the app {0} does not answer; it may be starting")]
    NotServing(Box<str>),
    #[error("{}", .0.reason)]
    Denied(Denied),
    #[error("{}", .0.reason)]
    Filtered(Denial),
    #[error("{0}")]
    Refused(Box<Refusal>),
    #[error("the request's body is larger than server.limits.body ({0} bytes)")]
    BodyTooLarge(u64),
    #[error("{0}")]
    Unresolved(#[from] DnsError),
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    NoTurn(#[from] NoTurn),
    #[error("{0}")]
    NoMember(#[from] NoMember),
    #[error("the upstream closed the connection without an answer")]
    NoAnswer,
    /// RFC 9113 §8.7: in HTTP/2 a server says so of a stream.
    #[error("the upstream has refused the request, and done nothing of it")]
    Unprocessed,
    /// Another server is asked instead.
    #[error("the upstream answered with {0}")]
    Unwanted(u16),
    #[error("the upstream has reset the stream: {0}")]
    Reset(Reason),
    #[error("the upstream's answer is not valid: {0}")]
    BadAnswer(String),
    #[error("the upstream did not answer in time")]
    AnswerTimedOut,
    /// Its head was sent on already; there is nothing left to answer with.
    #[error("the response was cut off: {0}")]
    ResponseBody(BodyError),
    #[error("the request's body: {0}")]
    RequestBody(BodyError),
    #[error("the client did not send its request in time")]
    RequestTimedOut,
    /// RFC 9111 §5.2.1.7
    #[error("the client takes a response from the cache only, and there is none")]
    NotCached,
    #[error("{0}")]
    Internal(&'static str),
    /// Nothing more is to be said to it.
    #[error("its context was released")]
    Released,
    /// The client is gone; nobody is there to answer to.
    #[error("the client closed the connection")]
    ClientGone,
}

/// How a client's request ends that gets no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing of it has reached anybody: it may be sent again.
    Unsent,
    /// As its server has ended it.
    Reset(Reason),
    Broken,
}

impl Failure {
    /// The status to answer with, and the error type of RFC 9209 §2.3. None where nobody listens.
    #[must_use]
    pub fn status(&self) -> Option<(u16, &'static str)> {
        Some(match self {
            Self::BadHead(BadHead::LongTarget) => (414, "http_request_error"),
            Self::BadHead(BadHead::TooLarge | BadHead::TooManyFields) => (431, "http_request_error"),
            Self::BadHead(BadHead::Version) => (505, "http_request_error"),
            Self::BadHead(BadHead::Syntax(_) | BadHead::ProxyProtocol)
            | Self::BadFraming(_)
            | Self::BadRequest(_) => (400, "http_request_error"),
            Self::Misdirected(_) => (421, "http_request_error"),
            Self::NotImplemented(_) => (501, "http_request_error"),
            Self::NoRoute(_) | Self::Stopped { .. } => (404, "destination_not_found"),
            Self::Denied(_) => (403, "destination_ip_prohibited"),
            Self::Filtered(denial) => (denial.status, "http_request_denied"),
            Self::Refused(refusal) => (refusal.status, "http_request_denied"),
            Self::BodyTooLarge(_) | Self::RequestBody(BodyError::TooLarge(_)) => (413, "http_request_error"),
            Self::Unresolved(DnsError::TimedOut { .. }) => (504, "dns_timeout"),
            Self::Unresolved(DnsError::Busy { .. }) => (503, "dns_error"),
            Self::Unresolved(_) => (502, "dns_error"),
            Self::Connect(ConnectError::TimedOut { .. }) => (504, "connection_timeout"),
            Self::Connect(ConnectError::Parent(_)) => (502, "destination_unavailable"),
            Self::Connect(ConnectError::Tls(insecure)) => (502, insecure.kind),
            Self::Connect(ConnectError::NoAddress) => (502, "destination_ip_unroutable"),
            Self::Connect(ConnectError::Failed { error, .. }) => (502, connect_error_type(error)),
            Self::NotServing(_) | Self::NoMember(NoMember::Unavailable(_)) => {
                (503, "destination_unavailable")
            }
            Self::NoTurn(_) | Self::NoMember(NoMember::QueueFull(_) | NoMember::TimedOut(_)) => {
                (503, "connection_limit_reached")
            }
            Self::NotCached => (504, "destination_unavailable"),
            Self::Internal(_) => (500, "proxy_internal_error"),
            Self::NoAnswer | Self::Unprocessed | Self::Unwanted(_) | Self::Reset(_) => {
                (502, "connection_terminated")
            }
            Self::BadAnswer(_) => (502, "http_protocol_error"),
            Self::AnswerTimedOut => (504, "http_response_timeout"),
            Self::RequestBody(BodyError::Malformed(_)) => (400, "http_request_error"),
            Self::RequestTimedOut
            | Self::RequestBody(
                BodyError::TimedOut(Side::Downstream) | BodyError::TooSlow(Side::Downstream, _),
            ) => (408, "http_request_error"),
            Self::RequestBody(
                BodyError::TimedOut(Side::Upstream) | BodyError::TooSlow(Side::Upstream, _),
            ) => (504, "connection_write_timeout"),
            Self::RequestBody(BodyError::Truncated(_) | BodyError::Io(Side::Downstream, _))
            | Self::ResponseBody(_)
            | Self::Released
            | Self::ClientGone => {
                return None;
            }
            Self::RequestBody(BodyError::Io(Side::Upstream, _)) => (502, "connection_terminated"),
        })
    }

    /// What a client that is told by its stream's end alone is told.
    #[must_use]
    pub fn cut(&self) -> Cut {
        match self {
            Self::Connect(_)
            | Self::Unresolved(_)
            | Self::NoTurn(_)
            | Self::NoMember(_)
            | Self::Unprocessed => Cut::Unsent,
            Self::Reset(reason) => Cut::Reset(*reason),
            Self::ResponseBody(BodyError::Io(Side::Upstream, error))
            | Self::RequestBody(BodyError::Io(Side::Upstream, error)) => {
                http2::reset_reason(error).map_or(Cut::Broken, Cut::Reset)
            }
            _ => Cut::Broken,
        }
    }

    /// Whether the upstream could not be asked at all, or gave no answer (RFC 9111 §4.2.4: "disconnected").
    #[must_use]
    pub fn is_upstreams_absence(&self) -> bool {
        matches!(
            self,
            Self::Unresolved(_)
                | Self::Connect(_)
                | Self::NoMember(_)
                | Self::NoAnswer
                | Self::Unprocessed
                | Self::Reset(_)
                | Self::AnswerTimedOut
        )
    }

    /// Whether the upstream is to blame: then a captured client, which knows of no proxy, must see its connection
    /// fail, as it would without one.
    #[must_use]
    pub fn is_upstreams(&self) -> bool {
        match self {
            Self::Connect(_)
            | Self::NoAnswer
            | Self::Unprocessed
            | Self::Reset(_)
            | Self::BadAnswer(_)
            | Self::AnswerTimedOut => true,
            Self::RequestBody(error) => {
                matches!(
                    error,
                    BodyError::Io(Side::Upstream, _)
                        | BodyError::TimedOut(Side::Upstream)
                        | BodyError::TooSlow(Side::Upstream, _)
                )
            }
            _ => false,
        }
    }

    /// Whether there is no TLS session with the upstream. Who speaks with weir in its place can't see why, but is to be told.
    #[must_use]
    pub fn is_of_tls(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::Tls(_)))
    }

    /// Whether it tells of an upstream's name or address.
    #[must_use]
    pub fn is_behind_the_gateway(&self) -> bool {
        self.is_upstreams() || matches!(self, Self::Unresolved(_) | Self::Denied(_) | Self::NoMember(_))
    }

    /// Fields that its answer has beside those that all have.
    #[must_use]
    pub fn fields(&self) -> &[(&'static str, String)] {
        match self {
            Self::Refused(refusal) => &refusal.fields,
            Self::NotServing(_) => &*AGAIN,
            _ => &[],
        }
    }

    /// The rule that refused, where it has a name.
    #[must_use]
    pub fn rule(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Refused(refusal) => Some(refusal.rule.clone()),
            _ => None,
        }
    }

    /// Whether policy refused, rather than something going wrong.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Filtered(_) | Self::Refused(_))
    }
}

/// Browsers show the answer, and ask again.
static AGAIN: LazyLock<[(&str, String); 1]> = LazyLock::new(|| [("Refresh", "2".to_owned())]);

fn connect_error_type(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection_refused",
        std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable => {
            "destination_ip_unroutable"
        }
        _ => "connection_terminated",
    }
}

impl From<AddressError<Failure>> for Failure {
    fn from(error: AddressError<Failure>) -> Self {
        match error {
            AddressError::Unresolved(error) => Self::Unresolved(error),
            AddressError::Refused(failure) => failure,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        Self::Filtered(denial)
    }
}
