//! No client can put an answer into the cache that others would not have got from the origin.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use weir_tests::http::Answer;
use weir_tests::origin::{Origin, Request, read_answer};
use weir_tests::weir::{Weir, connect};

const CACHE: &str = "cache: {enabled: true}";

fn send(weir: &Weir, method: &str, target: &str, fields: &str) -> Answer {
    let mut client = connect(weir.proxy);
    write!(client, "{method} {target} HTTP/1.1\r\n{fields}\r\n").expect("weir takes it");
    read_answer(&mut client, method).expect("an answer")
}

fn get(weir: &Weir, origin: &Origin, path: &str, fields: &str) -> Answer {
    send(weir, "GET", &format!("http://{}{path}", origin.address), &format!("Host: x\r\n{fields}"))
}

fn ok(fields: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// An origin that answers with what it was sent in a field: whoever can choose that, and get it stored, has won.
fn reflecting(field: &'static str, fields: &'static str) -> Origin {
    Origin::start(move |request: &Request| ok(fields, request.field(field).unwrap_or("nothing")))
}

#[test]
fn by_host() {
    let weir = Weir::explicit(CACHE);
    let origin = reflecting("host", "");
    let expected = origin.address.to_string();
    for host in ["evil.example", "x", ""] {
        let answer = send(&weir, "GET", &format!("http://{}/", origin.address), &format!("Host: {host}\r\n"));
        assert_eq!(answer.text(), expected, "Host: {host}");
    }
    assert_eq!(origin.requests().len(), 1);
}

/// What an origin may tell apart is told apart.
#[test]
fn by_path() {
    let weir = Weir::explicit(CACHE);
    let origin = Origin::start(|request: &Request| {
        let target = request.head.split(' ').nth(1).unwrap_or_default();
        ok("", target)
    });
    let paths = [
        "/a",
        "/%61",
        "//a",
        "/./a",
        "/b/../a",
        "/a/",
        "/a?",
        "/a;x",
        "/A",
        "/a%3Fq",
        "/a%00",
        "/a?x=1&y=2",
        "/a?y=2&x=1",
    ];
    for round in 0..2 {
        for path in paths {
            assert_eq!(get(&weir, &origin, path, "").text(), path, "round {round}");
        }
    }
    assert_eq!(origin.requests().len(), paths.len());
}

/// Fields that origins act on and do not name in Vary.
#[test]
fn by_fields_that_are_no_part_of_the_key() {
    let weir = Weir::explicit(CACHE);
    for field in [
        "x-forwarded-host",
        "x-forwarded-scheme",
        "forwarded",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "x-host",
    ] {
        let origin = reflecting(field, "");
        assert_eq!(get(&weir, &origin, "/", &format!("{field}: evil\r\n")).text(), "evil");
        assert_eq!(get(&weir, &origin, "/", "").text(), "nothing", "{field}");
        // What is stored now is for those who don't send it, and may be given to those who do.
        assert_eq!(get(&weir, &origin, "/", "").text(), "nothing");
    }
}

#[test]
fn by_what_vary_names() {
    let weir = Weir::explicit(CACHE);
    let origin = reflecting("x-who", "Vary: X-Who\r\n");
    for who in ["evil", "mallory", "evil, mallory"] {
        get(&weir, &origin, "/", &format!("X-Who: {who}\r\n"));
    }
    assert_eq!(get(&weir, &origin, "/", "").text(), "nothing");
    assert_eq!(get(&weir, &origin, "/", "X-Who: alice\r\n").text(), "alice");
    // Who can tell what that names?
    for vary in ["Vary: *\r\n", "Vary: X-Who Accept\r\n", "Vary: \"X-Who\"\r\n", "Vary: X-Who;\r\n"] {
        let unclear = reflecting("x-who", vary);
        get(&weir, &unclear, "/", "X-Who: evil\r\n");
        assert_eq!(get(&weir, &unclear, "/", "").text(), "nothing", "{vary}");
    }
}

/// A client that varies a field at will fills no more than its share.
#[test]
fn variants_are_bounded() {
    let weir = Weir::explicit(CACHE);
    let origin = reflecting("x-who", "Vary: X-Who\r\n");
    for number in 0..100 {
        get(&weir, &origin, "/", &format!("X-Who: {number}\r\n"));
    }
    let answered = (0..100).filter(|number| {
        get(&weir, &origin, "/", &format!("X-Who: {number}\r\nCache-Control: only-if-cached\r\n")).status
            == 200
    });
    assert!(answered.count() <= 16);
}

#[test]
fn by_ranges() {
    let weir = Weir::explicit(CACHE);
    let origin = Origin::start(|request: &Request| {
        match request.field("range") {
        Some(_) => b"HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nContent-Range: bytes 0-1/8\r\nContent-Length: 2\r\n\r\nco".to_vec(),
        None => ok("", "complete"),
    }
    });
    assert_eq!(get(&weir, &origin, "/", "Range: bytes=0-1\r\n").text(), "co");
    let whole = get(&weir, &origin, "/", "");
    assert_eq!((whole.status, whole.text().as_str()), (200, "complete"));
    let unsatisfiable = get(&weir, &origin, "/", "Range: bytes=9-\r\n");
    assert_eq!((unsatisfiable.status, unsatisfiable.field("content-range")), (416, Some("bytes */8")));
    assert!(unsatisfiable.head.contains(" 416 Range Not Satisfiable\r\n"), "{}", unsatisfiable.head);
    assert_eq!(get(&weir, &origin, "/", "").text(), "complete");
}

/// An error that a client has asked for, by a condition or a range, is for that client.
#[test]
fn by_preconditions() {
    let weir = Weir::explicit(CACHE);
    let origin =
        Origin::start(|request: &Request| match request.field("if-match").or(request.field("range")) {
            Some(_) => {
                b"HTTP/1.1 404 Not Found\r\nCache-Control: max-age=60\r\nContent-Length: 0\r\n\r\n".to_vec()
            }
            None => ok("", "good"),
        });
    for field in ["If-Match: \"x\"\r\n", "Range: bytes=5-6\r\n"] {
        assert_eq!(get(&weir, &origin, "/", field).status, 404);
        assert_eq!(get(&weir, &origin, "/", "").text(), "good", "{field}");
        send(&weir, "DELETE", &format!("http://{}/", origin.address), "Host: x\r\n");
    }
}

#[test]
fn by_head_and_by_bodies() {
    let weir = Weir::explicit(CACHE);
    let count = Arc::new(AtomicUsize::new(0));
    let state = Arc::clone(&count);
    let origin = Origin::start(move |request: &Request| match request.method() {
        "HEAD" => {
            state.fetch_add(1, Ordering::SeqCst);
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\n".to_vec()
        }
        _ if !request.body.is_empty() => ok("", "from a body"),
        _ => ok("", "good!"),
    });
    send(&weir, "HEAD", &format!("http://{}/", origin.address), "Host: x\r\n");
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(get(&weir, &origin, "/", "").text(), "good!");
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{}/fat HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nevil", origin.address)
        .expect("weir takes it");
    assert_eq!(read_answer(&mut client, "GET").expect("an answer").text(), "from a body");
    assert_eq!(get(&weir, &origin, "/fat", "").text(), "good!");
}

/// A response behind a response is nobody's answer.
#[test]
fn by_splitting() {
    let weir = Weir::explicit("cache: {enabled: true}\nserver: {workers: 1}");
    let origin = Origin::start(|request: &Request| {
        let evil = String::from_utf8(ok("", "evil")).expect("text");
        if request.head.contains("/split") {
            [ok("", "ok"), evil.into_bytes()].concat()
        } else {
            ok("", "good")
        }
    });
    assert_eq!(get(&weir, &origin, "/split", "").text(), "ok");
    for _ in 0..2 {
        assert_eq!(get(&weir, &origin, "/other", "").text(), "good");
        assert_eq!(get(&weir, &origin, "/split", "").text(), "ok");
    }
}

#[test]
fn by_answers_to_credentials() {
    let weir = Weir::explicit(CACHE);
    for (fields, shared) in [
        ("", false),
        ("Set-Cookie: id=alice\r\nCache-Control: private\r\n", false),
        ("Cache-Control: public\r\n", true),
    ] {
        let origin = reflecting("authorization", fields);
        assert_eq!(get(&weir, &origin, "/", "Authorization: Basic alice\r\n").text(), "Basic alice");
        let other = get(&weir, &origin, "/", "").text();
        assert_eq!(other == "Basic alice", shared, "{fields}");
    }
}

/// RFC 9111 §4.4: a server may name its own URLs as changed, and nobody else's.
#[test]
fn nobody_removes_the_entries_of_others() {
    let weir = Weir::explicit(CACHE);
    let victim = reflecting("x-who", "");
    get(&weir, &victim, "/", "");
    let url = format!("http://{}/", victim.address);
    let attacker =
        Origin::start(move |_| ok(&format!("Location: {url}\r\nContent-Location: {url}\r\n"), "changed"));
    send(&weir, "POST", &format!("http://{}/", attacker.address), "Host: x\r\nContent-Length: 0\r\n");
    get(&weir, &victim, "/", "");
    assert_eq!(victim.requests().len(), 1);
}
