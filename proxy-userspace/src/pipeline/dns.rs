//! DNS over TCP (RFC 7766) of captured processes: relayed to the server that was meant, message by message on the way
//! back, each looked at before the client gets it. Over UDP: see `crate::dns`.
//!
//! Which addresses may be connected to is not asked here: it is where the client's own query would go, over UDP as well,
//! and nothing but DNS can go this way.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::Engine;
use super::failure::Failure;
use super::recording::{Progress, Recording};
use super::respond;
use crate::dns::message::{Header, Message};
use crate::dns::{Inspection, judge};
use crate::net::stream::Downstream;
use crate::net::transport::Transport;
use crate::target::Target;
use crate::telemetry::flow::Protocol;
use crate::telemetry::metrics;
use crate::upstream::{Addresses, Few, Speaks};

/// Queries on one connection whose answers may be outstanding; beyond, the oldest are taken for forgotten.
const MAX_OUTSTANDING: usize = 64;

/// Serves a captured connection to port 53 until it ends.
pub async fn relay(engine: &Engine, inspection: &Inspection, mut downstream: Downstream, target: &Target) {
    let mut flow = Recording::begin(&downstream.client, target, Protocol::Dns);
    let Some(server) = target.original_destination else { return };
    let addresses = Addresses {
        addresses: Few::from_elem(server, 1),
        vantage: target.vantage.clone(),
        tls: None,
        speaks: Speaks::Http1,
        through: None,
        owner: None,
        dns_us: None,
    };
    let mut upstream = match engine.upstream.connect(&addresses).await {
        Ok(connection) => connection,
        // Dropped, the client's connection is reset.
        Err(error) => return respond::note(&mut flow, &Failure::Connect(error)),
    };
    flow.upstream = Some(upstream.address);
    flow.timings.connect_us = upstream.connect_us;
    metrics::with(|metrics| metrics.tunnels.increment());
    let (inbox, progress) = (std::mem::take(&mut downstream.inbox), flow.progress());
    let idle = engine.config.server.timeouts.tunnel_idle;
    let ended = converse(
        &mut downstream.stream,
        &mut upstream.stream,
        Talk {
            early: inbox.bytes(),
            netns: target.vantage.namespace.as_ref().map(|namespace| namespace.cookie()),
            inspection,
            server,
            idle,
            progress,
        },
    );
    match ended.await {
        Ok(()) => {
            flow.end = "complete".into();
            upstream.stream.end_in_order();
            downstream.close_idle();
        }
        Err(error) => {
            metrics::with(|metrics| metrics.broken_tunnels.increment());
            flow.end = format!("DNS over TCP: {error}").into();
        }
    }
}

struct Talk<'a> {
    /// What the client has sent already.
    early: &'a [u8],
    netns: Option<u64>,
    inspection: &'a Inspection,
    server: SocketAddr,
    idle: Duration,
    progress: Rc<Progress>,
}

/// Until both sides have ended.
async fn converse(downstream: &mut Transport, upstream: &mut Transport, talk: Talk<'_>) -> io::Result<()> {
    let ((from_client, to_client), (from_server, to_server)) = (downstream.split(), upstream.split());
    let asked = std::cell::RefCell::new(VecDeque::new());
    let queries = async {
        let (mut from, mut to) = (talk.early.chain(from_client), to_server);
        while let Some(query) = read_message(&mut from, talk.idle).await? {
            metrics::with(|metrics| metrics.dns_queries.increment());
            write_message(&mut to, &query).await?;
            talk.progress.sent.set(talk.progress.sent.get() + 2 + query.len() as u64);
            let mut asked = asked.borrow_mut();
            if asked.len() >= MAX_OUTSTANDING {
                asked.pop_front();
            }
            asked.push_back(query);
        }
        to.shutdown().await
    };
    let answers = async {
        let (mut from, mut to) = (from_server, to_client);
        while let Some(answer) = read_message(&mut from, talk.idle).await? {
            let query = query_of(&mut asked.borrow_mut(), &answer);
            let Some(answer) = judged(&talk, query.as_deref(), &answer) else { continue };
            write_message(&mut to, &answer).await?;
            talk.progress.received.set(talk.progress.received.get() + 2 + answer.len() as u64);
        }
        to.shutdown().await
    };
    tokio::try_join!(queries, answers).map(drop)
}

/// The query that this is an answer to. A transfer of a zone has many answers, of which the first takes the query along.
fn query_of(asked: &mut VecDeque<Vec<u8>>, answer: &[u8]) -> Option<Vec<u8>> {
    let at = asked.iter().position(|query| query.get(..2) == answer.get(..2))?;
    asked.remove(at)
}

fn judged<'a>(talk: &Talk<'_>, query: Option<&[u8]>, answer: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    // What no client takes for an answer needs no look.
    Header::of(answer).filter(|header| header.is_response)?;
    let parsed = query.and_then(Message::parse);
    judge(talk.inspection, talk.netns, talk.server, (query.unwrap_or_default(), parsed.as_ref()), answer)
}

/// RFC 1035 §4.2.2. None: the end, between two messages.
async fn read_message(from: &mut (impl AsyncRead + Unpin), idle: Duration) -> io::Result<Option<Vec<u8>>> {
    let reading = async {
        let mut length = [0; 2];
        if from.read(&mut length[..1]).await? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut length[1..]).await?;
        // What it says may never come: room is made as it does.
        let mut message = Vec::new();
        let length = u16::from_be_bytes(length);
        if from.take(length.into()).read_to_end(&mut message).await? < usize::from(length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(message))
    };
    timeout(idle, reading).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn write_message(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    // It was read with such a length, or is a refusal, which is shorter.
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    // In one piece: some clients expect both in one segment (RFC 7766 §8).
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    to.write_all(&framed).await
}
