//! Too much of something: connections, of one client or of all; requests for one server; clients that take their time.
//! Those who are too many are told so, and the others notice nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use weir_tests::http::{self, Answer, Server};
use weir_tests::origin::{Origin, read_answer, read_request};
use weir_tests::weir::{SOON, Weir, connect, eventually, free_port, patient, reset};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn ask(stream: &mut TcpStream, server: SocketAddr) -> std::io::Result<Answer> {
    write!(stream, "GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n")?;
    read_answer(stream, "GET")
}

/// A request on a connection of its own, that ends with its answer or a reset.
fn ask_once(weir: &Weir, server: SocketAddr) -> std::io::Result<Answer> {
    let request = format!("GET http://{server}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    http::send(weir.proxy, request.as_bytes())
}

/// A connection from an address of its own.
fn connect_from(address: Ipv4Addr, weir: &Weir) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((address, 0)).into()).expect("an address of loopback");
    socket.connect(&weir.proxy.into()).expect("weir listens");
    patient(socket.into())
}

/// A server that answers each request when it is told to; and how many it has.
fn held_server() -> (Server, mpsc::Sender<()>, Arc<Mutex<usize>>) {
    let (go, gone) = mpsc::channel::<()>();
    let (gone, count) = (Arc::new(Mutex::new(gone)), Arc::new(Mutex::new(0)));
    let counted = Arc::clone(&count);
    let server = http::server("127.0.0.1", move |mut stream| {
        while let Ok(Some(_)) = read_request(&mut stream) {
            *counted.lock().expect("no panic") += 1;
            // The test may have ended.
            let told = gone.lock().expect("no panic").recv_timeout(SOON);
            if told.is_err() || stream.write_all(OK.as_bytes()).is_err() {
                return;
            }
        }
    });
    (server, go, count)
}

fn until_there_are(count: &Mutex<usize>, expected: usize) {
    eventually("requests at the server", || (*count.lock().expect("no panic") >= expected).then_some(()));
}

#[track_caller]
fn assert_overloaded(answer: &std::io::Result<Answer>, key: &str) {
    let answer = answer.as_ref().expect("an answer");
    assert_eq!(answer.status, 503, "{}", answer.head);
    assert!(answer.field("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()), "{}", answer.head);
    assert!(answer.text().contains(key), "{}", answer.text());
}

#[test]
fn a_client_has_no_more_than_its_share() {
    let weir = Weir::explicit("server: {limits: {connections_per_client: 3}}");
    let origin = Origin::fixed(OK);
    let mut own: Vec<_> = (0..3).map(|_| connect(weir.proxy)).collect();
    for stream in &mut own {
        assert_eq!(ask(stream, origin.address).expect("an answer").status, 200);
    }
    assert_overloaded(&ask_once(&weir, origin.address), "server.limits.connections_per_client");
    assert_eq!(weir.metric("refused_client_connections_total"), 1);
    assert_eq!(weir.metric("overload_answers_total"), 1);
    let mut other = connect_from(Ipv4Addr::new(127, 0, 0, 2), &weir);
    assert_eq!(ask(&mut other, origin.address).expect("an answer").status, 200, "others are not concerned");
    for stream in &mut own {
        assert_eq!(ask(stream, origin.address).expect("an answer").status, 200, "nor are those that it has");
    }
    own.pop();
    eventually("room for one more", || {
        ask_once(&weir, origin.address).is_ok_and(|answer| answer.status == 200).then_some(())
    });
}

#[test]
fn where_all_are_busy_one_more_is_told_to_come_back() {
    let weir = Weir::explicit("server: {workers: 1, limits: {connections: 3}}");
    let (server, go, count) = held_server();
    let mut busy: Vec<_> = (0..3).map(|_| connect(weir.proxy)).collect();
    for stream in &mut busy {
        write!(stream, "GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    }
    until_there_are(&count, 3);
    for _ in 0..3 {
        assert_overloaded(&ask_once(&weir, *server), "server.limits.connections");
    }
    // Who speaks something else can't be told.
    for first in [[5, 1, 0].as_slice(), &[0x16, 3, 1]] {
        let mut client = connect(weir.proxy);
        client.write_all(first).expect("the kernel takes it");
        let end = client.read(&mut [0]);
        assert!(matches!(&end, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{end:?}");
    }
    assert_eq!(weir.metric("refused_connections_total"), 5);
    assert_eq!(weir.metric("shed_connections_total"), 0);
    (0..3).for_each(|_| go.send(()).expect("the server waits"));
    for stream in &mut busy {
        assert_eq!(read_answer(stream, "GET").expect("an answer").text(), "ok");
    }
}

#[test]
fn who_is_idle_makes_room() {
    let weir = Weir::explicit("server: {workers: 1, limits: {connections: 4}}");
    let origin = Origin::fixed(OK);
    let mut open: Vec<_> = (0..4).map(|_| connect(weir.proxy)).collect();
    for stream in &mut open {
        assert_eq!(ask(stream, origin.address).expect("an answer").status, 200);
        // Whoever has waited for longest goes first, to a tenth of a second.
        thread::sleep(Duration::from_millis(250));
    }
    let mut fifth = connect(weir.proxy);
    assert_eq!(ask(&mut fifth, origin.address).expect("an answer").status, 200);
    assert_eq!(weir.metric("shed_connections_total"), 1);
    assert_eq!(open[0].read(&mut [0]).expect("an orderly end"), 0);
    for stream in open[1..].iter_mut().chain([&mut fifth]) {
        assert_eq!(ask(stream, origin.address).expect("an answer").status, 200, "the others stay");
    }
    assert_eq!(weir.metric("refused_connections_total"), 0);
}

/// Connections that are opened and never used are what an attacker has most of.
#[test]
fn a_flood_of_silent_connections_keeps_nobody_out() {
    let weir = Weir::explicit("server: {workers: 1, limits: {connections: 32}}");
    let origin = Origin::fixed(OK);
    let silent: Vec<_> = (0..32).map(|_| connect(weir.proxy)).collect();
    eventually("the silent ones", || (weir.status()["active_connections"] == 32).then_some(()));
    for _ in 0..20 {
        assert_eq!(ask_once(&weir, origin.address).expect("an answer").status, 200);
    }
    drop(silent);
}

#[test]
fn slow_heads_are_ended_and_disturb_nobody() {
    let weir = Weir::explicit("server: {timeouts: {request_head: 2s}}");
    let origin = Origin::fixed(OK);
    let slow: Vec<_> = (0..200)
        .map(|_| {
            let mut client = connect(weir.proxy);
            client.write_all(b"GET http://x/ HTTP/1.1\r\nHost: ").expect("weir takes it");
            client
        })
        .collect();
    for _ in 0..50 {
        assert_eq!(ask_once(&weir, origin.address).expect("an answer").status, 200);
    }
    for mut client in slow {
        assert_eq!(read_answer(&mut client, "GET").expect("an answer").status, 408);
    }
    eventually("their end", || (weir.status()["active_connections"] == 0).then_some(()));
}

#[test]
fn slow_bodies_are_ended_and_so_are_their_requests() {
    let weir = Weir::explicit("server: {timeouts: {read: 3s}}");
    let origin = Origin::fixed(OK);
    let (tell, told) = mpsc::channel();
    let stuck = http::server("127.0.0.1", move |mut stream| {
        http::read_head(&mut stream);
        let _ = tell.send(std::io::copy(&mut stream, &mut std::io::sink()));
    });
    let slow: Vec<_> = (0..50)
        .map(|_| {
            let mut client = connect(weir.proxy);
            write!(client, "POST http://{stuck}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
                .expect("weir takes it");
            client
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(ask_once(&weir, origin.address).expect("an answer").status, 200);
    }
    for mut client in slow {
        let answer = read_answer(&mut client, "POST").expect("an answer");
        // The server was silent for as long as its client was.
        assert!(matches!(answer.status, 408 | 504), "{}", answer.head);
    }
    for _ in 0..50 {
        let ended = told.recv_timeout(SOON).expect("its connection ends");
        // Not in order: it must not take that for a whole request.
        assert!(ended.is_err(), "{ended:?}");
    }
}

#[test]
fn slow_readers_are_cut_off_and_disturb_nobody() {
    const SIZE: usize = 64 << 20;
    let weir = Weir::explicit("server: {timeouts: {write: 1s}}");
    let origin = Origin::fixed(OK);
    let large = http::server("127.0.0.1", move |mut stream| {
        http::read_head(&mut stream);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        let part = vec![b'x'; 1 << 20];
        let _ = (0..SIZE / part.len()).try_for_each(|_| stream.write_all(&part));
    });
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let mut client = connect(weir.proxy);
            write!(client, "GET http://{large}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
            client
        })
        .collect();
    for _ in 0..50 {
        assert_eq!(ask_once(&weir, origin.address).expect("an answer").status, 200);
    }
    eventually("their end", || (weir.status()["active_connections"] == 0).then_some(()));
    for mut client in slow {
        let end = std::io::copy(&mut client, &mut std::io::sink());
        assert!(end.is_err(), "a cut that looks like an end: {end:?}");
    }
}

#[test]
fn requests_for_one_server_wait_for_their_turn() {
    let weir = Weir::explicit("upstream: {max_per_origin: 1, queue: 1, queue_timeout: 1min}");
    let (server, go, count) = held_server();
    let origin = Origin::fixed(OK);
    let mut first = connect(weir.proxy);
    write!(first, "GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    until_there_are(&count, 1);
    let mut second = connect(weir.proxy);
    write!(second, "GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    eventually("one that waits", || (weir.metric("queued_requests_total") == 1).then_some(()));
    assert_overloaded(&ask_once(&weir, *server), "upstream.queue");
    assert_eq!(
        ask_once(&weir, origin.address).expect("an answer").status,
        200,
        "other servers are not concerned"
    );
    assert_eq!(*count.lock().expect("no panic"), 1, "nothing more at one time");
    go.send(()).expect("the server waits");
    assert_eq!(read_answer(&mut first, "GET").expect("an answer").text(), "ok");
    until_there_are(&count, 2);
    // Its client goes away, and its turn with it.
    reset(second);
    eventually("the next one's turn", || {
        // The server may still be about to answer who has gone.
        (0..4).for_each(|_| go.send(()).expect("the server waits"));
        ask_once(&weir, *server).is_ok_and(|answer| answer.status == 200).then_some(())
    });
    assert_eq!(weir.metric("queue_refusals_total"), 1);
}

#[test]
fn nobody_waits_for_ever() {
    let weir = Weir::explicit("upstream: {max_per_origin: 1, queue_timeout: 200ms}");
    let (server, go, count) = held_server();
    let mut first = connect(weir.proxy);
    write!(first, "GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    until_there_are(&count, 1);
    assert_overloaded(&ask_once(&weir, *server), "upstream.queue_timeout");
    go.send(()).expect("the server waits");
    assert_eq!(read_answer(&mut first, "GET").expect("an answer").text(), "ok");
}

#[test]
fn a_server_that_is_just_starting_is_tried_again() {
    let weir = Weir::explicit("upstream: {retries: 10, backoff: 20ms}");
    for method in ["GET", "POST"] {
        let port = free_port();
        let before = weir.metric("upstream_retries_total");
        let mut client = connect(weir.proxy);
        write!(
            client,
            "{method} http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
        )
        .expect("weir takes it");
        eventually("a second try", || (weir.metric("upstream_retries_total") > before).then_some(()));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
        let (mut stream, _) = listener.accept().expect("weir connects");
        let request = read_request(&mut stream).expect("a request").expect("a request");
        assert_eq!((request.method(), request.body.as_slice()), (method, b"hello".as_slice()));
        stream.write_all(OK.as_bytes()).expect("weir takes it");
        assert_eq!(read_answer(&mut client, method).expect("an answer").text(), "ok");
    }
    let weir = Weir::explicit("upstream: {retries: 0}");
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    assert_eq!(ask_once(&weir, nobody).expect("an answer").status, 502);
    assert_eq!(weir.metric("upstream_retries_total"), 0);
    assert_eq!(weir.metric("upstream_failures_total"), 1);
}

/// However many workers share the clients out among them, a connection is opened only where none is free: no more than
/// there are clients, which is less than one for a hundred requests here.
#[test]
fn connections_to_servers_are_used_again() {
    const CLIENTS: u64 = 16;
    const REQUESTS: u64 = 200;
    let weir = Weir::explicit("server: {workers: 4}\nlogging: {access: false}");
    let origin = Origin::fixed(OK);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (weir, origin) = (&weir, &origin);
            scope.spawn(move || {
                let mut stream = connect(weir.proxy);
                for number in 0..REQUESTS {
                    // Some of them connect anew, to any worker.
                    if client % 4 == 0 && number % 20 == 19 {
                        stream = connect(weir.proxy);
                    }
                    assert_eq!(ask(&mut stream, origin.address).expect("an answer").text(), "ok");
                }
            });
        }
    });
    let (requests, opened) = (weir.metric("upstream_requests_total"), weir.metric("upstream_connects_total"));
    assert_eq!(requests, CLIENTS * REQUESTS);
    assert_eq!(opened, requests - weir.metric("upstream_reuses_total"));
    assert!(opened * 100 <= requests, "{opened} connections for {requests} requests");
    assert_eq!(opened, origin.connections() as u64);
}
