//! A server's answer that can't be trusted is a 502, and nothing of it reaches the client.

use std::io::{Read, Write};
use std::time::Duration;

use weir_tests::http::{self, Server};
use weir_tests::origin::{Origin, read_answer, read_request};
use weir_tests::weir::{Weir, connect};

/// Answers every request with the same bytes, whatever they are, and ends.
fn server(answer: Vec<u8>) -> Server {
    http::server("127.0.0.1", move |mut stream| {
        http::read_head(&mut stream);
        let _ = stream.write_all(&answer);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0]);
    })
}

#[test]
fn answers_that_are_none() {
    let weir = Weir::explicit("");
    let many: String = (0..300).map(|number| format!("X-{number}: leak\r\n")).collect();
    for (what, answer) in [
        ("nothing", String::new()),
        ("garbage", "leak leak leak\r\n\r\n".into()),
        ("SSH", "SSH-2.0-leak\r\n".into()),
        ("HTTP/0.9", "<html>leak</html>".into()),
        ("HTTP/2", "HTTP/2 200\r\n\r\nleak".into()),
        ("HTTP/1.2", "HTTP/1.2 200 OK\r\nContent-Length: 4\r\n\r\nleak".into()),
        ("a status of two digits", "HTTP/1.1 20 OK\r\n\r\nleak".into()),
        ("a status of four digits", "HTTP/1.1 2000 OK\r\n\r\nleak".into()),
        ("a status in words", "HTTP/1.1 OK\r\n\r\nleak".into()),
        ("half a head", "HTTP/1.1 200 OK\r\nX-Leak: leak\r\n".into()),
        (
            "CL and TE",
            "HTTP/1.1 200 leak\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nleak".into(),
        ),
        ("two lengths", "HTTP/1.1 200 leak\r\nContent-Length: 4\r\nContent-Length: 3\r\n\r\nleak".into()),
        (
            "the same length twice",
            "HTTP/1.1 200 leak\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nleak".into(),
        ),
        ("a bad length", "HTTP/1.1 200 leak\r\nContent-Length: -1\r\n\r\nleak".into()),
        ("an unknown coding", "HTTP/1.1 200 leak\r\nTransfer-Encoding: gzip\r\n\r\nleak".into()),
        ("chunked in HTTP/1.0", "HTTP/1.0 200 leak\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into()),
        ("a bare LF", "HTTP/1.1 200 leak\nContent-Length: 4\n\nleak".into()),
        ("a bare LF in fields", "HTTP/1.1 200 leak\r\nX: leak\nContent-Length: 4\r\n\r\nleak".into()),
        ("a NUL byte", "HTTP/1.1 200 leak\r\nX: le\0ak\r\n\r\n".into()),
        ("a folded line", "HTTP/1.1 200 leak\r\nX: leak\r\n leak\r\nContent-Length: 0\r\n\r\n".into()),
        ("a space before the colon", "HTTP/1.1 200 leak\r\nContent-Length : 4\r\n\r\nleak".into()),
        ("a huge head", format!("HTTP/1.1 200 leak\r\nX: {}\r\n\r\n", "leak".repeat(100_000))),
        ("a head without end", format!("HTTP/1.1 200 leak\r\nX: {}", "leak".repeat(100_000))),
        ("many fields", format!("HTTP/1.1 200 leak\r\n{many}\r\n")),
        ("101 unasked", "HTTP/1.1 101 leak\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nleak".into()),
    ] {
        let request =
            format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", server(answer.into()));
        let answer = http::send(weir.proxy, request.as_bytes()).expect("an answer");
        assert_eq!(answer.status, 502, "{what}: {}", answer.head);
        assert!(
            !answer.head.contains("leak") && !answer.text().contains("leak"),
            "{what}: {}",
            answer.text()
        );
        assert!(
            answer.text().starts_with("weir: 502 Bad Gateway: the upstream"),
            "{what}: {}",
            answer.text()
        );
    }
    assert!(!weir.log().contains("panicked"), "{}", weir.log());
}

#[test]
fn a_bad_answer_leaves_the_downstream_connection_in_step() {
    let weir = Weir::explicit("");
    let bad = server(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_vec());
    let good = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut stream = connect(weir.proxy);
    for (server, status) in [(*bad, 502), (good.address, 200), (*bad, 502), (good.address, 200)] {
        write!(stream, "GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
        assert_eq!(read_answer(&mut stream, "GET").expect("an answer").status, status);
    }
}

#[test]
fn bytes_behind_an_answer_are_never_the_next_one() {
    let weir = Weir::explicit("");
    // A second answer that nobody asked for: the connection must not be used again.
    let origin = Origin::start(|_| {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        format!("{answer}ok{answer}no").into_bytes()
    });
    let no_content = Origin::start(|request| match request.method() {
        "GET" => b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil".to_vec(),
    });
    let mut stream = connect(weir.proxy);
    for _ in 0..3 {
        write!(stream, "GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address).expect("weir takes it");
        assert_eq!(read_answer(&mut stream, "GET").expect("an answer").text(), "ok");
        // RFC 9110 §8.6: a 204 has no length, whatever the server says.
        write!(stream, "GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", no_content.address)
            .expect("weir takes it");
        let answer = read_answer(&mut stream, "GET").expect("an answer");
        assert_eq!((answer.status, answer.field("content-length")), (204, None), "{}", answer.head);
        write!(stream, "HEAD http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", no_content.address)
            .expect("weir takes it");
        let answer = read_answer(&mut stream, "HEAD").expect("an answer");
        assert_eq!((answer.status, answer.field("content-length")), (200, Some("4")), "{}", answer.head);
    }
    assert_eq!((origin.connections(), no_content.connections()), (3, 6));
}

#[test]
fn a_server_that_says_nothing_is_a_gateway_time_out() {
    let weir = Weir::explicit("server: {timeouts: {read: 1s}}");
    let silent = http::server("127.0.0.1", |mut stream| {
        http::read_head(&mut stream);
        let _ = stream.read(&mut [0]);
    });
    let request = format!("GET http://{silent}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = http::send(weir.proxy, request.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 504, "{}", answer.text());
}

#[test]
fn a_client_that_sends_no_body_is_told_so() {
    let weir = Weir::explicit("server: {timeouts: {read: 1s}}");
    let silent = http::server("127.0.0.1", |mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let mut stream = connect(weir.proxy);
    write!(stream, "POST http://{silent}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhi")
        .expect("weir takes it");
    assert_eq!(read_answer(&mut stream, "POST").expect("an answer").status, 408);
}

#[test]
fn a_server_that_stops_in_the_middle_is_a_reset() {
    let weir = Weir::explicit("server: {timeouts: {read: 1s}}");
    let stalling = http::server("127.0.0.1", |mut stream| {
        http::read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
        std::thread::sleep(Duration::from_secs(20));
    });
    let mut stream = connect(weir.proxy);
    write!(stream, "GET http://{stalling}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).expect_err("no clean end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    assert!(bytes.ends_with(b"hello"), "{}", String::from_utf8_lossy(&bytes));
}

/// RFC 9110 §7.8: a server must not switch before it has the whole request. Whatever of the body is still on its
/// way would be the first bytes of the new protocol.
#[test]
fn an_upgrade_before_the_request_s_end_is_none() {
    const SWITCH: &[u8] = b"HTTP/1.1 101 leak\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nleak";
    const FIELDS: &str = "Host: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n";
    let weir = Weir::explicit("");
    for (framing, part) in [("Content-Length: 10", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n")]
    {
        let server = http::server("127.0.0.1", |mut stream| {
            http::read_head(&mut stream);
            let _ = stream.write_all(SWITCH);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let mut client = connect(weir.proxy);
        write!(client, "POST http://{server}/ HTTP/1.1\r\n{FIELDS}{framing}\r\n\r\n{part}")
            .expect("weir takes it");
        // The connection may also just end.
        let mut said = Vec::new();
        let _ = client.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 502 "), "{framing}: {said}");
        assert!(!said.contains("leak"), "{framing}: {said}");
    }
    assert_eq!(weir.metric("tunnels_total"), 0);

    // The same after the whole request is an upgrade.
    let server = http::server("127.0.0.1", |mut stream| {
        let request = read_request(&mut stream).expect("a request").expect("a request");
        assert_eq!(request.body, b"hello");
        let _ = stream.write_all(SWITCH);
    });
    let mut client = connect(weir.proxy);
    write!(client, "POST http://{server}/ HTTP/1.1\r\n{FIELDS}Content-Length: 5\r\n\r\nhello")
        .expect("weir takes it");
    assert_eq!(read_answer(&mut client, "POST").expect("an answer").status, 101);
}

/// Interim responses that may come before the final one.
const MAX_INTERIM: usize = 16;

/// After so many, nothing else is to be expected.
const PATIENCE: usize = 1000;

/// The interim responses to a request of this version, and the status that ends them.
fn final_status(weir: &Weir, server: &Server, version: &str) -> (usize, u16) {
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{server}/ HTTP/{version}\r\nHost: x\r\n\r\n").expect("weir takes it");
    for interim in 0..=PATIENCE {
        let status = read_answer(&mut client, "GET").expect("an answer").status;
        if status >= 200 {
            return (interim, status);
        }
    }
    panic!("no final response after {PATIENCE} interim ones");
}

#[test]
fn interim_responses_come_to_an_end() {
    let weir = Weir::explicit("");
    let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let endless = http::server("127.0.0.1", |mut stream| {
        http::read_head(&mut stream);
        while stream.write_all(interim).is_ok() {}
    });
    let enough = http::server("127.0.0.1", |mut stream| {
        http::read_head(&mut stream);
        let _ = stream.write_all(&interim.repeat(MAX_INTERIM));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    assert_eq!(final_status(&weir, &enough, "1.1"), (MAX_INTERIM, 200));
    assert_eq!(final_status(&weir, &enough, "1.0"), (0, 200));
    // The one that is too many may have been passed on.
    let (count, status) = final_status(&weir, &endless, "1.1");
    assert!(count <= MAX_INTERIM + 1 && status == 502, "{count} interim responses, {status}");
    assert_eq!(final_status(&weir, &endless, "1.0"), (0, 502));
}
