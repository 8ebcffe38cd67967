//! WebSocket through weir with real programs at both ends: fragments, control frames, close codes, large messages, many at
//! once; over HTTP/1.1 by Upgrade, and over HTTP/2 by Extended CONNECT (RFC 8441).

use std::process::Command;

use weir_tests::background::Background;
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
