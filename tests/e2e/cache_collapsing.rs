//! Requests for the same at the same time: the origin is asked once, and nobody is made to wait for what is not his.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use weir_tests::http::Answer;
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{Weir, connect};

const CACHE: &str = "cache: {enabled: true}";

/// A GET through weir, on a connection of its own.
fn get(weir: &Weir, origin: &Origin) -> Answer {
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address).expect("weir takes it");
    read_answer(&mut client, "GET").expect("an answer")
}

fn ok(fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn a_thousand_ask_at_once_and_the_origin_is_asked_once() {
    let weir = Weir::explicit("cache: {enabled: true}\nserver: {workers: 2}");
    let origin = Origin::start(|_| {
        std::thread::sleep(Duration::from_millis(700));
        ok("Cache-Control: max-age=60\r\n", &"x".repeat(50_000))
    });
    let clients: Vec<TcpStream> = (0..1000)
        .map(|_| {
            let mut client = connect(weir.proxy);
            write!(client, "GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address)
                .expect("weir takes it");
            client
        })
        .collect();
    for mut client in clients {
        let answer = read_answer(&mut client, "GET").expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (200, 50_000));
    }
    assert_eq!(origin.requests().len(), 1);
    assert!(weir.metric("cache_collapsed_total") > 900, "{}", weir.metric("cache_collapsed_total"));
}

/// Who comes in the moment in which an answer is stored finds it in store, or waits for it; he never asks again.
#[test]
fn who_comes_as_an_answer_is_stored_does_not_ask_again() {
    const PATHS: usize = 1000;
    let weir = Weir::explicit("cache: {enabled: true}\nserver: {workers: 2}");
    let origin = Origin::start(|_| ok("Cache-Control: max-age=60\r\n", "answer"));
    let together = Barrier::new(3);
    std::thread::scope(|scope| {
        for place in 0..3_u64 {
            let (weir, origin, together) = (&weir, &origin, &together);
            scope.spawn(move || {
                let mut client = connect(weir.proxy);
                for path in 0..PATHS {
                    together.wait();
                    // One of them comes at every moment of an exchange of about half a millisecond.
                    std::thread::sleep(Duration::from_micros(place * (path as u64 % 300)));
                    let request = format!("GET http://{}/{path} HTTP/1.1\r\nHost: x\r\n\r\n", origin.address);
                    client.write_all(request.as_bytes()).expect("weir takes it");
                    assert_eq!(read_answer(&mut client, "GET").expect("an answer").status, 200);
                }
            });
        }
    });
    assert_eq!(origin.requests().len(), PATHS);
}

/// Answers that are not for everybody can't be waited for: each client asks for itself, and none waits long.
#[test]
fn who_waits_for_an_answer_that_is_not_for_him_asks_himself() {
    let weir = Weir::explicit(CACHE);
    let origin = Origin::start(|_| {
        std::thread::sleep(Duration::from_millis(200));
        ok("Cache-Control: private\r\n", "mine")
    });
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(get(&weir, &origin).text(), "mine"));
        }
    });
    assert_eq!(origin.requests().len(), 20);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// A leader that goes away, or reads slowly, must not take the answer from those that wait for it.
#[test]
fn who_waits_depends_on_no_other_client() {
    let weir = Weir::explicit(CACHE);
    const LENGTH: usize = 4_000_000;
    for leaves in [true, false] {
        let go = Arc::new(Barrier::new(2));
        let waits = Arc::clone(&go);
        let origin = Origin::start(move |_| {
            waits.wait();
            let head =
                format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {LENGTH}\r\n\r\n");
            [head.into_bytes(), vec![b'x'; LENGTH]].concat()
        });
        let mut leader = Some(connect(weir.proxy));
        write!(
            leader.as_ref().expect("a socket"),
            "GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
            origin.address
        )
        .expect("weir takes it");
        let address = origin.address;
        let mut follower = connect(weir.proxy);
        // The leader's request is on its way before the follower's.
        std::thread::sleep(Duration::from_millis(200));
        write!(follower, "GET http://{address}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
        std::thread::sleep(Duration::from_millis(200));
        go.wait();
        let mut some = [0; 1000];
        leader.as_ref().expect("a socket").read_exact(&mut some).expect("the beginning");
        if leaves && let Some(leader) = leader.take() {
            weir_tests::weir::reset(leader);
        }
        let answer = read_answer(&mut follower, "GET").expect("the whole answer");
        assert_eq!((answer.status, answer.body.len(), origin.requests().len()), (200, LENGTH, 1), "{leaves}");
    }
}
