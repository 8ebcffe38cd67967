//! What weir changes of a message on its way, and what it must not: fields, interim responses, upgrades,
//! servers that answer early.

use std::io::{Read, Write};
use std::net::TcpStream;

use weir_tests::http::{self, Server};
use weir_tests::origin::{Origin, read_answer, read_request};
use weir_tests::pattern::{self, Pattern};
use weir_tests::weir::{Weir, connect};

/// The fields of a head without its first line, in lower case, Via, Host and Date aside.
fn fields(head: &str) -> Vec<String> {
    let lines = head.trim_end().lines().skip(1).map(str::to_lowercase);
    let aside = ["via:", "host:", "date:"];
    lines.filter(|line| !aside.iter().any(|name| line.starts_with(name))).collect()
}

#[track_caller]
fn check_request(weir: &Weir, sent: &str, expected: &[&str]) {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n{sent}\r\n", origin.address);
    let mut stream = connect(weir.proxy);
    stream.write_all(request.as_bytes()).expect("weir takes the request");
    assert_eq!(read_answer(&mut stream, "GET").expect("an answer").status, 200, "{sent}");
    assert_eq!(fields(&origin.requests()[0].head), expected, "{sent}");
}

#[test]
fn requests_lose_what_was_meant_for_this_hop() {
    let weir = Weir::explicit("");
    check_request(&weir, "Accept: */*\r\nX-Own: 1\r\n", &["accept: */*", "x-own: 1"]);
    check_request(&weir, "Connection: keep-alive, X-Own\r\nX-Own: 1\r\nX-Other: 2\r\n", &["x-other: 2"]);
    check_request(&weir, "Proxy-Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n", &[]);
    check_request(&weir, "Proxy-Authorization: Basic eDp5\r\nTE: gzip\r\nTrailer: X\r\n", &[]);
    check_request(&weir, "Upgrade: h2c\r\n", &[]);
    check_request(
        &weir,
        "Connection: Authorization, Host, Cookie\r\nAuthorization: a\r\nCookie: b\r\n",
        &["authorization: a", "cookie: b"],
    );
    check_request(&weir, "X-Same: 1\r\nX-Same: 2\r\nx-same:3\r\n", &["x-same: 1", "x-same: 2", "x-same: 3"]);
    check_request(
        &weir,
        "Range: bytes=0-1\r\nIf-None-Match: \"e\"\r\nCache-Control: no-cache\r\n",
        &["range: bytes=0-1", "if-none-match: \"e\"", "cache-control: no-cache"],
    );
}

#[track_caller]
fn check_response(weir: &Weir, sent: &str, expected: &[&str]) {
    let origin = Origin::fixed(&format!("HTTP/1.1 200 Fine by me\r\nContent-Length: 0\r\n{sent}\r\n"));
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address);
    let mut stream = connect(weir.proxy);
    stream.write_all(request.as_bytes()).expect("weir takes the request");
    let answer = read_answer(&mut stream, "GET").expect("an answer");
    assert!(answer.head.starts_with("HTTP/1.1 200 Fine by me\r\n"), "{}", answer.head);
    assert!(answer.field("via").is_some_and(|via| via.starts_with("1.1 weir-")), "{}", answer.head);
    let mut fields = fields(&answer.head);
    fields.retain(|line| line != "content-length: 0");
    assert_eq!(fields, expected, "{sent}");
}

#[test]
fn responses_lose_what_was_meant_for_this_hop() {
    let weir = Weir::explicit("");
    check_response(&weir, "Server: s\r\nAge: 3\r\n", &["server: s", "age: 3"]);
    check_response(&weir, "Connection: X-Own\r\nX-Own: 1\r\nKeep-Alive: timeout=5\r\n", &[]);
    check_response(&weir, "Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: X\r\n", &[]);
    check_response(&weir, "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n", &["set-cookie: a=1", "set-cookie: b=2"]);
}

#[test]
fn host_is_made_from_the_target() {
    let (weir, origin) = (Weir::explicit(""), Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    let port = origin.address.port();
    for (authority, host) in [
        (format!("127.0.0.1:{port}"), format!("127.0.0.1:{port}")),
        (format!("LocalHost:{port}"), format!("localhost:{port}")),
    ] {
        let request = format!("GET http://{authority}/ HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        let mut stream = connect(weir.proxy);
        stream.write_all(request.as_bytes()).expect("weir takes the request");
        assert_eq!(read_answer(&mut stream, "GET").expect("an answer").status, 200);
        let arrived = origin.requests().pop().expect("a request");
        assert_eq!(arrived.field("host"), Some(host.as_str()), "{}", arrived.head);
        assert!(!arrived.head.contains("evil"), "{}", arrived.head);
    }
}

/// A server that answers by a script: it is given each connection, its request's head already read.
fn scripted(script: impl Fn(&mut TcpStream, String) + Send + Sync + Clone + 'static) -> Server {
    http::server("127.0.0.1", move |mut stream| {
        let head = http::read_head(&mut stream);
        script(&mut stream, head);
    })
}

#[test]
fn curl_waits_for_100_continue_and_gets_it_from_the_server() {
    let weir = Weir::explicit("");
    let server = scripted(|stream, head| {
        assert!(head.to_lowercase().contains("expect: 100-continue"), "{head}");
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        let mut body = vec![0; 70_000];
        stream.read_exact(&mut body).expect("the body follows the 100");
        assert!(body == Pattern::bytes(5, 70_000));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
    });
    let file = weir.folder().join("body");
    std::fs::write(&file, Pattern::bytes(5, 70_000)).expect("a file");
    // Without the 100, curl would sit there for an hour.
    let patient = ["--expect100-timeout", "3600", "--max-time", "60", "-H", "Expect: 100-continue"];
    let upload = ["--data-binary", &format!("@{}", file.display()), &format!("http://{server}/")];
    let output = weir.curl(&[patient.as_slice(), &upload].concat()).output().expect("curl is installed");
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((text.as_ref(), output.status.code()), ("done", Some(0)), "{error}");
}

#[test]
fn a_server_may_refuse_what_is_expected_of_it() {
    let weir = Weir::explicit("");
    let server = scripted(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope");
        let _ = stream.read(&mut [0]);
    });
    let body = "x".repeat(70_000);
    let patient = ["--expect100-timeout", "3600", "--max-time", "60", "-H", "Expect: 100-continue"];
    let upload = ["--data-binary", &body, &format!("http://{server}/")];
    let output = weir.curl(&[patient.as_slice(), &upload].concat()).output().expect("curl is installed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nope");
    assert_eq!(weir.flows(1)[0]["status"], 403);
}

#[test]
fn interim_responses_are_passed_on_to_those_who_know_them() {
    let weir = Weir::explicit("");
    let server = scripted(|stream, _| {
        let _ = stream.write_all(
            b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
              HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        );
        let _ = stream.read(&mut [0]);
    });
    let mut stream = connect(weir.proxy);
    write!(stream, "GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    let statuses: Vec<_> =
        (0..3).map(|_| read_answer(&mut stream, "GET").map(|answer| answer.status).unwrap_or(0)).collect();
    assert_eq!(statuses, [102, 103, 200]);

    let mut stream = connect(weir.proxy);
    write!(stream, "GET http://{server}/ HTTP/1.0\r\n\r\n").expect("weir takes it");
    assert_eq!(http::read_to_end(&mut stream).expect("an answer").status, 200);
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let weir = Weir::explicit("");
    let server = scripted(|stream, head| {
        let head = head.to_lowercase();
        assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: rot13\r\n"), "{head}");
        assert!(head.contains("sec-websocket-key: k\r\n"), "{head}");
        // The first bytes of the new protocol come along with the 101.
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: rot13\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).expect("weir takes it");
        let received = pattern::receive(&mut *stream, 1).expect("the client's bytes");
        pattern::send(&mut *stream, 2, received).expect("weir takes it");
    });
    let mut stream = connect(weir.proxy);
    let fields = "Host: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: rot13\r\nSec-WebSocket-Key: k\r\n";
    write!(stream, "GET http://{server}/chat HTTP/1.1\r\n{fields}\r\n").expect("weir takes it");
    let answer = read_answer(&mut stream, "GET").expect("an answer");
    assert_eq!((answer.status, answer.field("upgrade")), (101, Some("rot13")), "{}", answer.head);
    assert_eq!(answer.field("connection").map(str::to_lowercase), Some("upgrade".into()));
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).expect("the server's first bytes");
    assert_eq!(&hello, b"hello");
    pattern::send(&stream, 1, 300_000).expect("weir takes it");
    stream.shutdown(std::net::Shutdown::Write).expect("a half-close");
    assert_eq!(pattern::receive(&stream, 2).expect("the server's bytes"), 300_000);
    let flow = &weir.flows(1)[0];
    assert_eq!((flow["status"].as_u64(), flow["end"].as_str()), (Some(101), Some("complete")), "{flow}");
}

#[test]
fn a_server_need_not_upgrade() {
    let weir = Weir::explicit("");
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nno");
    let mut stream = connect(weir.proxy);
    for _ in 0..2 {
        let fields = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        write!(stream, "GET http://{}/ HTTP/1.1\r\n{fields}\r\n", origin.address).expect("weir takes it");
        let answer = read_answer(&mut stream, "GET").expect("an answer");
        assert_eq!((answer.status, answer.text().as_str(), answer.field("upgrade")), (200, "no", None));
    }
}

#[test]
fn a_server_may_answer_before_it_has_read_the_body() {
    let weir = Weir::explicit("server: {limits: {body: 0}}");
    let server = scripted(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nwho?");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // Not one byte of the body is read until the client has its answer and gives up.
        let mut end = [0; 1];
        while matches!(stream.peek(&mut end), Ok(1)) && stream.take_error().is_ok_and(|error| error.is_none())
        {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    let mut stream = connect(weir.proxy);
    write!(stream, "POST http://{server}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        .expect("weir takes the head");
    let mut writer = stream.try_clone().expect("a descriptor");
    let sending = std::thread::spawn(move || pattern::send(&mut writer, 3, 1_000_000_000));
    let answer = read_answer(&mut stream, "POST").expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (401, "who?"));
    sending
        .join()
        .expect("a thread")
        .expect_err("the connection ends: weir can't read a gigabyte for nobody");
}

#[test]
fn the_body_of_a_request_reaches_a_slow_reader_whole() {
    let weir = Weir::explicit("");
    let server = http::server("127.0.0.1", |mut stream| {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let request = read_request(&mut stream).expect("a request").expect("a request");
        let right = request.body == Pattern::bytes(9, 5_000_000);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{right:5}");
    });
    let mut stream = connect(weir.proxy);
    write!(stream, "PUT http://{server}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n")
        .expect("weir takes the head");
    pattern::send(&stream, 9, 5_000_000).expect("weir takes the body");
    assert_eq!(read_answer(&mut stream, "PUT").expect("an answer").text(), "true ");
}
