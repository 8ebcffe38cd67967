//! Which upstream connections are used again, by whom, and how the others end.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;

use weir_tests::http::{self, Answer};
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{SOON, Weir, connect};

/// Kept connections belong to a worker; with one of them, all clients share.
const ONE_WORKER: &str = "server: {workers: 1}";

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// One exchange on a connection that goes on. `fields` are more lines of the head.
fn ask(client: &mut TcpStream, origin: &Origin, method: &str, fields: &str) -> Answer {
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    write!(client, "{method} http://{}/ HTTP/1.1\r\nHost: x\r\n{length}{fields}\r\n", origin.address)
        .expect("weir takes it");
    read_answer(client, method).expect("an answer")
}

/// RFC 9110 §9.2.2: a kept connection may be gone, and then a POST can't be repeated. The client would see a
/// failure that it can't have expected: it has only just connected.
#[test]
fn a_post_that_comes_first_goes_over_no_kept_connection() {
    let (weir, origin) = (Weir::explicit(ONE_WORKER), Origin::fixed(OK));
    assert_eq!(ask(&mut connect(weir.proxy), &origin, "GET", "").status, 200);
    assert_eq!(ask(&mut connect(weir.proxy), &origin, "GET", "").status, 200);
    assert_eq!(origin.connections(), 1, "a GET may use what was kept");
    assert_eq!(ask(&mut connect(weir.proxy), &origin, "POST", "").status, 200);
    assert_eq!(origin.connections(), 2);
    assert_eq!(ask(&mut connect(weir.proxy), &origin, "GET", "").status, 200);
    assert_eq!(origin.connections(), 2, "what a POST has left may be used again");
}

/// NTLM and Negotiate authenticate the connection, not the request: who used it next would be taken for whoever
/// logged in (RFC 4559 §6).
#[test]
fn a_connection_that_is_somebody_s_is_not_used_by_others() {
    for (answer, fields, shared) in [
        ("WWW-Authenticate: NTLM\r\n", "", false),
        ("WWW-Authenticate: ntlm TlRMTVNTUAACAAAA\r\n", "", false),
        ("WWW-Authenticate: Negotiate\r\n", "", false),
        ("WWW-Authenticate: Basic realm=\"x\"\r\nWWW-Authenticate: NTLM\r\n", "", false),
        ("", "Authorization: NTLM TlRMTVNTUAABAAAA\r\n", false),
        ("", "Authorization: Negotiate YIIJvwYG\r\n", false),
        ("", "Authorization: negotiate YIIJvwYG\r\n", false),
        ("WWW-Authenticate: Basic realm=\"x\"\r\n", "", true),
        ("", "Authorization: Basic eDp5\r\n", true),
        ("", "", true),
    ] {
        let weir = Weir::explicit(ONE_WORKER);
        let origin = Origin::fixed(&format!("HTTP/1.1 200 OK\r\n{answer}Content-Length: 2\r\n\r\nok"));
        let mut first = connect(weir.proxy);
        assert_eq!(ask(&mut first, &origin, "GET", fields).status, 200);
        assert_eq!(ask(&mut connect(weir.proxy), &origin, "GET", "").status, 200);
        let expected = if shared { 1 } else { 2 };
        assert_eq!(origin.connections(), expected, "answer {answer:?}, request {fields:?}");
        // Nor is it once the first client is gone.
        drop(first);
        let before = origin.connections();
        if !answer.is_empty() && !shared {
            // Every answer of this server makes its connection somebody's.
            assert_eq!(ask(&mut connect(weir.proxy), &origin, "GET", "").status, 200);
            assert_eq!(origin.connections(), before + 1, "answer {answer:?}");
        }
    }
}

/// How a server's connection ends that answers with `answer` and reads on.
fn end_at_server(overlay: &str, answer: &'static str, ends_its_side: bool) -> io::Result<u64> {
    let weir = Weir::explicit(overlay);
    let (tell, told) = mpsc::channel();
    let server = http::server("127.0.0.1", move |mut stream| {
        http::read_head(&mut stream);
        stream.write_all(answer.as_bytes()).expect("weir takes it");
        if ends_its_side {
            stream.shutdown(Shutdown::Write).expect("a half-close");
        }
        let ended = io::copy(&mut stream, &mut io::sink());
        tell.send(ended).expect("the test waits");
    });
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    assert_eq!(read_answer(&mut client, "GET").expect("an answer").text(), "ok", "{answer}");
    told.recv_timeout(SOON).expect("the server's connection ends")
}

#[test]
fn a_connection_that_is_not_kept_ends_in_order() {
    let close = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let chunked =
        "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    for (overlay, answer, ends_its_side) in [
        ("", close, false),
        ("", close, true),
        ("", chunked, false),
        ("", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false),
        ("", "HTTP/1.1 200 OK\r\n\r\nok", true),
        ("upstream: {idle_per_origin: 0}", OK, false),
    ] {
        let ended = end_at_server(overlay, answer, ends_its_side);
        assert!(matches!(ended, Ok(0)), "{overlay} {answer:?}, {ends_its_side}: {ended:?}");
    }
}
