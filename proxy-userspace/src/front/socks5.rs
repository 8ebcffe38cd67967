//! SOCKS5 (RFC 1928) on the explicit proxy's port: CONNECT, without authentication. A client that insists on a password
//! (RFC 1929) is refused: there are no users that it could be.

use std::io;
use std::rc::Rc;

use tokio::io::AsyncWriteExt;

use crate::http::authority::{Authority, Host};
use crate::net::stream::Downstream;
use crate::pipeline::failure::Failure;
use crate::pipeline::{Engine, tunnel};
use crate::target::Target;
use crate::telemetry::flow::Protocol;
use crate::upstream::ConnectError;

/// The first byte of a SOCKS5 connection, and of every message on it.
pub(super) const VERSION: u8 = 5;

/// Negotiates, and becomes a tunnel.
pub(super) async fn serve(engine: Rc<Engine>, mut downstream: Downstream, base: Target) {
    let limit = engine.config.server.timeouts.request_head;
    downstream.deadline.arm(limit);
    let asked = match ask(&mut downstream).await {
        Ok(asked) => asked,
        Err(failure) => {
            tunnel::refuse(&downstream.client, &base, Protocol::Socks5, &failure);
            return downstream.close().await;
        }
    };
    let authority = match asked {
        Asked::Connect(authority) => authority,
        Asked::Other(reply, why) => {
            let _ = downstream.stream.write_all(&message(reply)).await;
            tunnel::refuse(&downstream.client, &base, Protocol::Socks5, &Failure::BadRequest(why.into()));
            return downstream.close().await;
        }
    };
    let target = Target { authority: Some(authority), ..base };
    let opened = tunnel::open(&engine, &downstream.client, &target, Protocol::Socks5, Some("CONNECT")).await;
    let reply = match &opened {
        Ok(_) => SUCCEEDED,
        Err(refused) => reply(refused.failure()),
    };
    let message = message(reply);
    let write = downstream.stream.write_all(&message);
    let written = downstream.deadline.limit(engine.config.server.timeouts.write, write).await;
    match (opened, written) {
        (Ok(opened), Ok(Ok(()))) => opened.relay(&engine, downstream),
        (Err(refused), Ok(Ok(()))) => {
            refused.note();
            downstream.close().await;
        }
        _ => {}
    }
}

/// What a client asks for.
enum Asked {
    Connect(Authority),
    /// Something that is answered with this reply, and why.
    Other(u8, &'static str),
}

async fn ask(downstream: &mut Downstream) -> Result<Asked, Failure> {
    let [version, count] = take(downstream).await?;
    if version != VERSION {
        return Err(Failure::BadRequest("not SOCKS5".into()));
    }
    let methods = take_many(downstream, count.into()).await?;
    if !methods.contains(&WITHOUT_AUTHENTICATION) {
        write(downstream, &[VERSION, NO_METHOD]).await?;
        let why =
            "the SOCKS5 client wants to authenticate, but no users are configured: use it without a password";
        return Err(Failure::BadRequest(why.into()));
    }
    write(downstream, &[VERSION, WITHOUT_AUTHENTICATION]).await?;
    let [version, command, _, kind] = take(downstream).await?;
    if version != VERSION {
        return Err(Failure::BadRequest("not a SOCKS5 request".into()));
    }
    let host = match kind {
        1 => Some(Host::Address(take::<4>(downstream).await?.into())),
        4 => Some(Host::Address(take::<16>(downstream).await?.into())),
        3 => {
            let [length] = take(downstream).await?;
            let name = take_many(downstream, length.into()).await?;
            std::str::from_utf8(&name).ok().and_then(|name| Host::parse(name).ok())
        }
        _ => return Ok(Asked::Other(UNKNOWN_ADDRESS, "the SOCKS5 client names an address of no known kind")),
    };
    let port = u16::from_be_bytes(take(downstream).await?);
    Ok(match (command, host) {
        (CONNECT, Some(host)) if port != 0 => Asked::Connect(Authority { host, port }),
        (CONNECT, _) => Asked::Other(FAILED, "the SOCKS5 client names a host or port that can't be"),
        _ => Asked::Other(UNKNOWN_COMMAND, "the SOCKS5 client wants something else than CONNECT"),
    })
}

async fn take<const N: usize>(downstream: &mut Downstream) -> Result<[u8; N], Failure> {
    let bytes = take_many(downstream, N).await?;
    bytes.try_into().map_err(|_| Failure::ClientGone)
}

/// The next `count` bytes; at most 255 of them are asked for.
async fn take_many(downstream: &mut Downstream, count: usize) -> Result<Vec<u8>, Failure> {
    let Downstream { stream, inbox, deadline, .. } = downstream;
    while inbox.bytes().len() < count {
        match deadline.race(inbox.fill(stream)).await {
            Err(_) => return Err(Failure::RequestTimedOut),
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return Err(Failure::ClientGone),
        }
    }
    let bytes = inbox.bytes()[..count].to_vec();
    inbox.consume(count);
    Ok(bytes)
}

async fn write(downstream: &mut Downstream, bytes: &[u8]) -> Result<(), Failure> {
    let Downstream { stream, deadline, .. } = downstream;
    let written = deadline.race(stream.write_all(bytes)).await;
    written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|_| Failure::ClientGone)
}

const CONNECT: u8 = 1;
const WITHOUT_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const SUCCEEDED: u8 = 0;
const FAILED: u8 = 1;
const FORBIDDEN: u8 = 2;
const UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;
const TIMED_OUT: u8 = 6;
const UNKNOWN_COMMAND: u8 = 7;
const UNKNOWN_ADDRESS: u8 = 8;

/// RFC 1928 §6. The address that weir connects from is its own affair.
fn message(reply: u8) -> [u8; 10] {
    [VERSION, reply, 0, 1, 0, 0, 0, 0, 0, 0]
}

fn reply(failure: &Failure) -> u8 {
    match failure {
        failure if failure.is_denial() => FORBIDDEN,
        Failure::Connect(ConnectError::TimedOut { .. }) => TIMED_OUT,
        Failure::Connect(ConnectError::Failed { error, .. })
            if error.kind() == io::ErrorKind::ConnectionRefused =>
        {
            REFUSED
        }
        Failure::Unresolved(_) | Failure::Connect(_) => UNREACHABLE,
        _ => FAILED,
    }
}
