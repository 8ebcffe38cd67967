//! The first look at an app: whether it answers yet, by which of its ways, and what framework its page looks like. It is
//! asked for `/` until it answers once, each time after a longer wait, and then never again.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::Domain;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::handlers::{Answer, Framework};
use super::{Service, Services};
use crate::authority::{Host, Scheme};
use crate::target::Reach;

/// The wait after the first look; each further one is longer by half, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of a page is looked at.
const MAX_PAGE: usize = 256 << 10;

/// Looks under way at one time.
const MAX_LOOKS: usize = 16;

/// An app that has not answered yet.
struct Silent {
    service: Arc<Service>,
    next: Instant,
    wait: Duration,
}

/// Whether an address may be connected to.
pub type Allowed = Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// Looks at apps as they come, until it is dropped.
pub async fn probe(services: Arc<Services>, allowed: Allowed) {
    let mut silent: HashMap<Box<str>, Silent> = HashMap::new();
    loop {
        let table = services.table();
        silent.retain(|_, known| {
            known.service.is_to_be_asked()
                && table.services().iter().any(|service| Arc::ptr_eq(service, &known.service))
        });
        for service in table.services().iter().filter(|service| service.is_to_be_asked()) {
            let (service, next) = (Arc::clone(service), Instant::now());
            silent.entry(service.id.clone()).or_insert(Silent { service, next, wait: FIRST });
        }
        let mut looks = JoinSet::new();
        for known in silent.values_mut().filter(|known| known.next <= Instant::now()).take(MAX_LOOKS) {
            looks.spawn(look(Arc::clone(&known.service), Arc::clone(&allowed)));
            known.next = Instant::now() + known.wait;
            known.wait = (known.wait + known.wait / 2).min(LONGEST);
        }
        while looks.join_next().await.is_some() {}
        match silent.values().map(|known| known.next).min() {
            None => services.news.notified().await,
            Some(next) => {
                let wait = next.saturating_duration_since(Instant::now());
                tokio::select! {
                    () = services.news.notified() => {}
                    () = sleep(wait) => {}
                }
            }
        }
    }
}

async fn look(service: Arc<Service>, allowed: Allowed) {
    // What is behind TLS is not looked at: its first client finds out whether it answers.
    if service.ways().all(|(_, way)| way.scheme == Scheme::Https) {
        return service.note_framework(Framework::default());
    }
    for (index, way) in service.ways() {
        match timeout(PATIENCE, ask(way, &allowed)).await {
            Ok(Ok((server, body))) => {
                let framework = Framework::of_answer(&Answer { server: &server, body: &body });
                service.note_framework(framework);
                service.note_reached(index);
                tracing::debug!(service = %service.id, way = way.kind, ?framework, "an app answers");
                return;
            }
            Ok(Err(error)) => {
                tracing::debug!(service = %service.id, way = way.kind, %error, "an app does not answer yet");
            }
            Err(_) => tracing::debug!(service = %service.id, way = way.kind, "an app takes long to answer"),
        }
    }
}

/// What it is served by, and the beginning of its page.
async fn ask(way: &Reach, allowed: &Allowed) -> io::Result<(String, String)> {
    let stream = connect(way, allowed).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let serving = async {
        let request = Request::get("/").header("Host", way.at.to_string()).header("Accept", "text/html, */*");
        let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let server = answer.headers().get("server").and_then(|server| server.to_str().ok());
        let server = server.unwrap_or_default().to_ascii_lowercase();
        // A page that is longer shows nothing: a framework's first page is short.
        let body = Limited::new(answer.into_body(), MAX_PAGE).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Ok((server, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::pin!(serving);
    tokio::select! {
        answer = &mut serving => answer,
        ended = connection => match ended {
            // It may have ended with the answer.
            Ok(()) => serving.await,
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

async fn connect(way: &Reach, allowed: &Allowed) -> io::Result<TcpStream> {
    let address = match &way.at.host {
        Host::Address(address) => SocketAddr::new(*address, way.at.port),
        Host::Name(name) => {
            let mut found = tokio::net::lookup_host((&**name, way.at.port)).await?;
            found.next().ok_or(io::ErrorKind::NotFound)?
        }
    };
    if let Some(namespace) = &way.vantage.namespace {
        let socket = namespace.tcp_socket(Domain::for_address(address)).await?;
        return TcpSocket::from_std_stream(socket.into()).connect(address).await;
    }
    if !allowed(address) {
        return Err(io::Error::other(format!("{address} is weir's own")));
    }
    TcpStream::connect(address).await
}
