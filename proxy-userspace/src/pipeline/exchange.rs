//! One request and its response over one upstream connection, new or kept.

use std::borrow::Cow;
use std::net::IpAddr;
use std::pin::pin;

use tokio::net::TcpStream;

use super::Engine;
use super::failure::Failure;
use super::recording::Recording;
use super::request::{Request, body_limit};
use super::response::Response;
use super::sending::Sending;
use crate::config::{ForwardedFields, HostField};
use crate::http::authority::{Authority, Host, Scheme, Shown};
use crate::http::forward::{self, Delivery, Form};
use crate::http::forwarded::Forwarded;
use crate::http::framing::{self, Framing};
use crate::http::head::{ResponseHead, Version};
use crate::http::headers::{Headers, Name};
use crate::net::buffered::Inbox;
use crate::net::deadline::Deadline;
use crate::net::stream::Downstream;
use crate::relay::Side;
use crate::relay::body::{Patience, Sink, Source, transfer};
use crate::target::{Front, Hop};
use crate::upstream::{Addresses, Connection, Idle};

/// How an exchange left the downstream connection.
#[derive(Debug)]
pub(super) enum Ending {
    KeepAlive,
    Close,
    Abort,
    /// The upstream connection goes on in another protocol.
    Upgraded(TcpStream),
}

/// A request about to be sent.
pub(super) struct Exchange<'a> {
    pub engine: &'a Engine,
    pub request: &'a Request,
    pub framing: Framing,
    pub hop: &'a Hop,
    /// The address of the client.
    pub client: IpAddr,
    pub addresses: &'a Addresses,
    pub flow: &'a mut Recording,
}

/// How a conversation left both connections.
enum Conversed {
    SwitchedProtocols,
    Responded {
        downstream: Ending,
        /// Nothing is under way on the upstream connection.
        upstream_rests: bool,
        /// And it can be used for another request.
        upstream_keeps: bool,
    },
}

impl Exchange<'_> {
    /// Sends the request, delivers the response. `own` is the upstream connection that belongs to this
    /// downstream one alone, if there is one.
    pub(super) async fn run(
        mut self,
        downstream: &mut Downstream,
        own: &mut Option<Idle>,
    ) -> Result<Ending, Failure> {
        // A kept connection may have been closed by the server just now; that is no reason to fail.
        if let Some(kept) = self.kept(own) {
            match self.over(kept, downstream, own).await {
                Err(Failure::NoAnswer) if self.may_repeat() => {}
                result => return result,
            }
        }
        let connection = self.engine.upstream.connect(self.addresses).await?;
        self.flow.timings.connect_us = connection.connect_us;
        self.over(connection, downstream, own).await
    }

    /// A kept connection, if this request may meet one that is just being closed: because it can be repeated, or
    /// because on its own connection, too, it would have followed another.
    fn kept(&self, own: &mut Option<Idle>) -> Option<Connection> {
        let source = self.addresses.source;
        let fits =
            |idle: &Idle| self.addresses.addresses.iter().any(|address| idle.leads_to(*address, source));
        let own = own.take().filter(fits).and_then(Idle::wake);
        if own.is_some() || self.request.target.front == Front::Captured {
            return own;
        }
        let may_meet = self.may_repeat() || self.request.follows;
        may_meet.then(|| self.engine.upstream.reuse(self.addresses)).flatten()
    }

    /// RFC 9110 §9.2.2, and nothing of a body was used up.
    fn may_repeat(&self) -> bool {
        let method = self.request.head.method();
        self.framing == Framing::None
            && matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    async fn over(
        &mut self,
        mut connection: Connection,
        downstream: &mut Downstream,
        own: &mut Option<Idle>,
    ) -> Result<Ending, Failure> {
        self.flow.upstream = Some(connection.address);
        let mut authenticates = authenticates_connection(&self.request.head.headers, Name::Authorization);
        let conversed = self.converse(&mut connection.stream, downstream, &mut authenticates).await?;
        let Conversed::Responded { downstream, upstream_rests, upstream_keeps } = conversed else {
            return Ok(Ending::Upgraded(connection.stream));
        };
        if upstream_rests {
            let idle = Idle::from(connection);
            match upstream_keeps {
                // A captured connection has its upstream connection to itself, as it had without weir; one that
                // carries somebody's identity is nobody else's.
                true if authenticates || self.request.target.front == Front::Captured => *own = Some(idle),
                true => self.engine.upstream.keep(idle),
                false => {}
            }
        }
        Ok(downstream)
    }

    async fn converse(
        &mut self,
        stream: &mut TcpStream,
        downstream: &mut Downstream,
        authenticates: &mut bool,
    ) -> Result<Conversed, Failure> {
        let request = self.request;
        let progress = self.flow.progress();
        let sending_deadline = Deadline::new();
        let (upstream_reader, upstream_writer) = stream.split();
        let (downstream_reader, downstream_writer) = downstream.stream.split();
        let source = Source {
            side: Side::Downstream,
            reader: downstream_reader,
            inbox: &mut downstream.inbox,
            framing: self.framing,
            limit: body_limit(self.engine, &request.target),
        };
        let mut head = self.request_head();
        let sink = Sink {
            side: Side::Upstream,
            writer: upstream_writer,
            framing: self.framing,
            pending: &mut head,
            moved: &progress.sent,
        };
        let sending = pin!(transfer(source, sink, self.patience(&sending_deadline)));
        let mut sending = Sending::new(sending);
        let mut inbox = Inbox::default();
        let mut response = Response {
            upstream: upstream_reader,
            inbox: &mut inbox,
            downstream: downstream_writer,
            patience: self.patience(&downstream.deadline),
            limits: &self.engine.config.server.limits,
            via: &self.engine.via,
        };

        let head = sending.beside(response.final_head(request.head.version)).await?;
        self.flow.timings.ttfb_us = Some(crate::telemetry::flow::micros(sending.ended().elapsed()));
        self.flow.status = Some(head.status);
        *authenticates |= authenticates_connection(&head.headers, Name::WwwAuthenticate);
        if head.status == 101 {
            self.check_upgrade(sending.is_complete())?;
            response.switch_protocols(&head).await?;
            return Ok(Conversed::SwitchedProtocols);
        }
        let arriving = framing::of_response(&head, request.head.method())
            .map_err(|error| Failure::BadAnswer(error.to_string()))?;
        let delivered = forward::delivered_framing(arriving, request.head.version);
        let keep = request.keep_alive && delivered != Framing::UntilClose && sending.may_end_well();
        let mut out = self.response_head(&head, delivered, keep);
        let result =
            sending.beside(response.deliver(arriving, delivered, &mut out, &progress.received)).await;
        self.flow.end = match &result {
            Ok(()) => "complete".into(),
            Err(failure) => failure.to_string().into(),
        };
        let upstream_rests = result.is_ok() && sending.is_complete() && inbox.bytes().is_empty();
        Ok(Conversed::Responded {
            downstream: match result {
                Ok(()) if keep && sending.is_complete() => Ending::KeepAlive,
                Ok(()) => Ending::Close,
                Err(_) => Ending::Abort,
            },
            upstream_rests,
            upstream_keeps: upstream_rests
                && arriving != Framing::UntilClose
                && forward::wants_keep_alive(head.version, &head.headers),
        })
    }

    /// How long either side may keep the other waiting. Captured programs have not asked for a proxy: they may
    /// wait for as long as a tunnel may.
    fn patience<'a>(&self, deadline: &'a Deadline) -> Patience<'a> {
        let timeouts = &self.engine.config.server.timeouts;
        match self.request.target.front {
            Front::Captured => Patience { deadline, read: timeouts.tunnel_idle, write: timeouts.tunnel_idle },
            Front::Explicit | Front::Gateway => {
                Patience { deadline, read: timeouts.read, write: timeouts.write }
            }
        }
    }

    fn request_head(&self) -> Vec<u8> {
        let request = self.request;
        let mut out = Vec::with_capacity(HEAD_CAPACITY);
        let (authority, scheme) = self.host();
        let form = Form {
            target: &request.path,
            host: Shown(&authority, scheme),
            framing: self.framing,
            upgrade: forward::wants_upgrade(&request.head),
            forwarded: self.forwarded(),
        };
        forward::request(&request.head, &form, &self.engine.via, &mut out);
        out
    }

    /// What goes into Host.
    fn host(&self) -> (Cow<'_, Authority>, Scheme) {
        match (self.hop, &self.request.target.authority) {
            (Hop::Backend(backend), Some(authority)) if backend.host == HostField::Client => {
                (Cow::Borrowed(authority), Scheme::Http)
            }
            (Hop::Backend(backend), _) => (Cow::Borrowed(&backend.authority), backend.scheme),
            (_, Some(authority)) => (Cow::Borrowed(authority), Scheme::Http),
            // RFC 9112 §3.2: for want of a name, the address.
            (_, None) => {
                let address = self.flow.upstream.unwrap_or(self.addresses.addresses[0]);
                let host = Host::Address(address.ip());
                (Cow::Owned(Authority { host, port: address.port() }), Scheme::Http)
            }
        }
    }

    /// What the server is told of the client. Captured programs have not asked for a proxy: nothing.
    fn forwarded(&self) -> Option<Forwarded<'_>> {
        let settings = &self.engine.config.forwarded;
        let fields = match self.request.target.front {
            Front::Captured => ForwardedFields::Off,
            Front::Explicit => settings.explicit,
            Front::Gateway => settings.gateway,
        };
        (fields != ForwardedFields::Off).then(|| Forwarded {
            fields,
            client: self.client,
            trusted: settings.trusted.iter().any(|network| network.contains(&self.client.to_canonical())),
            scheme: Scheme::Http,
            host: self.request.target.authority.as_ref(),
        })
    }

    fn response_head(&self, head: &ResponseHead, framing: Framing, keep: bool) -> Vec<u8> {
        let keep_alive_10 = keep && self.request.head.version == Version::Http10;
        let delivery = Delivery { framing, close: !keep, keep_alive_10, upgrade: false };
        let mut out = Vec::with_capacity(HEAD_CAPACITY);
        forward::response(head, delivery, &self.engine.via, &mut out);
        out
    }

    fn check_upgrade(&self, request_is_complete: bool) -> Result<(), Failure> {
        if !forward::wants_upgrade(&self.request.head) {
            return Err(Failure::BadAnswer("101 was not asked for".into()));
        }
        if !request_is_complete {
            // The rest of the body would be taken for the new protocol.
            return Err(Failure::BadAnswer("101 came before the request was whole".into()));
        }
        Ok(())
    }
}

/// Enough for nearly every head and a small body behind it.
const HEAD_CAPACITY: usize = 4 << 10;

/// NTLM and Negotiate authenticate the connection, not the request (RFC 4559 §6): whoever uses it next would be
/// taken for the same user.
fn authenticates_connection(headers: &Headers, name: Name) -> bool {
    headers.all(name).any(|value| {
        let scheme = value.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        ["ntlm", "negotiate"].iter().any(|known| scheme.eq_ignore_ascii_case(known.as_bytes()))
    })
}
