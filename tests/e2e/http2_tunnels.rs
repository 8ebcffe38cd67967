//! CONNECT over HTTP/2: tunnels on streams, each with an end of its own, none that holds much.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request};
use tokio::net::TcpStream;
use weir_tests::http as http1;
use weir_tests::http2::{client, content, get, run, send};
use weir_tests::origin::Origin;
use weir_tests::pattern::{self, Pattern};
use weir_tests::weir::{SOON, Weir};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// A tunnel to `server` by CONNECT.
async fn tunnel(client: &mut SendRequest<Bytes>, server: SocketAddr) -> (SendStream<Bytes>, RecvStream) {
    let request =
        Request::builder().method(Method::CONNECT).uri(server.to_string()).body(()).expect("a request");
    let (response, stream) = client.send_request(request, false).expect("a stream");
    let response = response.await.expect("an answer");
    assert_eq!(response.status(), 200);
    (stream, response.into_body())
}

#[test]
fn tunnels_carry_both_ways_and_end_as_they_ended() {
    const LENGTH: usize = 3_000_000;
    let weir = Weir::explicit("");
    // Reads to the end, and only then answers.
    let server = http1::server("127.0.0.1", |mut stream| {
        let received = pattern::receive(&stream, 1).expect("the pattern");
        assert_eq!(received, LENGTH as u64);
        pattern::send(&mut stream, 2, LENGTH as u64).expect("the client reads");
    });
    run(async {
        let mut client = client(&weir).await;
        let (mut up, mut down) = tunnel(&mut client, *server).await;
        send(&mut up, Pattern::bytes(1, LENGTH).into()).await.expect("the server takes it");
        assert!(content(&mut down).await.expect("a whole tunnel") == Pattern::bytes(2, LENGTH));
    });
    let flow = weir.flows(1).pop().expect("a flow");
    assert_eq!(
        (&flow["method"], &flow["status"], &flow["end"]),
        (&"CONNECT".into(), &200.into(), &"complete".into())
    );
    assert_eq!((&flow["sent"], &flow["received"]), (&LENGTH.into(), &LENGTH.into()));
}

#[test]
fn a_tunnel_that_breaks_is_reset_on_the_other_side() {
    let weir = Weir::explicit("");
    let resetting = http1::server("127.0.0.1", |mut stream| {
        let _ = stream.read(&mut [0]);
        weir_tests::weir::reset(stream);
    });
    let (tell, told) = std::sync::mpsc::channel();
    let waiting = http1::server("127.0.0.1", move |mut stream| {
        let mut bytes = Vec::new();
        let _ = tell.send(stream.read_to_end(&mut bytes).map_err(|error| error.kind()));
    });
    run(async {
        let mut client = client(&weir).await;
        let (mut up, mut down) = tunnel(&mut client, *resetting).await;
        up.send_data(Bytes::from_static(b"x"), false).expect("a tunnel");
        let error = content(&mut down).await.expect_err("the server has reset it");
        assert_eq!(error.reason(), Some(Reason::CONNECT_ERROR));

        let (mut up, _down) = tunnel(&mut client, *waiting).await;
        up.send_data(Bytes::from_static(b"x"), false).expect("a tunnel");
        up.send_reset(Reason::CANCEL);
        let told = tokio::task::spawn_blocking(move || told.recv_timeout(SOON)).await.expect("a thread");
        assert_eq!(told, Ok(Err(std::io::ErrorKind::ConnectionReset)), "no clean end");
        // A server that nobody is at.
        let request =
            Request::builder().method(Method::CONNECT).uri("127.0.0.1:1").body(()).expect("a request");
        let (response, _stream) = client.send_request(request, false).expect("a stream");
        assert_eq!(response.await.expect("an answer").status(), 502);
    });
}

/// There are HTTP/2 servers whose tunnels take from the upstream whatever it sends, however little the client reads.
#[test]
fn a_tunnel_whose_client_does_not_read_holds_little() {
    const STREAMS: usize = 20;
    let weir = Weir::explicit("");
    let endless = http1::server("127.0.0.1", |mut stream| {
        stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        while stream.write_all(&[b'x'; 65_536]).is_ok() {}
        let _ = stream.shutdown(Shutdown::Both);
    });
    run(async {
        let stream = TcpStream::connect(weir.proxy).await.expect("weir listens");
        // It makes room for much, and for no more after that.
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(64 << 10)
            .initial_connection_window_size(64 << 20)
            .handshake::<_, Bytes>(stream)
            .await
            .expect("weir speaks HTTP/2");
        tokio::spawn(connection);
        let mut client = send.ready().await.expect("room for a stream");
        let before = weir.resident_kib();
        let mut tunnels = Vec::new();
        for _ in 0..STREAMS {
            tunnels.push(tunnel(&mut client, *endless).await);
        }
        // Long enough for gigabytes.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let held = weir.resident_kib().saturating_sub(before);
        assert!(held < 6 << 10, "{held} KiB for {STREAMS} tunnels that nobody reads");
        // Others are served, and what was held back still comes.
        let origin = Origin::fixed(OK);
        assert_eq!(get(&mut client, origin.address).await.status(), 200);
        let mut got = 0;
        while got < 4 << 20 {
            let part = tunnels[0].1.data().await.expect("more").expect("no error");
            got += part.len();
            tunnels[0].1.flow_control().release_capacity(part.len()).expect("a stream");
        }
    });
}

#[test]
fn a_tunnel_whose_server_does_not_read_holds_little() {
    let weir = Weir::explicit("");
    let deaf = http1::server("127.0.0.1", |stream| {
        std::thread::sleep(Duration::from_secs(4));
        drop(stream);
    });
    run(async {
        let mut client = client(&weir).await;
        let before = weir.resident_kib();
        let (mut up, _down) = tunnel(&mut client, *deaf).await;
        let much = Bytes::from(vec![b'x'; 256 << 20]);
        let sent = tokio::time::timeout(Duration::from_secs(2), send(&mut up, much)).await;
        assert!(sent.is_err(), "the tunnel swallowed 256 MiB");
        let held = weir.resident_kib().saturating_sub(before);
        assert!(held < 6 << 10, "{held} KiB");
    });
}
