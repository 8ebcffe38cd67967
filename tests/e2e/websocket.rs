//! WebSocket through weir with real programs at both ends: fragments, control frames, close codes, large messages, many at
//! once; over HTTP/1.1 by Upgrade, and over HTTP/2 by Extended CONNECT (RFC 8441).

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use h2::ext::Protocol;
use http::Method;

use weir_tests::background::Background;
use weir_tests::certificates::Authority;
use weir_tests::http as http1;
use weir_tests::http2;
use weir_tests::scripts;
use weir_tests::venv;
use weir_tests::weir::{Weir, connect, eventually, reset};

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

/// node, with WebSockets over HTTP/2 or without.
fn node(takes: &str, files: &[&str]) -> Background {
    let modules = venv::node_modules().display().to_string();
    Background::start_with(Path::new("node"), "websocket_http2.cjs", &[&[&modules, takes], files].concat())
}

/// A server with WebSockets over HTTP/2, and a weir that knows it.
fn http2_server() -> (Background, Weir) {
    let server = node("connect", &[]);
    let weir = Weir::explicit(&format!(
        "routing: {{default_backend: 'http://127.0.0.1:{}'}}\n\
         upstream: {{http2: {{prior_knowledge: ['127.0.0.1'], max_streams: 200}}}}",
        server.port
    ));
    (server, weir)
}

#[test]
fn by_upgrade_to_a_server_with_extended_connect() {
    let (_server, weir) = http2_server();
    let mut client = Command::new(venv::python());
    client.arg(scripts::path("websocket_http1.py")).arg(format!("ws://{}/chat", weir.proxy)).arg("2");
    assert_eq!(scripts::stdout(&mut client), "all well");
    let flows = weir.flows(64 + 1 + 5);
    assert!(flows.iter().all(|flow| flow["status"] == 101 && flow["front"] == "gateway"), "{flows:?}");
    assert_eq!(weir.metric("upstream_http2_connections_total"), 1);
    assert_eq!(weir.metric("upstream_connects_total"), 1);
}

#[test]
fn by_extended_connect_to_a_server_with_extended_connect() {
    let (server, weir) = http2_server();
    let mut client = Command::new(venv::python());
    let (port, origin) = (weir.proxy.port().to_string(), format!("127.0.0.1:{}", server.port));
    client.arg(scripts::path("websocket_http2.py")).args([port, origin, "2".into()]);
    assert_eq!(scripts::stdout(&mut client), "all well");
    assert_eq!((weir.metric("tunnels_total"), weir.metric("upstream_connects_total")), (64, 1));
}

#[test]
fn over_tls_the_server_chooses() {
    let authority = Authority::new();
    let identity = authority.issue("server", "IP:127.0.0.1");
    let files = [&identity.certificate, &identity.key].map(|path| path.to_str().expect("text").to_owned());
    let files = files.each_ref().map(String::as_str);
    for (takes, version) in [("connect", "2"), ("nothing", "1.1")] {
        let server = node(takes, &files);
        let weir = Weir::explicit(&format!(
            "routing: {{default_backend: 'https://127.0.0.1:{}'}}\n\
             upstream: {{http2: {{max_streams: 200}}, tls: {{system_roots: false, roots: ['{}']}}}}",
            server.port,
            authority.certificate().display()
        ));
        let plain = http1::get(weir.proxy, "/").expect("an answer");
        assert!(plain.status == 200 && plain.text().contains("2.0"), "{plain:?}");
        let mut client = Command::new(venv::python());
        client.arg(scripts::path("websocket_http1.py")).arg(format!("ws://{}/chat", weir.proxy)).arg(version);
        assert_eq!(scripts::stdout(&mut client), "all well", "{takes}");
        // Those that can't be streams have connections of their own.
        let shared = weir.metric("upstream_connects_total") == 1;
        assert_eq!(shared, takes == "connect");
    }
}

/// A request for a WebSocket, and the connection behind it.
fn ask_for(weir: &Weir, server: SocketAddr, path: &str) -> (String, TcpStream) {
    let mut stream = connect(weir.proxy);
    write!(
        stream,
        "GET http://{server}{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .expect("weir takes it");
    let head = http1::read_head(&mut stream);
    (head, stream)
}

#[test]
fn a_stream_of_a_shared_connection_is_a_websocket_of_its_own() {
    let weir = Weir::explicit("upstream: {http2: {prior_knowledge: ['127.0.0.1']}}");
    let server = http2::Server::start();
    let (head, mut stream) = ask_for(&weir, server.address, "/echo");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // The example of RFC 6455 §1.3.
    let accept = "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    assert!(head.contains(accept) && head.contains("\r\nUpgrade: websocket\r\n"), "{head}");
    let asked = server.heads().pop().expect("a request");
    assert_eq!(asked.method(), Method::CONNECT);
    assert_eq!(asked.extensions().get::<Protocol>().map(Protocol::as_str), Some("websocket"));
    assert!(
        asked.headers().get("sec-websocket-key").is_none()
            && asked.headers()["sec-websocket-version"] == "13"
    );
    stream.write_all(b"as it is").expect("weir takes it");
    let mut echoed = [0; 8];
    stream.read_exact(&mut echoed).expect("an echo");
    assert_eq!(&echoed, b"as it is");
    // Ended in order on one side, it ends so on the other.
    stream.shutdown(Shutdown::Write).expect("a half-close");
    assert_eq!(stream.read(&mut echoed).expect("no reset"), 0);

    let (head, _) = ask_for(&weir, server.address, "/forbidden");
    assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("\r\nx-from: upstream\r\n"), "{head}");

    let (head, mut stream) = ask_for(&weir, server.address, "/cut");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream.write_all(b"x").expect("weir takes it");
    let cut = stream.read_to_end(&mut Vec::new());
    assert_eq!(cut.expect_err("no orderly end").kind(), ErrorKind::ConnectionReset);

    let (_, stream) = ask_for(&weir, server.address, "/echo");
    reset(stream);
    eventually("the server hears of it", || (server.broken() == 1).then_some(()));
    assert_eq!((server.connections(), weir.metric("upstream_http2_connections_total")), (1, 1));
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
