//! Through a parent proxy to where a connection is to go: CONNECT (RFC 9110 §9.3.6), or SOCKS5 (RFC 1928, RFC 1929).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, Ready};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ConnectError;
use crate::config::{Credentials, Limits, Parent, ParentKind};
use crate::http::authority::{Authority, Host};
use crate::http::head::ResponseHead;
use crate::http::parse::{self, Parsed};
use crate::net::transport::Transport;

/// A place behind a parent proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Through {
    pub parent: Arc<Parent>,
    pub authority: Authority,
}

/// Why a parent proxy did not lead there. Nothing of the request was sent.
#[derive(Debug, thiserror::Error)]
#[error("the parent proxy {parent} leads to no {authority}: {why}")]
pub struct NoPassage {
    parent: String,
    authority: Authority,
    why: String,
}

/// Asks the proxy at the other end of `stream` for a way to `through.authority`, within `limit`.
pub(super) async fn pass(
    stream: &mut Transport,
    through: &Through,
    limit: Duration,
) -> Result<(), ConnectError> {
    let Through { parent, authority } = through;
    let passing = async {
        match parent.kind {
            ParentKind::Http | ParentKind::Https => {
                connect(stream, authority, parent.credentials.as_ref()).await
            }
            ParentKind::Socks5 => socks5(stream, authority, parent.credentials.as_ref()).await,
        }
    };
    let why = match timeout(limit, passing).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(Refusal::Said(why))) => why,
        Ok(Err(Refusal::Io(error))) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed the connection".into()
        }
        Ok(Err(Refusal::Io(error))) => error.to_string(),
        Err(_) => "it did not answer in time".into(),
    };
    Err(ConnectError::Parent(Box::new(NoPassage {
        parent: parent.to_string(),
        authority: authority.clone(),
        why,
    })))
}

/// What Proxy-Authorization is to be (RFC 7617 §2).
#[must_use]
pub fn basic(credentials: &Credentials) -> String {
    let Credentials { name, password } = credentials;
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

enum Refusal {
    Said(String),
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn said(why: impl Into<String>) -> Refusal {
    Refusal::Said(why.into())
}

async fn connect(
    stream: &mut Transport,
    authority: &Authority,
    credentials: Option<&Credentials>,
) -> Result<(), Refusal> {
    let credentials =
        credentials.map(|credentials| format!("Proxy-Authorization: {}\r\n", basic(credentials)));
    let request = format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{}\r\n",
        credentials.unwrap_or_default()
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let head = match stream {
        Transport::Plain(socket) => peeked_head(socket).await?,
        session @ Transport::Tls(_) => read_head(session).await?,
    };
    match head.status {
        200..=299 => Ok(()),
        407 => Err(said("it wants credentials, or others than those in upstream.parent (407)")),
        status => Err(said(format!("it answered with {status}"))),
    }
}

/// Reads an answer's head byte by byte, so that nothing is taken of what follows it: that belongs to the server behind.
/// (The session has decrypted it already; no byte costs a system call.)
async fn read_head(stream: &mut Transport) -> Result<ResponseHead, Refusal> {
    let limits = Limits::default();
    let mut answer = Vec::new();
    while answer.len() < limits.head {
        answer.push(stream.read_u8().await?);
        if answer.ends_with(b"\r\n\r\n") {
            return match parse::response(&answer, &limits) {
                Ok(Parsed::Complete(head, _)) => Ok(head),
                Ok(Parsed::Partial) => Err(said("its answer is not valid")),
                Err(error) => Err(said(format!("its answer is not valid: {error}"))),
            };
        }
    }
    Err(said("its answer has no end"))
}

/// The same, of an answer that is looked at before it is taken.
async fn peeked_head(stream: &mut TcpStream) -> Result<ResponseHead, Refusal> {
    let limits = Limits::default();
    let mut answer = vec![0; limits.head];
    let mut seen = 0;
    loop {
        let count = stream.peek(&mut answer).await?;
        match parse::response(&answer[..count], &limits) {
            Ok(Parsed::Complete(head, length)) => {
                stream.read_exact(&mut answer[..length]).await?;
                return Ok(head);
            }
            Ok(Parsed::Partial) if count == 0 || (count == seen && has_ended(stream).await) => {
                return Err(said("it closed the connection"));
            }
            Ok(Parsed::Partial) => {
                seen = count;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(error) => return Err(said(format!("its answer is not valid: {error}"))),
        }
    }
}

/// Half an answer is looked at again after so long: what was peeked at stays readable.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Whether nothing more can come.
async fn has_ended(stream: &TcpStream) -> bool {
    stream.ready(Interest::READABLE).await.is_ok_and(Ready::is_read_closed)
}

/// RFC 1928.
async fn socks5(
    stream: &mut Transport,
    authority: &Authority,
    credentials: Option<&Credentials>,
) -> Result<(), Refusal> {
    let method = if credentials.is_some() { WITH_PASSWORD } else { WITHOUT };
    stream.write_all(&[VERSION, 1, method]).await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    match (chosen, credentials) {
        ([VERSION, WITHOUT], None) => {}
        ([VERSION, WITH_PASSWORD], Some(credentials)) => log_in(stream, credentials).await?,
        ([VERSION, _], _) => {
            return Err(said("it wants another kind of credentials than upstream.parent has"));
        }
        _ => return Err(said("it does not speak SOCKS5")),
    }
    let mut request = vec![VERSION, 1, 0];
    match &authority.host {
        Host::Address(std::net::IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Host::Address(std::net::IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
        Host::Name(name) => {
            let length = u8::try_from(name.len()).map_err(|_| said("the name is too long"))?;
            request.extend([3, length]);
            request.extend(name.bytes());
        }
    }
    request.extend(authority.port.to_be_bytes());
    stream.write_all(&request).await?;
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).await?;
    if reply[0] != VERSION {
        return Err(said("it does not speak SOCKS5"));
    }
    if reply[1] != 0 {
        return Err(said(reason(reply[1])));
    }
    // The address that it connects from, of which the first byte was read.
    let rest = match reply[3] {
        1 => 3,
        4 => 15,
        3 => usize::from(reply[4]),
        _ => return Err(said("it does not speak SOCKS5")),
    };
    stream.read_exact(&mut vec![0; rest + 2]).await?;
    Ok(())
}

/// RFC 1929.
async fn log_in(stream: &mut Transport, credentials: &Credentials) -> Result<(), Refusal> {
    let mut request = vec![1];
    for part in [&credentials.name, &credentials.password] {
        request.push(u8::try_from(part.len()).map_err(|_| said("the credentials are too long"))?);
        request.extend(part.bytes());
    }
    stream.write_all(&request).await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    if answer[1] == 0 { Ok(()) } else { Err(said("it does not accept the credentials in upstream.parent")) }
}

const VERSION: u8 = 5;
const WITHOUT: u8 = 0;
const WITH_PASSWORD: u8 = 2;

/// RFC 1928 §6.
fn reason(reply: u8) -> &'static str {
    match reply {
        2 => "its rules forbid it",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the connection was refused",
        6 => "it took too long",
        7 | 8 => "it does not know how",
        _ => "it has failed",
    }
}
