//! Who waits for whom: clients that talk on, servers that take their time, peers that go away meanwhile.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;
use std::time::Duration;

use weir_tests::http::{self, Server};
use weir_tests::origin::{Origin, chunk, read_answer, read_request};
use weir_tests::weir::{SOON, Weir, connect, eventually, reset};

/// Many programs write all of a body before they read, and look at no error until then.
#[test]
fn a_client_that_reads_only_after_all_was_written_gets_its_413() {
    const PIECES: usize = 1024;
    let weir = Weir::explicit("server: {limits: {body: 1000}}");
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let plain = vec![b'x'; 64 << 10];
    let sized = format!("Content-Length: {}", PIECES * plain.len());
    let chunked = "Transfer-Encoding: chunked".to_owned();
    for (framing, piece) in [(sized, plain.clone()), (chunked, chunk(&plain))] {
        let mut client = connect(weir.proxy);
        write!(client, "POST http://{}/ HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n", origin.address)
            .expect("weir takes the head");
        let failed = (0..PIECES).filter(|_| client.write_all(&piece).is_err()).count();
        // RFC 9112 §9.6: a reset can destroy the answer before it is read. Linux would still hand it out here, so
        // only the writes show whether there was one.
        assert_eq!(failed, 0, "{framing}: writes that met a reset");
        let answer = http::read_to_end(&mut client).unwrap_or_else(|error| panic!("{framing}: {error}"));
        assert_eq!(answer.status, 413, "{framing}: {}", answer.head);
        assert!(answer.text().contains("server.limits.body"), "{framing}: {}", answer.text());
    }
    assert!(origin.requests().is_empty());
}

/// Answers after so long, once it has the whole request.
fn late_server(after: Duration) -> Server {
    http::server("127.0.0.1", move |mut stream| {
        let request = read_request(&mut stream).expect("a request").expect("a request");
        assert_eq!(request.body, b"hello");
        std::thread::sleep(after);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    })
}

#[test]
fn the_time_to_write_a_body_does_not_limit_the_wait_for_the_answer() {
    let weir = Weir::explicit("server: {timeouts: {read: 5s, write: 1s}}");
    for pause in [0, 100] {
        for (framing, body) in
            [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
        {
            let server = late_server(Duration::from_millis(2500));
            let mut client = connect(weir.proxy);
            write!(client, "POST http://{server}/ HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n")
                .expect("weir takes the head");
            // A body that comes later is written while the answer is waited for already.
            std::thread::sleep(Duration::from_millis(pause));
            client.write_all(body.as_bytes()).expect("weir takes the body");
            let answer = read_answer(&mut client, "POST").expect("an answer");
            assert_eq!(answer.status, 200, "{framing}, after {pause} ms: {}", answer.text());
        }
    }
}

/// A server that begins an answer with `begun` and goes no further. Tells that it has done so (None), and how its
/// connection ended.
fn stuck_server(begun: &'static str) -> (Server, mpsc::Receiver<Option<io::Result<usize>>>) {
    let (tell, told) = mpsc::channel();
    let server = http::server("127.0.0.1", move |mut stream| {
        http::read_head(&mut stream);
        stream.write_all(begun.as_bytes()).expect("weir takes it");
        // The test may be over by then.
        let _ = tell.send(None);
        let _ = tell.send(Some(stream.read(&mut [0])));
    });
    (server, told)
}

#[test]
fn a_client_that_goes_away_is_waited_for_no_longer() {
    let weir = Weir::explicit("");
    for (number, begun) in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"].into_iter().enumerate()
    {
        let (server, told) = stuck_server(begun);
        let mut client = connect(weir.proxy);
        write!(client, "GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
        assert!(told.recv_timeout(SOON).expect("the request arrives").is_none());
        if !begun.is_empty() {
            assert!(http::read_head(&mut client).starts_with("HTTP/1.1 200 OK"));
            client.read_exact(&mut [0; 5]).expect("the beginning");
        }
        reset(client);
        // timeouts.read would end it too, but not within this time.
        let ended = told.recv_timeout(SOON).unwrap_or_else(|_| panic!("after {begun:?}: still connected"));
        assert!(matches!(ended, Some(Ok(0) | Err(_))), "{ended:?}");
        let flow = weir.flows(number + 1).pop().expect("a flow");
        assert_ne!(flow["end"], "complete", "{flow}");
    }
    eventually("all connections ended", || (weir.status()["active_connections"] == 0).then_some(()));
}

/// Some clients end their side once they have asked, and wait.
#[test]
fn a_client_that_has_only_ended_its_side_still_gets_its_answer() {
    let weir = Weir::explicit("");
    let server = http::server("127.0.0.1", |mut stream| {
        http::read_head(&mut stream);
        std::thread::sleep(Duration::from_millis(500));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    client.shutdown(Shutdown::Write).expect("a half-close");
    assert_eq!(http::read_to_end(&mut client).expect("an answer").text(), "ok");
}
