//! What is not an acceptable request gets a clear answer or none, reaches no server, and disturbs nobody.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use weir_tests::http;
use weir_tests::origin::{Origin, chunk};
use weir_tests::pattern::Pattern;
use weir_tests::weir::{Weir, connect, eventually};

/// What a client gets back.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The status, and whether the explanation contains the words that were expected.
    Answer(u16),
    /// The connection ended without an answer.
    Closed,
}

use Outcome::{Answer, Closed};

/// Sends bytes and then nothing more; what comes back until the connection ends, by FIN or RST.
fn outcome(proxy: SocketAddr, bytes: &[u8]) -> (Outcome, String) {
    let mut stream = connect(proxy);
    // weir may refuse, and close, before it has read everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    read_outcome(&mut stream)
}

fn read_outcome(stream: &mut TcpStream) -> (Outcome, String) {
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset), "nothing should hang: {error}");
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    match text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()) {
        Some(status) => (Answer(status), text),
        None => {
            assert!(text.is_empty(), "neither an answer nor silence: {text}");
            (Closed, text)
        }
    }
}

/// A weir, and a server that should see none of the bad requests.
struct Scene {
    weir: Weir,
    origin: Origin,
}

impl Scene {
    fn with(overlay: &str) -> Self {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Self { weir: Weir::explicit(overlay), origin }
    }

    #[track_caller]
    fn check(&self, what: &str, bytes: &[u8], expected: &Outcome) {
        let before = self.origin.requests().len();
        let (outcome, text) = outcome(self.weir.proxy, bytes);
        assert_eq!(outcome, *expected, "{what}: {text}");
        if let Answer(_) = outcome {
            assert!(text.contains("\r\nConnection: close\r\n"), "{what}: {text}");
            assert!(text.contains("\r\n\r\nweir: "), "{what}: an explanation is missing: {text}");
        }
        assert_eq!(self.origin.requests().len(), before, "{what}: something reached the server");
        self.check_good(what);
    }

    /// A head whose request line goes to the server, and what follows.
    #[track_caller]
    fn check_fields(&self, what: &str, rest: &str, expected: &Outcome) {
        let request = format!("POST http://{}/ HTTP/1.1\r\n{rest}", self.origin.address);
        self.check(what, request.as_bytes(), expected);
    }

    #[track_caller]
    fn check_good(&self, after: &str) {
        let head = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let request = format!("GET http://{}/ {head}", self.origin.address);
        let answer = http::send(self.weir.proxy, request.as_bytes()).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "after {after}");
    }

    fn finish(&self) {
        assert!(!self.weir.log().contains("panicked"), "{}", self.weir.log());
        eventually("all connections ended", || (self.weir.status()["active_connections"] == 0).then_some(()));
    }
}

#[test]
fn what_is_not_http() {
    let scene = Scene::with("");
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    scene.check("half a ClientHello", hello, &Answer(400));
    scene.check("garbage", b"\x00\x01\x02\xff\xfe garbage\r\n\r\n", &Answer(400));
    scene.check("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", &Answer(400));
    scene.check("SOCKS4", b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", &Answer(400));
    scene.check("an empty connection", b"", &Closed);
    scene.check("empty lines", b"\r\n\r\n\r\n", &Closed);
    scene.check("the beginning of a head", b"GET http://x/ HTT", &Closed);
    scene.check("a head without its end", b"GET http://x/ HTTP/1.1\r\nHost: x\r\n", &Closed);
    scene.check("HTTP/0.9", b"GET /\r\n\r\n", &Answer(400));
    scene.check("HTTP/3.0", b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", &Answer(505));
    scene.check("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", &Answer(505));
    scene.check("a response", b"HTTP/1.1 200 OK\r\n\r\n", &Answer(400));
    scene.finish();
}

#[test]
fn heads_beyond_the_limits() {
    let scene = Scene::with("");
    let url = "a".repeat(9000);
    let large = |length| format!("Host: x\r\nX-Large: {}", "a".repeat(length));
    scene.check("a long URL", format!("GET http://x/{url} HTTP/1.1\r\n\r\n").as_bytes(), &Answer(414));
    scene.check("the beginning of a long URL", format!("GET http://x/{url}").as_bytes(), &Answer(414));
    scene.check_fields("a large head", &format!("{}\r\n\r\n", large(20_000)), &Answer(431));
    scene.check_fields("the beginning of a large head", &large(20_000), &Answer(431));
    scene.check_fields("a huge head", &format!("{}\r\n\r\n", large(5_000_000)), &Answer(431));
    let many: String = (0..101).map(|number| format!("X-{number}: 1\r\n")).collect();
    scene.check_fields("many fields", &format!("{many}\r\n"), &Answer(431));
    let long_method = "M".repeat(30_000);
    scene.check("a long method", format!("{long_method} / HTTP/1.1\r\n\r\n").as_bytes(), &Answer(414));
    scene.finish();
}

#[test]
fn heads_that_can_be_read_in_two_ways() {
    let scene = Scene::with("");
    for (what, rest) in [
        ("a NUL byte in a value", "Host: x\r\nX: a\0b\r\n\r\n"),
        ("a NUL byte in a name", "Host: x\r\nX\0Y: a\r\n\r\n"),
        ("a bare LF", "Host: x\nX: a\r\n\r\n"),
        ("bare LFs at the end", "Host: x\r\nX: a\n\n"),
        ("a bare CR", "Host: x\r\nX: a\rY: b\r\n\r\n"),
        ("a folded line", "Host: x\r\nX: a\r\n b\r\n\r\n"),
        ("a first field that is folded", " X: a\r\nHost: x\r\n\r\n"),
        ("a space before the colon", "Host: x\r\nX : a\r\n\r\n"),
        ("a field without colon", "Host: x\r\nX\r\n\r\n"),
        ("a field without name", "Host: x\r\n: a\r\n\r\n"),
        ("a control character", "Host: x\r\nX: a\x01b\r\n\r\n"),
        ("no Host", "X: a\r\n\r\n"),
        ("two Hosts", "Host: x\r\nHost: x\r\n\r\n"),
        ("a list in Content-Length", "Host: x\r\nContent-Length: 1, 1\r\n\r\nx"),
        ("two Content-Lengths", "Host: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
        ("a sign in Content-Length", "Host: x\r\nContent-Length: +1\r\n\r\nx"),
        ("a negative Content-Length", "Host: x\r\nContent-Length: -1\r\n\r\nx"),
        ("a hexadecimal Content-Length", "Host: x\r\nContent-Length: 0x1\r\n\r\nx"),
        ("an empty Content-Length", "Host: x\r\nContent-Length:\r\n\r\nx"),
        ("a Content-Length in words", "Host: x\r\nContent-Length: one\r\n\r\nx"),
        ("a Content-Length beyond 64 bits", "Host: x\r\nContent-Length: 18446744073709551616\r\n\r\nx"),
        ("CL.TE", "Host: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("TE.CL", "Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"),
        ("TE.TE", "Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n"),
        ("an unknown coding", "Host: x\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n"),
        ("a coding before chunked", "Host: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("almost chunked", "Host: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("quoted chunked", "Host: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
        ("chunked behind a vertical tab", "Host: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ] {
        scene.check_fields(what, rest, &Answer(400));
    }
    let old = format!("POST http://{}/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", scene.origin.address);
    scene.check("chunked in HTTP/1.0", old.as_bytes(), &Answer(400));
    scene.check_fields(
        "a huge Content-Length",
        "Host: x\r\nContent-Length: 9223372036854775807\r\n\r\nx",
        &Answer(413),
    );
    scene.finish();
}

#[test]
fn chunked_bodies_that_are_none() {
    let scene = Scene::with("");
    for body in [
        "x\r\n",
        "\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        " 1\r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\r\nxx\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\rx\r\n0\r\n\r\n",
        "ffffffffffffffff1\r\nx\r\n0\r\n\r\n",
        "1;a\nb\r\nx\r\n0\r\n\r\n",
        "1;a\0b\r\nx\r\n0\r\n\r\n",
        "1\r\nx\r\n0\r\nX: y\n\r\n",
        "1\r\nx\r\n0\r\n\rX",
        "1_0\r\nx\r\n0\r\n\r\n",
    ] {
        let rest = format!("Host: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        scene.check_fields(&format!("the body {body:?}"), &rest, &Answer(400));
    }
    let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(100_000));
    let trailer = format!("0\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    for (what, body) in [("a huge extension", extension), ("a huge trailer", trailer)] {
        let rest = format!("Host: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        scene.check_fields(what, &rest, &Answer(400));
    }
    // Cut off by the client: nobody is there to be told.
    let data = String::from_utf8_lossy(&chunk(b"hello")).into_owned();
    let rest = format!("Host: x\r\nTransfer-Encoding: chunked\r\n\r\n{data}");
    scene.check_fields("a body without end", &rest, &Closed);
    scene.check_fields("a short body", "Host: x\r\nContent-Length: 10\r\n\r\nhello", &Closed);
    scene.finish();
}

#[test]
fn targets_that_are_none() {
    let scene = Scene::with("");
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    for target in [
        "x",
        "http:/x/",
        "http://",
        "http:///p",
        "http://:80/",
        "http://x:0/",
        "http://x:65536/",
        "http://x:+80/",
        "http://x:80:80/",
        "http://x:y/",
        "http://[::1/",
        "http://[::1]x/",
        "http://[127.0.0.1]/",
        "http://[fe80::1%25lo]/",
        "http://user@x/",
        "http://user:secret@x/",
        "http://a..b/",
        "http://.a/",
        "http://a_b%00/",
        "http://a%2fb/",
        "http://x\\@y/",
        "://x/",
        "1http",
    ] {
        scene.check(target, &get(target), &Answer(400));
    }
    scene.check("ftp", &get("ftp://x/"), &Answer(501));
    for target in [
        "x",
        "x:",
        "x:0",
        "x:65536",
        ":443",
        "http://x:443",
        "x:443/",
        "user@x:443",
        "[::1]",
        "[::1",
        "::1:443",
        "[x]:443",
        "x:443:443",
        "/",
        "*",
        "x\ty:443",
    ] {
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        scene.check(&format!("CONNECT {target}"), request.as_bytes(), &Answer(400));
    }
    scene.finish();
}

#[test]
fn a_request_for_weir_itself_is_explained() {
    let weir = Weir::explicit("");
    for request in ["GET /page HTTP/1.1\r\nHost: x\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n"] {
        let request = format!("{request}Connection: close\r\n\r\n");
        let answer = http::send(weir.proxy, request.as_bytes()).expect("an answer");
        assert_eq!(answer.status, 404, "{}", answer.text());
        assert!(
            answer.text().contains("this is a proxy") && answer.text().contains("curl -x"),
            "{}",
            answer.text()
        );
    }
}

#[test]
fn a_slow_head_runs_out_of_time() {
    let weir = Weir::explicit("server: {timeouts: {request_head: 1s}}");
    let mut stream = connect(weir.proxy);
    let mut writer = stream.try_clone().expect("a descriptor");
    let dripping = std::thread::spawn(move || {
        // One byte now and then: each of them is activity, all of them together are too slow.
        for byte in b"GET http://example.com/".iter().cycle() {
            std::thread::sleep(std::time::Duration::from_millis(50));
            if writer.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    let (outcome, text) = read_outcome(&mut stream);
    assert_eq!(outcome, Answer(408), "{text}");
    dripping.join().expect("the connection was closed");
}

/// A request with a few bytes changed, anywhere but in the authority: it must go to this server or nowhere.
fn mutated(random: &mut Pattern, origin: SocketAddr) -> Vec<u8> {
    let requests = [
        ("GET http:/", "a?b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n"),
        ("POST http:/", "HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
        ("PUT http:/", " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("GET http:/", " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
        ("CONNECT", "HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ];
    let (start, rest) = requests[below(random, requests.len())];
    let authority = if start == "CONNECT" { format!(" {origin} ") } else { format!("/{origin}/") };
    let (mut start, mut rest) = (start.as_bytes().to_vec(), rest.as_bytes().to_vec());
    for _ in 0..random.number(6) {
        let part = if random.number(4) == 0 { &mut start } else { &mut rest };
        mutate(random, part);
    }
    if random.number(20) == 0 {
        random.fill(&mut start);
    }
    [start, authority.into_bytes(), rest].concat()
}

fn mutate(random: &mut Pattern, bytes: &mut Vec<u8>) {
    let at = below(random, bytes.len());
    let noise = u8::try_from(random.number(256)).expect("a byte");
    match random.number(6) {
        0 => bytes[at] = noise,
        1 => bytes.insert(at, noise),
        2 if bytes.len() > 1 => drop(bytes.remove(at)),
        3 => bytes.truncate(at + 1),
        4 => bytes[at] ^= 1 << (noise & 7),
        _ => {
            let copy = bytes[at..(at + 20).min(bytes.len())].to_vec();
            bytes.splice(at..at, copy);
        }
    }
}

fn below(random: &mut Pattern, bound: usize) -> usize {
    usize::try_from(random.number(bound as u64)).expect("a small number")
}

#[test]
fn random_requests_do_no_harm() {
    const REQUESTS: u64 = 2000;
    // What is kept for the next request goes soon, so that only leaks are left.
    let scene = Scene::with("upstream: {idle_timeout: 1s}");
    scene.check_good("the start");
    let (files, server) = (scene.weir.open_files(), scene.origin.address.to_string());
    for seed in 0..REQUESTS {
        let bytes = mutated(&mut Pattern::new(seed), scene.origin.address);
        let mut stream = connect(scene.weir.proxy);
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => {
                panic!("seed {seed}: {error} after {}", String::from_utf8_lossy(&bytes))
            }
            _ => {}
        }
    }
    scene.check_good("random requests");
    scene.finish();
    let ready = http::get(scene.weir.admin, "/health/readiness").expect("the admin API answers");
    assert_eq!(ready.status, 200);
    let flows = scene.weir.flows(1000);
    let elsewhere: Vec<_> =
        flows.iter().filter(|flow| flow["upstream"].as_str().is_some_and(|to| to != server)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    eventually("no more open files than before", || (scene.weir.open_files() <= files + 8).then_some(()));
}
