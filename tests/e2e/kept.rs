//! Which upstream connections are used again, by whom, and how the others end.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;

use weir_tests::background::Background;
use weir_tests::certificates::Authority;
use weir_tests::http::{self, Answer};
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{SOON, Weir, connect, eventually};

/// For what is not about who shares what.
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

/// A client has its answer a moment before its worker is done with it.
fn settled(weir: &Weir) {
    eventually("the client's connection has ended", || {
        (weir.status()["active_connections"] == 0).then_some(())
    });
}

/// Which worker a client is served by is chance: of so many, some are not served by the one that has kept the connection.
#[test]
fn a_worker_uses_what_another_one_has_kept() {
    let (weir, origin) = (Weir::explicit("server: {workers: 4}"), Origin::fixed(OK));
    for _ in 0..40 {
        assert_eq!(ask(&mut connect(weir.proxy), &origin, "GET", "").status, 200);
        settled(&weir);
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(weir.metric("upstream_reuses_total"), 39);
    assert!(weir.metric("upstream_moves_total") > 0);
}

/// The same through TLS, whose session goes along.
#[test]
fn a_session_goes_from_worker_to_worker() {
    const SERVER: &str = "const h = require('https'), fs = require('fs'); let n = 0; \
        const s = h.createServer({cert: fs.readFileSync(process.argv[1]), key: fs.readFileSync(process.argv[2]), \
        keepAliveTimeout: 60000}, (q, r) => r.end('' + n)); s.on('secureConnection', () => n++); \
        s.listen(0, '127.0.0.1', () => console.log(s.address().port)); \
        process.stdin.on('end', () => process.exit(0)).resume();";
    let authority = Authority::new();
    let identity = authority.issue("server", "IP:127.0.0.1");
    let node = Background::start_node(SERVER, &[&identity.certificate, &identity.key]);
    let weir = Weir::explicit(&format!(
        "server: {{workers: 4}}\nupstream: {{tls: {{system_roots: false, roots: ['{}']}}}}",
        authority.certificate().display()
    ));
    for _ in 0..40 {
        let url = format!("https://127.0.0.1:{}/", node.port);
        let request = format!("GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = http::send(weir.proxy, request.as_bytes()).expect("an answer");
        assert_eq!((answer.status, &*answer.text()), (200, "1"));
        settled(&weir);
    }
    assert_eq!(weir.metric("upstream_reuses_total"), 39);
    assert!(weir.metric("upstream_moves_total") > 0);
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
