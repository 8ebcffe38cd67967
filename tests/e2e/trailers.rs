//! Trailers (RFC 9110 §6.5): passed on both ways and between versions, to those who take them; never a field that would
//! mean something else in a head.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use weir_tests::http::{self as http1, Server};
use weir_tests::http2;
use weir_tests::weir::{SOON, Weir, connect, eventually};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                      5\r\nhello\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\nContent-Length: 7\r\nX-Note:  two words \r\n\r\n";

/// Reads to the end of a chunked message, whatever follows its last chunk.
fn read_chunked(stream: &mut TcpStream) -> String {
    let (mut text, mut byte) = (String::new(), [0]);
    let is_whole = |text: &str| {
        let last = if text.starts_with("0\r\n") { Some(0) } else { text.rfind("\r\n0\r\n").map(|at| at + 2) };
        let end = last.map(|at| &text[at + 3..]);
        end.is_some_and(|end| end == "\r\n" || end.ends_with("\r\n\r\n"))
    };
    while !is_whole(&text) {
        stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {text:?}"));
        text.push(char::from(byte[0]));
    }
    text
}

/// Notes each chunked request, and answers with `answer`.
fn server(answer: &'static str) -> (Server, mpsc::Receiver<String>) {
    let (tell, told) = mpsc::channel();
    let server = http1::server("127.0.0.1", move |mut stream| {
        loop {
            let head = http1::read_head(&mut stream);
            if head.is_empty() {
                return;
            }
            let body = if head.contains("chunked") { read_chunked(&mut stream) } else { String::new() };
            let _ = tell.send(head + &body);
            stream.write_all(answer.as_bytes()).expect("weir takes it");
        }
    });
    (server, told)
}

fn ask(weir: &Weir, server: &Server, version: &str, fields: &str) -> TcpStream {
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{server}/ HTTP/{version}\r\nHost: x\r\n{fields}\r\n").expect("weir takes it");
    client
}

#[test]
fn a_client_that_takes_them_gets_those_that_mean_no_harm() {
    let (weir, (server, told)) = (Weir::explicit(""), server(ANSWER));
    let answer = read_chunked(&mut ask(&weir, &server, "1.1", "Connection: TE\r\nTE: trailers\r\n"));
    assert!(answer.contains("\r\nTrailer: X-Sum\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n0\r\nX-Sum: 1\r\nX-Note: two words\r\n\r\n"), "{answer}");
    let request = told.recv_timeout(SOON).expect("a request");
    assert!(request.contains("\r\nConnection: TE\r\nTE: trailers\r\n"), "{request}");
}

#[test]
fn others_get_none() {
    let (weir, (server, told)) = (Weir::explicit(""), server(ANSWER));
    for fields in ["", "TE: gzip\r\n", "Connection: TE\r\n"] {
        let answer = read_chunked(&mut ask(&weir, &server, "1.1", fields));
        assert!(!answer.contains("Trailer") && answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
        let request = told.recv_timeout(SOON).expect("a request");
        assert!(!request.contains("TE:"), "{request}");
    }
    let mut old = ask(&weir, &server, "1.0", "TE: trailers\r\n");
    let answer = http1::read_to_end(&mut old).expect("an answer");
    assert_eq!((answer.text().as_str(), answer.field("trailer")), ("hello", None));
}

#[test]
fn those_of_a_request_reach_an_http1_server() {
    let (weir, (server, told)) = (Weir::explicit(""), server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    let end = "0\r\nX-Sum: 1\r\nHost: evil\r\nX-Forwarded-For: 1.2.3.4\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = connect(weir.proxy);
    write!(client, "POST http://{server}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n{end}")
        .expect("weir takes it");
    let request = told.recv_timeout(SOON).expect("a request");
    assert!(request.contains("\r\nTrailer: X-Sum\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"), "{request}");
    // In another message of the same connection there are none of these.
    write!(
        client,
        "POST http://{server}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    .expect("weir takes it");
    let request = told.recv_timeout(SOON).expect("a request");
    assert!(request.ends_with("\r\n\r\n0\r\n\r\n"), "{request}");
}

/// They are stored apart from the head, and follow the content again.
#[test]
fn stored_ones_follow_again() {
    const STORED: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                          5\r\nhello\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\nCache-Control: max-age=1\r\n\r\n";
    let folder = tempfile::TempDir::new().expect("a folder");
    let config = format!("cache: {{enabled: true, disk: {{path: '{}'}}}}", folder.path().display());
    let (server, told) = server(STORED);
    let takes = "Connection: TE\r\nTE: trailers\r\n";
    let first = Weir::explicit(&config);
    let check = |weir: &Weir, what: &str| {
        let answer = read_chunked(&mut ask(weir, &server, "1.1", takes));
        assert!(answer.contains("\r\nTrailer: X-Sum\r\n"), "{what}: {answer}");
        assert!(answer.ends_with("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"), "{what}: {answer}");
    };
    check(&first, "on the way into store");
    check(&first, "from memory");
    let plain = http1::read_head(&mut ask(&first, &server, "1.1", ""));
    assert!(plain.contains("\r\nContent-Length: 5\r\n") && !plain.contains("Trailer"), "{plain}");
    eventually("it on disk", || (first.metric("cache_store_keys{store=\"disk\"}") == 1).then_some(()));
    drop(first);
    let second = Weir::explicit(&config);
    eventually("the disk read in", || (second.metric("cache_store_up{store=\"disk\"}") == 1).then_some(()));
    check(&second, "from disk");
    assert_eq!(told.try_iter().count(), 1);
}

#[test]
fn between_the_versions() {
    let (weir, (http1_server, told)) = (Weir::explicit(""), server(ANSWER));
    http2::run(async {
        let mut client = http2::client(&weir).await;
        poll_fn(|cx| client.poll_ready(cx)).await.expect("room for a stream");
        let request = http2::request(Method::POST, *http1_server, "/").body(()).expect("a request");
        let (answer, mut stream) = client.send_request(request, false).expect("a stream");
        stream.send_data(Bytes::from_static(b"hello"), false).expect("a stream");
        let mut sums = HeaderMap::new();
        sums.insert("x-sum", "2".parse().expect("a value"));
        stream.send_trailers(sums).expect("a stream");
        let mut answer = answer.await.expect("an answer");
        assert_eq!(answer.headers().get("trailer").expect("announced"), "X-Sum");
        assert_eq!(http2::content(answer.body_mut()).await.expect("a whole body"), b"hello");
        let trailers = answer.body_mut().trailers().await.expect("a whole body").expect("trailers");
        let names: Vec<_> = trailers.keys().map(|name| name.as_str().to_owned()).collect();
        assert_eq!(names, ["x-sum", "x-note"]);
    });
    let request = told.recv_timeout(SOON).expect("a request");
    assert!(request.ends_with("\r\n0\r\nx-sum: 2\r\n\r\n"), "{request}");

    let known = "upstream: {http2: {prior_knowledge: ['127.0.0.1']}}";
    let (weir, http2_server) = (Weir::explicit(known), http2::Server::start());
    let mut client = connect(weir.proxy);
    let address = http2_server.address;
    write!(client, "POST http://{address}/ HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 3\r\n\r\n")
        .expect("weir takes it");
    let answer = read_chunked(&mut client);
    assert!(answer.contains("hello\r\n0\r\n") && answer.contains("\r\nx-sum: 3\r\n"), "{answer}");
    assert!(answer.contains("\r\ngrpc-status: 0\r\n"), "{answer}");
    assert_eq!(http2_server.heads()[0].headers().get("te").expect("what weir takes"), "trailers");
}
