//! The explicit proxy, as `curl -x` sees it.

use std::io::Write;
use std::process::Command;

use weir_tests::http;
use weir_tests::weir::Weir;

/// A server that tells what it was asked for.
fn echo_server() -> std::net::SocketAddr {
    http::server("127.0.0.1", |mut stream| {
        let head = http::read_head(&mut stream);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
    })
}

#[test]
fn curl_gets_an_absolute_form_request_through() {
    let (weir, server) = (Weir::explicit(""), echo_server());
    let output = Command::new("curl")
        .args(["-sS", "-x", &format!("http://{}", weir.proxy), &format!("http://{server}/path?q=1")])
        .output()
        .expect("curl is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with(&format!("GET /path?q=1 HTTP/1.1\r\nHost: {server}\r\n")), "{text}");
    assert!(text.contains("Via: 1.1 weir-"), "{text}");
}
