//! An HTTP/2 client, as far as tests need one.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
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
