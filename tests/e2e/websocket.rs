//! WebSocket through weir with real programs at both ends: fragments, control frames, close codes, large messages, many at
//! once; over HTTP/1.1 by Upgrade, and over HTTP/2 by Extended CONNECT (RFC 8441).

use std::future::poll_fn;
use std::io::Write;
use std::process::Command;

use h2::ext::Protocol;
use http::Method;

use weir_tests::background::Background;
use weir_tests::http as http1;
use weir_tests::http2;
use weir_tests::scripts;
use weir_tests::venv;
use weir_tests::weir::Weir;

fn server() -> Background {
    Background::start_with(&venv::python(), "websocket_server.py", &[])
}

#[test]
fn by_upgrade() {
    let server = server();
    let origin = format!("127.0.0.1:{}", server.port);
    let weir = Weir::explicit(&format!("routing: {{default_backend: 'http://{origin}'}}"));
    let mut client = Command::new(venv::python());
    client.arg(scripts::path("websocket_http1.py")).arg(format!("ws://{}/chat", weir.proxy));
    assert_eq!(scripts::stdout(&mut client), "all well");
    let flows = weir.flows(64 + 1 + 5);
    assert!(flows.iter().all(|flow| flow["status"] == 101 && flow["front"] == "gateway"), "{flows:?}");
}

#[test]
fn by_extended_connect() {
    let server = server();
    let weir = Weir::explicit("");
    let mut client = Command::new(venv::python());
    let (port, origin) = (weir.proxy.port().to_string(), format!("127.0.0.1:{}", server.port));
    client.arg(scripts::path("websocket_http2.py")).args([port, origin]);
    assert_eq!(scripts::stdout(&mut client), "all well");
    assert_eq!(weir.metric("http2_connections_total"), 1);
    assert_eq!(weir.metric("tunnels_total"), 64);
}

/// RFC 6455 §4.1: what a client has to check, nobody but weir can, as the client knows nothing of the handshake.
#[test]
fn a_server_that_does_not_accept_the_handshake_gets_no_websocket() {
    for answer in [
        "Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "Upgrade: websocket\r\n",
        "Upgrade: h2c\r\n",
    ] {
        let server = http1::server("127.0.0.1", move |mut stream| {
            http1::read_head(&mut stream);
            let head = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{answer}\r\n");
            stream.write_all(head.as_bytes()).expect("weir takes it");
        });
        let weir = Weir::explicit("");
        let status = http2::run(async {
            let mut client = http2::client(&weir).await;
            poll_fn(|cx| client.poll_ready(cx)).await.expect("room for a stream");
            while !client.is_extended_connect_protocol_enabled() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            let mut request = http2::request(Method::CONNECT, *server, "/chat").body(()).expect("a request");
            request.extensions_mut().insert(Protocol::from_static("websocket"));
            let (answer, _stream) = client.send_request(request, false).expect("a stream");
            answer.await.expect("an answer").status()
        });
        assert_eq!(status, 502, "{answer}");
        assert_eq!(weir.metric("tunnels_total"), 0);
    }
}
