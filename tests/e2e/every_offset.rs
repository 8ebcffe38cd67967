//! A server that stops at every byte of its response, in order or by a reset: the client gets a whole response, an
//! error, or a connection that is seen to break. Never a body that looks whole and is not.

use std::io::{Read, Write};
use std::net::Shutdown;

use weir_tests::http::{self, Server};
use weir_tests::weir::{Weir, connect, eventually, reset};

/// Answers `/N/fin` and `/N/rst` with the first N bytes.
fn stopping(response: &'static [u8]) -> Server {
    http::server("127.0.0.1", move |mut stream| {
        let head = http::read_head(&mut stream);
        let mut parts = head.split(['/', ' ']).skip(2);
        let count: usize = parts.next().and_then(|count| count.parse().ok()).expect("a number");
        let _ = stream.write_all(&response[..count]);
        if parts.next() == Some("rst") {
            // What was sent is to arrive before the reset does.
            std::thread::sleep(std::time::Duration::from_millis(5));
            reset(stream);
            return;
        }
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

/// What a client of HTTP/1.`minor` gets; None if its connection was reset.
fn ask(weir: &Weir, server: &Server, count: usize, end: &str, minor: u8) -> Option<String> {
    let mut stream = connect(weir.proxy);
    let fields = "Host: x\r\nConnection: close\r\n";
    write!(stream, "GET http://{server}/{count}/{end} HTTP/1.{minor}\r\n{fields}\r\n")
        .expect("weir takes it");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).is_ok().then(|| String::from_utf8_lossy(&answer).into_owned())
}

#[track_caller]
fn check(response: &'static [u8], whole: &str) {
    let (weir, server) = (Weir::explicit(""), stopping(response));
    let head = response.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    for (end, minor) in [("fin", 1), ("rst", 1), ("fin", 0), ("rst", 0)] {
        for count in 0..=response.len() {
            let what = format!("{count} bytes of {}, {end}, HTTP/1.{minor}", response.len());
            match ask(&weir, &server, count, end, minor) {
                Some(answer) if count < head => {
                    assert!(answer.starts_with("HTTP/1.1 502 "), "{what}: {answer}");
                }
                Some(answer) => {
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
                    assert_eq!(count, response.len(), "{what}: it looks whole: {answer}");
                    assert!(answer.ends_with(whole), "{what}: {answer}");
                }
                None => {
                    assert!(count >= head && count < response.len(), "{what}: reset");
                }
            }
        }
    }
    eventually("all connections ended", || (weir.status()["active_connections"] == 0).then_some(()));
    // Only after a whole response may there have been something to use again.
    assert!(weir.metric("upstream_reuses_total") <= 4, "a connection that broke was used again");
}

#[test]
fn with_a_length() {
    check(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world", "\r\n\r\nhello world");
}

#[test]
fn without_content() {
    check(b"HTTP/1.1 200 OK\r\nX-Field: value\r\nContent-Length: 0\r\n\r\n", "\r\n\r\n");
}

#[test]
fn in_chunks() {
    check(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n",
        "",
    );
}

#[test]
fn a_body_until_the_end_is_cut_off_by_a_reset_only() {
    let (weir, server) = (Weir::explicit(""), stopping(b"HTTP/1.1 200 OK\r\n\r\nhello world"));
    for count in 19..=30 {
        let answer = ask(&weir, &server, count, "fin", 0).expect("an orderly end");
        assert!(answer.ends_with(&"hello world"[..count - 19]), "{count}: {answer}");
        assert_eq!(ask(&weir, &server, count, "rst", 1), None, "{count}");
    }
}
