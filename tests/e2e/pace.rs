//! A byte now and then: whoever keeps weir waiting like that, client or server, is cut off; whoever only has nothing to say
//! yet is not.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use weir_tests::http::{self, Server};
use weir_tests::origin::{Origin, read_answer, read_request};
use weir_tests::weir::{SOON, Weir, connect};

/// What weir is asked to bear with.
const LIMITS: &str = "server: {timeouts: {read: 2s, write: 2s}}";

/// Well within a time-out each, however busy the machine is.
const BETWEEN: Duration = Duration::from_millis(200);

/// More drips than anybody should have to take.
const MANY: usize = 300;

/// Sends a byte now and then, until that fails.
fn drip(mut stream: TcpStream, part: &[u8], times: usize) -> bool {
    (0..times).all(|_| {
        thread::sleep(BETWEEN);
        stream.write_all(part).is_ok()
    })
}

/// The status that a client gets that drips its request.
fn dripped(weir: &Weir, origin: &Origin, fields: &str, part: &'static [u8]) -> io::Result<u16> {
    let mut client = connect(weir.proxy);
    write!(client, "POST http://{}/ HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n", origin.address)?;
    let sending = client.try_clone()?;
    let sender = thread::spawn(move || drip(sending, part, MANY));
    let answer = read_answer(&mut client, "POST");
    drop(client);
    assert!(!sender.join().expect("no panic"), "weir has taken all of it");
    answer.map(|answer| answer.status)
}

#[test]
fn a_request_that_drips_is_refused() {
    let (weir, origin) =
        (Weir::explicit(LIMITS), Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    let status = dripped(&weir, &origin, "Content-Length: 1000", b"x").expect("an answer");
    assert_eq!(status, 408);
    let status = dripped(&weir, &origin, "Transfer-Encoding: chunked", b"1\r\nx\r\n").expect("an answer");
    assert_eq!(status, 408);
    assert!(origin.requests().is_empty());
    let flows = weir.flows(2);
    assert!(flows.iter().all(|flow| flow["end"].to_string().contains("server.limits.min_rate")), "{flows:?}");
}

/// The time for an answer begins where the request ends.
#[test]
fn an_upload_may_take_longer_than_any_time_out() {
    let weir = Weir::explicit(LIMITS);
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut client = connect(weir.proxy);
    write!(client, "POST http://{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n", origin.address)
        .expect("weir takes it");
    assert!(drip(client.try_clone().expect("a socket"), &[b'x'; 1000], 20));
    assert_eq!(read_answer(&mut client, "POST").expect("an answer").text(), "ok");
}

#[test]
fn a_call_of_grpc_may_pause() {
    let weir = Weir::explicit(LIMITS);
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut client = connect(weir.proxy);
    let fields = "Content-Type: application/grpc+proto\r\nTransfer-Encoding: chunked";
    write!(client, "POST http://{}/ HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n", origin.address)
        .expect("weir takes it");
    assert!(drip(client.try_clone().expect("a socket"), b"1\r\nx\r\n", 20));
    client.write_all(b"0\r\n\r\n").expect("weir takes it");
    assert_eq!(read_answer(&mut client, "POST").expect("an answer").text(), "ok");
}

/// A server that answers with a head, and drips what follows.
fn dripping(head: &'static str, part: &'static [u8], times: usize, end: &'static [u8]) -> Server {
    http::server("127.0.0.1", move |mut stream| {
        read_request(&mut stream).expect("a request");
        stream.write_all(head.as_bytes()).expect("weir takes it");
        if drip(stream.try_clone().expect("a socket"), part, times) {
            let _ = stream.write_all(end);
        }
    })
}

fn get(weir: &Weir, server: &Server) -> io::Result<http::Answer> {
    let request = format!("GET http://{server}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut client = connect(weir.proxy);
    client.write_all(request.as_bytes())?;
    http::read_to_end(&mut client)
}

#[test]
fn a_response_of_known_length_that_drips_is_cut_off() {
    for overlay in [LIMITS, &format!("{LIMITS}\ncache: {{enabled: true}}")] {
        let weir = Weir::explicit(overlay);
        let server = dripping("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x", MANY, b"");
        let cut = get(&weir, &server).expect_err("a truncated success");
        assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
        assert!(
            weir.flows(1)[0]["end"].to_string().contains("server.limits.min_rate"),
            "{}",
            weir.flows(1)[0]
        );
    }
}

#[test]
fn a_head_that_drips_is_no_answer() {
    let weir = Weir::explicit(LIMITS);
    let server = dripping("HTTP/1.1 200 OK\r\nX-A: ", b"x", MANY, b"");
    assert_eq!(get(&weir, &server).expect("an answer").status, 504);
}

#[test]
fn a_stream_of_events_may_be_as_slow_as_it_likes() {
    let weir = Weir::explicit(LIMITS);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let server = dripping(head, b"1\r\n:\r\n", 20, b"0\r\n\r\n");
    let answer = get(&weir, &server).expect("an answer");
    assert_eq!(answer.text().matches("1\r\n:\r\n").count(), 20, "{}", answer.text());
}

#[test]
fn whoever_wants_to_can_wait() {
    let weir = Weir::explicit("server: {timeouts: {read: 2s, write: 2s}, limits: {min_rate: 0}}");
    let server = dripping("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", b"x", 20, b"");
    assert_eq!(get(&weir, &server).expect("an answer").text(), "x".repeat(20));
}

/// The server is not held up for longer than that by a client which reads a little now and then.
#[test]
fn a_client_that_reads_too_slowly_is_cut_off() {
    // Bytes a second: what one read frees in the buffers of a kernel is worth many seconds at the default.
    let weir = Weir::explicit("server: {timeouts: {read: 2s, write: 2s}, limits: {min_rate: 1MiB}}");
    let (tell, told) = mpsc::channel();
    let server = http::server("127.0.0.1", move |mut stream| {
        read_request(&mut stream).expect("a request");
        let written = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            .and_then(|()| io::copy(&mut io::repeat(0).take(1_000_000_000), &mut stream));
        tell.send(written.is_err()).expect("the test waits");
    });
    let mut client = connect(weir.proxy);
    // However much the system would let it hold unread.
    socket2::SockRef::from(&client).set_recv_buffer_size(64 << 10).expect("a socket option");
    write!(client, "GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    let (stop, stopped) = mpsc::channel::<()>();
    let reader = thread::spawn(move || {
        let mut piece = vec![0; 16 << 10];
        while stopped.recv_timeout(BETWEEN).is_err() && matches!(client.read(&mut piece), Ok(1..)) {}
    });
    assert!(told.recv_timeout(SOON * 3).expect("the server's connection ends"));
    let _ = stop.send(());
    reader.join().expect("no panic");
}
