//! Which upstream connections are used again, by whom, and how the others end.

use std::io::Write;
use std::net::TcpStream;

use weir_tests::http::Answer;
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{Weir, connect};

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
