//! One request and its response over one upstream connection, new or kept.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Engine;
use super::failure::Failure;
use super::recording::Recording;
use super::request::{Request, body_limit};
use crate::http::forward::{self, Delivery};
use crate::http::framing::{self, Framing};
use crate::http::head::{ResponseHead, Version};
use crate::http::parse::{self, Parsed};
use crate::net::buffered::Inbox;
use crate::net::stream::Downstream;
use crate::relay::Side;
use crate::relay::body::{BodyError, Patience, Sink, Source, transfer};
use crate::target::Hop;
use crate::telemetry::flow::micros;
use crate::telemetry::metrics;
use crate::upstream::{Addresses, pool};

/// How an exchange left the downstream connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    KeepAlive,
    Close,
    Abort,
    Upgraded,
}

/// A request about to be sent.
pub(super) struct Exchange<'a> {
    pub engine: &'a Engine,
    pub request: &'a Request,
    pub framing: Framing,
    pub hop: &'a Hop,
    pub addresses: &'a Addresses,
    pub flow: &'a mut Recording,
}

impl Exchange<'_> {
    /// Sends the request, delivers the response. The upstream connection comes back only after an upgrade.
    pub(super) async fn run(
        mut self,
        downstream: &mut Downstream,
    ) -> Result<(Ending, Option<TcpStream>), Failure> {
        // A kept connection may have been closed by the server just now; that is no reason to fail.
        if let Some((key, stream)) = self.kept() {
            match self.over(stream, key, downstream).await {
                Err(Failure::NoAnswer) if self.may_repeat() => {}
                result => return result,
            }
        }
        let connected = self.engine.upstream.connect(self.addresses, self.hop).await?;
        self.flow.timings.connect_us = Some(connected.connect_us);
        self.over(connected.stream, self.key(connected.address), downstream).await
    }

    fn key(&self, address: std::net::SocketAddr) -> pool::Key {
        match self.hop {
            Hop::Address(_, source) => (address, *source),
            Hop::Authority(_) => (address, None),
        }
    }

    fn kept(&self) -> Option<(pool::Key, TcpStream)> {
        let keys = self.addresses.addresses.iter().map(|address| self.key(*address));
        let kept = keys.into_iter().find_map(|key| Some((key, self.engine.upstream.pool.take(key)?)));
        if kept.is_some() {
            metrics::with(|metrics| metrics.upstream_reuses.increment());
        }
        kept
    }

    /// RFC 9110 §9.2.2, and nothing of a body was used up.
    fn may_repeat(&self) -> bool {
        let method = self.request.head.method();
        self.framing == Framing::None
            && matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    async fn over(
        &mut self,
        mut stream: TcpStream,
        key: pool::Key,
        downstream: &mut Downstream,
    ) -> Result<(Ending, Option<TcpStream>), Failure> {
        self.flow.upstream = Some(key.0);
        let mut inbox = Inbox::default();
        let (ending, reusable) = self.converse(&mut stream, &mut inbox, downstream).await?;
        if ending == Ending::Upgraded {
            return Ok((ending, Some(stream)));
        }
        if reusable && inbox.bytes().is_empty() {
            self.engine.upstream.pool.keep(key, stream);
        }
        Ok((ending, None))
    }

    /// Returns how the downstream was left, and whether the upstream connection can be used again.
    async fn converse(
        &mut self,
        stream: &mut TcpStream,
        inbox: &mut Inbox,
        downstream: &mut Downstream,
    ) -> Result<(Ending, bool), Failure> {
        let request = self.request;
        let timeouts = &self.engine.config.server.timeouts;
        let patience =
            Patience { deadline: &downstream.deadline, read: timeouts.read, write: timeouts.write };
        let limit = body_limit(self.engine, &request.target);
        let upgrade = forward::wants_upgrade(&request.head);

        let mut head = Vec::with_capacity(HEAD_CAPACITY);
        let host = host_field(request, self.hop);
        forward::request(
            &request.head,
            &request.path,
            &host,
            self.framing,
            upgrade,
            &self.engine.via,
            &mut head,
        );
        let (upstream_reader, upstream_writer) = stream.split();
        let (downstream_reader, downstream_writer) = downstream.stream.split();
        let source = Source {
            side: Side::Downstream,
            reader: downstream_reader,
            inbox: &mut downstream.inbox,
            framing: self.framing,
            limit,
        };
        let sink =
            Sink { side: Side::Upstream, writer: upstream_writer, framing: self.framing, pending: &mut head };
        let transfer = pin!(transfer(source, sink, patience));
        let mut sending = Sending::new(transfer);

        let began = Instant::now();
        let mut response = Response {
            upstream: upstream_reader,
            inbox,
            downstream: downstream_writer,
            patience,
            limits: &self.engine.config.server.limits,
        };
        let mut out = Vec::with_capacity(HEAD_CAPACITY);
        let head = sending.beside(response.final_head(request, &self.engine.via, &mut out)).await?;
        self.flow.timings.ttfb_us = Some(micros(began.elapsed()));
        self.flow.status = Some(head.status);

        if head.status == 101 {
            return self.upgrade(&head, upgrade, &mut response, &mut out).await;
        }
        let arriving = framing::of_response(&head, request.head.method())
            .map_err(|error| Failure::BadAnswer(error.to_string()))?;
        let framing = forward::delivered_framing(arriving, request.head.version);
        let keep = request.keep_alive && framing != Framing::UntilClose && sending.may_still_end_well();
        let delivery = Delivery {
            framing,
            close: !keep,
            keep_alive_10: keep && request.head.version == Version::Http10,
            upgrade: false,
        };
        forward::response(&head, delivery, &self.engine.via, &mut out);
        let delivered = sending.beside(response.deliver(arriving, framing, &mut out)).await;
        self.flow.sent = sending.sent();
        let complete = match delivered {
            Ok(received) => {
                self.flow.received = received;
                true
            }
            Err(failure) => {
                self.flow.end = format!("the response was cut off: {failure}").into();
                false
            }
        };
        let upstream_keeps = forward::wants_keep_alive(head.version, &head.headers)
            && arriving != Framing::UntilClose
            && complete
            && sending.is_complete();
        let ending = match (complete, keep && sending.is_complete()) {
            (false, _) => Ending::Abort,
            (true, true) => Ending::KeepAlive,
            (true, false) => Ending::Close,
        };
        self.count();
        Ok((ending, upstream_keeps))
    }

    async fn upgrade(
        &self,
        head: &ResponseHead,
        wanted: bool,
        response: &mut Response<'_, impl AsyncRead + Unpin, impl AsyncWrite + Unpin>,
        out: &mut Vec<u8>,
    ) -> Result<(Ending, bool), Failure> {
        if !wanted {
            return Err(Failure::BadAnswer("101 was not asked for".into()));
        }
        let delivery = Delivery { framing: Framing::None, close: false, keep_alive_10: false, upgrade: true };
        forward::response(head, delivery, &self.engine.via, out);
        // What the server said already in the new protocol goes with it.
        out.extend_from_slice(response.inbox.bytes());
        response.inbox.consume(usize::MAX);
        response.write(out).await.map_err(|_| Failure::ClientGone)?;
        Ok((Ending::Upgraded, false))
    }

    fn count(&self) {
        metrics::with(|metrics| {
            metrics.sent_bytes.add(self.flow.sent);
            metrics.received_bytes.add(self.flow.received);
        });
    }
}

/// Enough for nearly every head and a small body behind it.
const HEAD_CAPACITY: usize = 4 << 10;

/// What goes into Host: the target's authority, or for want of one the address (RFC 9112 §3.2).
fn host_field(request: &Request, hop: &Hop) -> crate::http::authority::Authority {
    use crate::http::authority::{Authority, Host};
    match (&request.target.authority, hop) {
        (Some(authority), _) | (None, Hop::Authority(authority)) => authority.clone(),
        (None, Hop::Address(address, _)) => {
            Authority { host: Host::Address(address.ip()), port: address.port() }
        }
    }
}

/// The request on its way out, while the response is already being waited for: a server may answer before it
/// has read everything (RFC 9112 §9.3).
struct Sending<'a, F> {
    transfer: Option<Pin<&'a mut F>>,
    result: Option<Result<u64, BodyError>>,
}

impl<'a, F: Future<Output = Result<u64, BodyError>>> Sending<'a, F> {
    fn new(transfer: Pin<&'a mut F>) -> Self {
        Self { transfer: Some(transfer), result: None }
    }

    /// Drives `foreground` to its end, and the request's body as far as it gets meanwhile.
    async fn beside<T>(
        &mut self,
        foreground: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut foreground = pin!(foreground);
        poll_fn(|cx| {
            if let Some(transfer) = &mut self.transfer
                && let Poll::Ready(result) = transfer.as_mut().poll(cx)
            {
                self.transfer = None;
                if let Err(error) = self.result.insert(result)
                    && !is_upstreams(error)
                {
                    // Nothing more can come of this: the request will never be whole.
                    let error = std::mem::replace(error, BodyError::TimedOut(Side::Downstream));
                    return Poll::Ready(Err(Failure::RequestBody(error)));
                }
            }
            foreground.as_mut().poll(cx)
        })
        .await
    }

    fn may_still_end_well(&self) -> bool {
        !matches!(self.result, Some(Err(_)))
    }

    fn is_complete(&self) -> bool {
        matches!(self.result, Some(Ok(_)))
    }

    fn sent(&self) -> u64 {
        match self.result {
            Some(Ok(sent)) => sent,
            _ => 0,
        }
    }
}

/// A server that stops reading may still have answered; what it said decides.
fn is_upstreams(error: &BodyError) -> bool {
    matches!(error, BodyError::Io(Side::Upstream, _) | BodyError::TimedOut(Side::Upstream))
}

/// The way back.
struct Response<'a, R, W> {
    upstream: R,
    inbox: &'a mut Inbox,
    downstream: W,
    patience: Patience<'a>,
    limits: &'a crate::config::Limits,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Response<'_, R, W> {
    /// The head of the final response; interim ones are passed on (RFC 9110 §15.2).
    async fn final_head(
        &mut self,
        request: &Request,
        via: &forward::Pseudonym,
        out: &mut Vec<u8>,
    ) -> Result<ResponseHead, Failure> {
        loop {
            let head = self.head().await?;
            if head.status == 101 || !(100..200).contains(&head.status) {
                return Ok(head);
            }
            // HTTP/1.0 knows no interim responses.
            if request.head.version == Version::Http11 {
                let delivery =
                    Delivery { framing: Framing::None, close: false, keep_alive_10: false, upgrade: false };
                forward::response(&head, delivery, via, out);
                self.write(out).await.map_err(|_| Failure::ClientGone)?;
            }
        }
    }

    async fn head(&mut self) -> Result<ResponseHead, Failure> {
        loop {
            match parse::response(self.inbox.bytes(), self.limits) {
                Ok(Parsed::Complete(head, length)) => {
                    self.inbox.consume(length);
                    return Ok(head);
                }
                Ok(Parsed::Partial) => {}
                Err(error) => return Err(Failure::BadAnswer(error.to_string())),
            }
            let fill = self.inbox.fill(&mut self.upstream);
            match self.patience.deadline.limit(self.patience.read, fill).await {
                Err(_) => return Err(Failure::AnswerTimedOut),
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) if self.inbox.bytes().is_empty() => return Err(Failure::NoAnswer),
                Ok(Ok(0) | Err(_)) => return Err(Failure::BadAnswer("its head was cut off".into())),
            }
        }
    }

    async fn deliver(
        &mut self,
        arriving: Framing,
        framing: Framing,
        out: &mut Vec<u8>,
    ) -> Result<u64, Failure> {
        let source = Source {
            side: Side::Upstream,
            reader: &mut self.upstream,
            inbox: self.inbox,
            framing: arriving,
            limit: None,
        };
        let sink = Sink { side: Side::Downstream, writer: &mut self.downstream, framing, pending: out };
        transfer(source, sink, self.patience).await.map_err(|error| Failure::BadAnswer(error.to_string()))
    }

    async fn write(&mut self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let write = self.downstream.write_all(out);
        let written = self.patience.deadline.limit(self.patience.write, write).await;
        out.clear();
        written.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }
}
