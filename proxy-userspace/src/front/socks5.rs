//! SOCKS5 (RFC 1928) on the explicit proxy's port: CONNECT, with a name and password (RFC 1929) where `security.auth` wants
//! them. A client that insists on a password where nobody has one is refused.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use super::{inside, intercept};
use crate::config::AuthMode;
use crate::http::authority::{Authority, Host};
use crate::http::basic::Presented;
use crate::net::stream::Downstream;
use crate::pipeline::failure::Failure;
use crate::pipeline::{Engine, identify, tunnel};
use crate::target::Target;
use crate::telemetry::flow::Protocol;
use crate::upstream::ConnectError;

/// The first byte of a SOCKS5 connection, and of every message on it.
pub(super) const VERSION: u8 = 5;

/// Negotiates, and becomes a tunnel.
pub(super) async fn serve(engine: Rc<Engine>, mut downstream: Downstream, base: Target) {
    let limit = engine.config.server.timeouts.request_head;
    downstream.deadline.arm(limit);
    let (asked, credentials) = match ask(&engine, &mut downstream).await {
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
    let target = Target { authority: Some(authority), credentials, ..base };
    if identify::has_route(&engine, &target) {
        if write(&mut downstream, &message(SUCCEEDED)).await.is_ok() {
            Box::pin(inside::serve(engine, downstream, target, "CONNECT")).await;
        }
        return;
    }
    let opened = tunnel::open(&engine, &downstream.client, &target, Protocol::Socks5, Some("CONNECT")).await;
    let reply = match &opened {
        Ok(_) => SUCCEEDED,
        Err(refused) => reply(refused.failure()),
    };
    let message = message(reply);
    let write = downstream.stream.write_all(&message);
    let written = downstream.deadline.limit(engine.config.server.timeouts.write, write).await;
    match (opened, written) {
        (Ok(opened), Ok(Ok(()))) => intercept::relay(engine, downstream, opened, target).await,
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

async fn ask(
    engine: &Rc<Engine>,
    downstream: &mut Downstream,
) -> Result<(Asked, Option<Arc<Presented>>), Failure> {
    let [version, count] = take(downstream).await?;
    if version != VERSION {
        return Err(Failure::BadRequest("not SOCKS5".into()));
    }
    let methods = take_many(downstream, count.into()).await?;
    let has = |method: u8| methods.contains(&method);
    let credentials = match identify::mode(engine) {
        AuthMode::Optional | AuthMode::Required if has(PASSWORD) => {
            write(downstream, &[VERSION, PASSWORD]).await?;
            Some(password(engine, downstream).await?)
        }
        AuthMode::Off | AuthMode::Optional if has(WITHOUT_AUTHENTICATION) => {
            write(downstream, &[VERSION, WITHOUT_AUTHENTICATION]).await?;
            None
        }
        mode => {
            write(downstream, &[VERSION, NO_METHOD]).await?;
            return Err(Failure::BadRequest(no_method(mode).into()));
        }
    };
    Ok((request(downstream).await?, credentials))
}

fn no_method(mode: AuthMode) -> &'static str {
    match mode {
        AuthMode::Off => {
            "the SOCKS5 client wants to authenticate, but security.auth.mode is off: use it without a password"
        }
        AuthMode::Optional => "the SOCKS5 client takes neither a password nor none",
        AuthMode::Required => "the SOCKS5 client gives no name and password, and security.auth requires them",
    }
}

/// The name and password (RFC 1929 §2); the client has been told whether they are right.
async fn password(engine: &Rc<Engine>, downstream: &mut Downstream) -> Result<Arc<Presented>, Failure> {
    let [version] = take(downstream).await?;
    if version != PASSWORD_VERSION {
        return Err(Failure::BadRequest("not a SOCKS5 name and password".into()));
    }
    let [length] = take(downstream).await?;
    let name = take_many(downstream, length.into()).await?;
    let [length] = take(downstream).await?;
    let password = take_many(downstream, length.into()).await?;
    let presented = match (String::from_utf8(name), String::from_utf8(password)) {
        (Ok(name), Ok(password)) => Presented::Basic { name: name.into(), password: password.into() },
        _ => Presented::Other,
    };
    let checked = identify::check(engine, &downstream.client, &presented).await;
    write(downstream, &[PASSWORD_VERSION, u8::from(checked.is_err())]).await?;
    checked?;
    Ok(Arc::new(presented))
}

async fn request(downstream: &mut Downstream) -> Result<Asked, Failure> {
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
const PASSWORD: u8 = 2;
const PASSWORD_VERSION: u8 = 1;
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
