//! Requests in absolute-form: every method, every framing, both versions, connections used again.

use std::io::Write;
use std::net::TcpStream;

use weir_tests::http::{self, Answer};
use weir_tests::origin::{Origin, Request, chunked, read_answer};
use weir_tests::pattern::Pattern;
use weir_tests::weir::{Weir, connect};

/// Sends back what it was sent, framed in the same way.
fn echo(request: &Request) -> Vec<u8> {
    let body = match request.method() {
        "HEAD" => Vec::new(),
        _ if request.field("transfer-encoding").is_some() => chunked(&request.body),
        _ => request.body.clone(),
    };
    let framing = match request.field("transfer-encoding") {
        Some(_) => "Transfer-Encoding: chunked".to_owned(),
        None => format!("Content-Length: {}", request.body.len()),
    };
    let method = request.method();
    [format!("HTTP/1.1 200 OK\r\nX-Method: {method}\r\n{framing}\r\n\r\n").as_bytes(), &body].concat()
}

/// A request in absolute-form.
fn request(origin: &Origin, method: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let server = origin.address;
    let head = format!("{method} http://{server}/p?q HTTP/1.1\r\nHost: {server}\r\n{fields}\r\n");
    [head.as_bytes(), body].concat()
}

fn exchange(stream: &mut TcpStream, method: &str, request: &[u8]) -> Answer {
    // Written beside reading: with a large body, the answer starts before the request has ended.
    let mut writer = stream.try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(request).expect("weir takes the request"));
        read_answer(stream, method).expect("an answer")
    })
}

#[test]
fn curl_gets_an_absolute_form_request_through() {
    let weir = Weir::explicit("");
    let server = http::server("127.0.0.1", |mut stream| {
        let head = http::read_head(&mut stream);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
    });
    let output = weir.curl(&[&format!("http://{server}/path?q=1")]).output().expect("curl is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with(&format!("GET /path?q=1 HTTP/1.1\r\nHost: {server}\r\n")), "{text}");
    assert!(text.contains("Via: 1.1 weir-"), "{text}");
}

#[track_caller]
fn check_echo(stream: &mut TcpStream, origin: &Origin, method: &str, framing: &str, size: usize) {
    let what = format!("{method}, {framing}, {size} bytes");
    let body = Pattern::bytes(size as u64 + 1, size);
    let (fields, sent) = match framing {
        "chunked" => ("Transfer-Encoding: chunked\r\n".to_owned(), chunked(&body)),
        _ => (format!("Content-Length: {size}\r\n"), body.clone()),
    };
    let answer = exchange(stream, method, &request(origin, method, &fields, &sent));
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    assert_eq!(answer.field("x-method"), Some(method), "{what}");
    let arrived = origin.requests().pop().expect("a request");
    assert_eq!(arrived.field("transfer-encoding").is_some(), framing == "chunked", "{what}");
    assert!(arrived.body == body, "{what}: the server got another body of {} bytes", arrived.body.len());
    if method != "HEAD" {
        assert!(answer.body == body, "{what}: the client got another body of {} bytes", answer.body.len());
    }
}

#[test]
fn every_method_carries_bodies_both_ways() {
    let (weir, origin) = (Weir::explicit(""), Origin::start(echo));
    let mut stream = connect(weir.proxy);
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW-COFFEE"] {
        for framing in ["length", "chunked"] {
            for size in [0, 1, 64 << 10] {
                check_echo(&mut stream, &origin, method, framing, size);
            }
        }
    }
    assert_eq!(origin.connections(), 1, "the upstream connection was not used again");
}

#[test]
fn large_bodies_pass_if_the_limit_allows_them() {
    let weir = Weir::explicit("server: {limits: {body: 16MiB}}");
    let origin = Origin::start(echo);
    let mut stream = connect(weir.proxy);
    for framing in ["length", "chunked"] {
        check_echo(&mut stream, &origin, "POST", framing, 16 << 20);
    }
}

#[test]
fn a_body_over_the_limit_is_refused_and_never_whole_upstream() {
    let weir = Weir::explicit("server: {limits: {body: 1000}}");
    let origin = Origin::start(echo);
    let body = [b'x'; 1001];
    let sized = request(&origin, "POST", "Content-Length: 1001\r\n", b"");
    let chunked = request(&origin, "POST", "Transfer-Encoding: chunked\r\n", &chunked(&body));
    for bytes in [sized, chunked] {
        let answer = http::send(weir.proxy, &bytes).expect("an answer");
        assert_eq!(answer.status, 413, "{}", answer.text());
        assert!(answer.text().contains("server.limits.body"), "{}", answer.text());
    }
    assert!(origin.requests().is_empty());
    check_echo(&mut connect(weir.proxy), &origin, "POST", "chunked", 1000);
}

#[test]
fn connections_are_kept_on_both_sides() {
    let (weir, origin) = (Weir::explicit(""), Origin::start(echo));
    let mut stream = connect(weir.proxy);
    for _ in 0..20 {
        let answer = exchange(&mut stream, "GET", &request(&origin, "GET", "", b""));
        assert_eq!((answer.status, answer.field("connection")), (200, None));
    }
    let last = exchange(&mut stream, "GET", &request(&origin, "GET", "Connection: close\r\n", b""));
    assert_eq!(last.field("connection"), Some("close"));
    let more = http::read_to_end(&mut stream).map(|answer| answer.head);
    assert_eq!(more.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof, "the end must be a FIN");
    assert_eq!((origin.connections(), origin.requests().len()), (1, 21));
    assert_eq!((weir.metric("explicit_connections_total"), weir.metric("upstream_reuses_total")), (1, 20));
    for request in origin.requests() {
        assert_eq!(request.field("connection"), None, "weir keeps its connections: {}", request.head);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let weir = Weir::explicit("");
    let origin = Origin::start(echo);
    let names: Vec<String> = (0..50).map(|number| format!("number {number}")).collect();
    let bytes: Vec<u8> = names
        .iter()
        .flat_map(|name| {
            let length = format!("Content-Length: {}\r\n", name.len());
            request(&origin, "POST", &length, name.as_bytes())
        })
        .collect();
    let mut stream = connect(weir.proxy);
    stream.write_all(&bytes).expect("weir takes the requests");
    for name in &names {
        assert_eq!(read_answer(&mut stream, "POST").expect("an answer").text(), *name);
    }
}

#[test]
fn http_1_0_clients_are_served() {
    let (weir, origin) = (Weir::explicit(""), Origin::start(echo));
    let server = origin.address;
    let once = format!("POST http://{server}/ HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc");
    let answer = http::send(weir.proxy, once.as_bytes()).expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "abc"));
    assert_eq!(answer.field("connection"), Some("close"));
    let arrived = origin.requests().pop().expect("a request");
    assert!(arrived.head.starts_with("POST / HTTP/1.1\r\nHost: "), "{}", arrived.head);
    assert!(arrived.field("via").is_some_and(|via| via.starts_with("1.0 weir-")), "{}", arrived.head);

    let kept =
        format!("POST http://{server}/ HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc");
    let mut stream = connect(weir.proxy);
    for _ in 0..2 {
        let answer = exchange(&mut stream, "POST", kept.as_bytes());
        assert_eq!((answer.text().as_str(), answer.field("connection")), ("abc", Some("keep-alive")));
    }
}

/// What a server answers, and how a client of each version gets it: framing fields and body.
#[track_caller]
fn check_framing(answer: &str, version: &str, framing: (Option<&str>, Option<&str>, Option<&str>)) {
    let (weir, origin) = (Weir::explicit(""), Origin::fixed(answer));
    let request = format!("GET http://{}/ HTTP/{version}\r\nHost: x\r\n\r\n", origin.address);
    let mut stream = connect(weir.proxy);
    stream.write_all(request.as_bytes()).expect("weir takes the request");
    let answer = read_answer(&mut stream, "GET").expect("an answer");
    assert_eq!(answer.text(), "hello world", "{}", answer.head);
    let fields = ["content-length", "transfer-encoding", "connection"].map(|name| answer.field(name));
    assert_eq!((fields[0], fields[1], fields[2]), framing, "{}", answer.head);
}

#[test]
fn every_body_is_framed_for_its_client() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n";
    let until_close = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello world";
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world";
    let from_1_0 = "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nhello world";
    check_framing(sized, "1.1", (Some("11"), None, None));
    check_framing(sized, "1.0", (Some("11"), None, Some("close")));
    check_framing(chunked, "1.1", (None, Some("chunked"), None));
    check_framing(chunked, "1.0", (None, None, Some("close")));
    check_framing(until_close, "1.1", (None, Some("chunked"), None));
    check_framing(until_close, "1.0", (None, None, Some("close")));
    check_framing(from_1_0, "1.1", (None, Some("chunked"), None));
}

#[test]
fn answers_without_body_leave_the_connection_in_step() {
    let weir = Weir::explicit("");
    let origin = Origin::start(|request| {
        let path = request.head.split(' ').nth(1).unwrap_or_default().to_owned();
        match (request.method(), path.as_str()) {
            ("HEAD", _) => "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".into(),
            (_, "/204") => "HTTP/1.1 204 No Content\r\n\r\n".into(),
            (_, "/304") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: \"e\"\r\n\r\n".into(),
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
        }
    });
    let mut stream = connect(weir.proxy);
    for (method, path, status, length) in [
        ("HEAD", "/", 200, Some("1000000")),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("77")),
        ("GET", "/", 200, Some("2")),
    ] {
        let request = format!("{method} http://{}{path} HTTP/1.1\r\nHost: x\r\n\r\n", origin.address);
        let answer = exchange(&mut stream, method, request.as_bytes());
        assert_eq!((answer.status, answer.field("content-length")), (status, length), "{method} {path}");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_kept_connection_that_the_server_has_closed_is_replaced() {
    let weir = Weir::explicit("");
    // Each connection is good for one request; the second one finds it closed, or closing.
    let origin = Origin::start(|request| match request.field("x-number") {
        Some("1") => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(),
        _ => Vec::new(),
    });
    let mut stream = connect(weir.proxy);
    let first = exchange(&mut stream, "GET", &request(&origin, "GET", "X-Number: 1\r\n", b""));
    assert_eq!(first.status, 200);
    // Nobody answers on the kept connection, nor on a new one: asked twice, then given up.
    let second = exchange(&mut stream, "GET", &request(&origin, "GET", "X-Number: 2\r\n", b""));
    assert_eq!((second.status, origin.requests().len(), origin.connections()), (502, 3, 2));
    // Not safe to repeat: asked once.
    let third = exchange(&mut stream, "GET", &request(&origin, "GET", "X-Number: 1\r\n", b""));
    assert_eq!((third.status, origin.connections()), (200, 3));
    let fourth = exchange(&mut stream, "POST", &request(&origin, "POST", "X-Number: 2\r\n", b""));
    assert_eq!((fourth.status, origin.requests().len(), origin.connections()), (502, 5, 3));
}

#[test]
fn a_request_is_repeated_without_the_client_noticing() {
    let weir = Weir::explicit("");
    let served = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let server = http::server("127.0.0.1", move |mut stream| {
        // One answer a connection, although it promises more; the next request meets a close.
        http::read_head(&mut stream);
        served.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        http::read_head(&mut stream);
    });
    let mut stream = connect(weir.proxy);
    for round in 0..10 {
        let request = format!("GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = exchange(&mut stream, "GET", request.as_bytes());
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "round {round}");
    }
}
