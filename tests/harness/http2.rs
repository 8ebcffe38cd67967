//! An HTTP/2 client and an HTTP/2 server, as far as tests need them.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode};
use tokio::net::TcpStream;

use crate::weir::{SOON, Weir};

/// Runs a test's future; nothing in it may take long.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(SOON * 3, future).await.expect("it ends soon") })
}

/// A connection to weir.
pub async fn client(weir: &Weir) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(weir.proxy).await.expect("weir listens");
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake(stream)
        .await
        .expect("weir speaks HTTP/2");
    tokio::spawn(connection);
    send.ready().await.expect("room for a stream")
}

pub fn request(method: Method, origin: SocketAddr, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://{origin}{path}"))
}

pub async fn get(client: &mut SendRequest<Bytes>, origin: SocketAddr) -> Response<RecvStream> {
    let request = request(Method::GET, origin, "/").body(()).expect("a request");
    poll_fn(|cx| client.poll_ready(cx)).await.expect("room for a stream");
    client.send_request(request, true).expect("a stream").0.await.expect("an answer")
}

/// The content of a body, or how it was cut off.
pub async fn content(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut content = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        let _ = body.flow_control().release_capacity(part.len());
        content.extend_from_slice(&part);
    }
    Ok(content)
}

/// Sends all of `content` as fast as it is taken.
pub async fn send(stream: &mut SendStream<Bytes>, mut content: Bytes) -> Result<(), h2::Error> {
    while !content.is_empty() {
        stream.reserve_capacity(content.len());
        let Some(room) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return Err(Reason::CANCEL.into());
        };
        stream.send_data(content.split_to(room?.min(content.len())), false)?;
    }
    stream.send_data(Bytes::new(), true)
}

/// A server that speaks HTTP/2 in the clear, and answers by path: `/` with what it was sent, and the request's trailers
/// behind it; CONNECT with what comes on the stream, but to `no.example` with 403; `/large` with [`LARGE`] bytes; `/reset` with the beginning of a body; `/refuse` not at all the first time;
/// `/calm` with a reset that asks for less; `/last` as the last one on its connection. What comes on a WebSocket's stream (RFC 8441) goes back as it is; asked for
/// `/forbidden`, there is none, and `/cut` is reset behind the first bytes.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    refused: AtomicUsize,
    broken: AtomicUsize,
    heads: Mutex<Vec<Request<()>>>,
}

impl Server {
    pub fn start() -> Self {
        Self::start_on("127.0.0.1")
    }

    /// At another address.
    pub fn start_on(host: &str) -> Self {
        let listener = std::net::TcpListener::bind((host, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        listener.set_nonblocking(true).expect("a socket");
        let seen = Arc::new(Seen::default());
        let noting = Arc::clone(&seen);
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    noting.connections.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(serve(stream, Arc::clone(&noting)));
                }
            });
        });
        Self { address, seen }
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// WebSockets whose client was gone without an end.
    pub fn broken(&self) -> usize {
        self.seen.broken.load(Ordering::SeqCst)
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<Request<()>> {
        self.seen.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(stream: TcpStream, seen: Arc<Seen>) {
    let Ok(mut connection) = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .enable_connect_protocol()
        .handshake(stream)
        .await
    else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.uri().path() == "/last" {
            connection.graceful_shutdown();
        }
        tokio::spawn(answer(request, respond, Arc::clone(&seen)));
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, seen: Arc<Seen>) {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let head = Request::from_parts(head, ());
    seen.heads.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    if path == "/refuse" && seen.refused.fetch_add(1, Ordering::SeqCst) == 0 {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    if head.extensions().get::<Protocol>().is_some() || head.method() == Method::CONNECT {
        let path = if head.uri().host() == Some("no.example") { "/forbidden".to_owned() } else { path };
        return websocket(&path, body, respond, &seen).await;
    }
    if path == "/calm" {
        return respond.send_reset(Reason::ENHANCE_YOUR_CALM);
    }
    let Ok(content) = content(&mut body).await else { return };
    let trailers = body.trailers().await.ok().flatten();
    let response = Response::builder().header("x-from", "upstream").body(()).expect("a response");
    let mut stream = respond.send_response(response, false).expect("a stream");
    if path == "/reset" {
        stream.send_data(Bytes::from_static(b"only the begi"), false).expect("a stream");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        return stream.send_reset(Reason::INTERNAL_ERROR);
    }
    let mut content = if path == "/large" { vec![b'x'; LARGE].into() } else { Bytes::from(content) };
    while !content.is_empty() {
        stream.reserve_capacity(content.len());
        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        if stream.send_data(content.split_to(room.min(content.len())), false).is_err() {
            return;
        }
    }
    let mut end = trailers.unwrap_or_default();
    end.insert("grpc-status", "0".parse().expect("a value"));
    let _ = stream.send_trailers(end);
}

/// Bytes of `/large`.
pub const LARGE: usize = 1 << 20;

async fn websocket(path: &str, mut body: RecvStream, mut respond: SendResponse<Bytes>, seen: &Seen) {
    let status = if path == "/forbidden" { StatusCode::FORBIDDEN } else { StatusCode::OK };
    let response =
        Response::builder().status(status).header("x-from", "upstream").body(()).expect("a response");
    let Ok(mut stream) = respond.send_response(response, status != StatusCode::OK) else { return };
    loop {
        match body.data().await {
            Some(Ok(part)) => {
                let _ = body.flow_control().release_capacity(part.len());
                if stream.send_data(part, false).is_err() {
                    break;
                }
                if path == "/cut" {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    return stream.send_reset(Reason::INTERNAL_ERROR);
                }
            }
            Some(Err(_)) => break,
            None => return drop(stream.send_data(Bytes::new(), true)),
        }
    }
    seen.broken.fetch_add(1, Ordering::SeqCst);
}
