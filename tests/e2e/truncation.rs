//! A response that its server did not finish must not look finished to anybody.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use weir_tests::http::{self, Server};
use weir_tests::pattern;
use weir_tests::weir::{Weir, connect};

/// How the server's connection ends in the middle of a body.
#[derive(Debug, Clone, Copy)]
enum End {
    Fin,
    Reset,
}

/// Sends a head and a part of a body, and ends.
fn dying_server(head: &'static str, sent: u64, end: End) -> Server {
    http::server("127.0.0.1", move |mut stream| {
        http::read_head(&mut stream);
        stream.write_all(head.as_bytes()).expect("weir takes it");
        if head.contains("chunked") {
            write!(stream, "{sent:x}\r\n").expect("weir takes it");
        }
        pattern::send(&stream, 1, sent).expect("weir takes it");
        if let End::Reset = end {
            // What was sent should arrive before the reset does.
            std::thread::sleep(Duration::from_millis(100));
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket option");
        }
    })
}

const SIZED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000001\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\n";

/// What is truncated: framing, bytes sent, the way the server ends, and the version of the client's request.
const CASES: [(&str, u64, End, &str); 9] = [
    (SIZED, 0, End::Fin, "1.1"),
    (SIZED, 999_999, End::Fin, "1.1"),
    (SIZED, 500_000, End::Reset, "1.1"),
    (SIZED, 10, End::Fin, "1.0"),
    (CHUNKED, 500_000, End::Fin, "1.1"),
    (CHUNKED, 500_000, End::Reset, "1.1"),
    (CHUNKED, 500_000, End::Fin, "1.0"),
    (UNTIL_CLOSE, 500_000, End::Reset, "1.1"),
    (UNTIL_CLOSE, 500_000, End::Reset, "1.0"),
];

/// What weir may have taken from the server, and not yet passed on, when that fails.
const GATHERED: u64 = 64 << 10;

#[test]
fn a_truncated_response_ends_in_a_reset() {
    let weir = Weir::explicit("");
    for (head, sent, end, version) in CASES {
        let server = dying_server(head, sent, end);
        let mut stream = connect(weir.proxy);
        write!(stream, "GET http://{server}/ HTTP/{version}\r\nHost: x\r\n\r\n").expect("weir takes it");
        let mut bytes = Vec::new();
        let error = stream.read_to_end(&mut bytes).expect_err(&format!("{head} {sent} {end:?} {version}"));
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{head} {sent} {end:?} {version}: {error}");
        // Behind the head, whose own last field may end in a 0.
        let text = String::from_utf8_lossy(&bytes);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(!body.ends_with("0\r\n\r\n"), "{head} {sent} {end:?}: the last chunk was invented");
    }
    let mut flows = weir.flows(CASES.len());
    // Each worker hands its own in; ids grow as requests begin.
    flows.sort_by_key(|flow| flow["id"].as_u64());
    let mut total = 0;
    for (flow, (head, sent, end, version)) in flows.into_iter().zip(CASES) {
        let case = format!("{head} {sent} {end:?} {version}: {flow}");
        assert!(flow["end"].as_str().is_some_and(|end| end.contains("cut off")), "{case}");
        let received = flow["received"].as_u64().expect("a number");
        assert!((sent.saturating_sub(GATHERED)..=sent).contains(&received), "{case}");
        total += received;
    }
    assert_eq!(weir.metric("received_bytes_total"), total);
}

#[test]
fn curl_notices_a_truncated_download() {
    let weir = Weir::explicit("");
    for (head, sent, end, version) in CASES {
        let url = format!("http://{}/", dying_server(head, sent, end));
        let version = if version == "1.0" { "--http1.0" } else { "--http1.1" };
        let output = weir.curl(&[version, "-o", "/dev/null", &url]).output().expect("curl is installed");
        // 18: partial file; 56: failure in receiving; 52: empty reply (the reset overtook the head).
        let code = output.status.code();
        assert!(matches!(code, Some(18 | 52 | 56)), "{head} {sent} {end:?} {version}: {code:?}");
    }
}

#[test]
fn an_upload_that_the_client_gives_up_is_never_whole_upstream() {
    let weir = Weir::explicit("");
    for head in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let (tell, told) = std::sync::mpsc::channel();
        let server = http::server("127.0.0.1", move |mut stream| {
            http::read_head(&mut stream);
            let ended = io::copy(&mut stream, &mut io::sink()).map_err(|error| error.kind());
            let _ = tell.send(ended);
        });
        let mut stream: TcpStream = connect(weir.proxy);
        write!(stream, "PUT http://{server}/ HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n5\r\nhello\r\n")
            .expect("weir takes it");
        stream.shutdown(std::net::Shutdown::Write).expect("an early end");
        let ended = told.recv_timeout(weir_tests::weir::SOON).expect("the server's connection ended");
        assert_eq!(ended, Err(io::ErrorKind::ConnectionReset), "{head}");
    }
}
