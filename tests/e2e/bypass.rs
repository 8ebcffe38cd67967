//! Attempts to get past the policy, each with its name: none may pass.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use weir_tests::http2;
use weir_tests::origin::Origin;
use weir_tests::weir::{Weir, connect};

/// Ways to ask for something at `HOST`, which stands for a host and perhaps a port.
const FORMS: [(&str, &str); 9] = [
    ("CONNECT", "CONNECT HOST:443 HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("GET", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("GET with another Host", "GET http://HOST/ HTTP/1.1\r\nHost: good.test\r\n\r\n"),
    ("GET https", "GET HTTPS://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("POST", "POST http://HOST/ HTTP/1.1\r\nHost: good.test\r\nContent-Length: 0\r\n\r\n"),
    ("HTTP/1.0", "GET http://HOST/ HTTP/1.0\r\n\r\n"),
    ("OPTIONS", "OPTIONS http://HOST HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    (
        "WebSocket",
        "GET ws://HOST/ HTTP/1.1\r\nHost: HOST\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    ),
    ("the gateway", "GET / HTTP/1.1\r\nHost: HOST\r\n\r\n"),
];

/// Spellings of `blocked.test` and of names below it, and what might be taken for them.
const NAMES: [&str; 24] = [
    "blocked.test",
    "BLOCKED.TEST",
    "Blocked.tesT",
    "blocked.test.",
    "BLOCKED.test.",
    "a.blocked.test",
    "a.b.c.Blocked.Test.",
    "_x.blocked.test",
    "%62locked.test",
    "blocked%2etest",
    "blocked.test%2e",
    "blocked.test%00.good.test",
    "good.test@blocked.test",
    "good.test%40blocked.test",
    "blocked.test%23.good.test",
    "blocked.test\\.good.test",
    "blocked\u{3002}test",
    "\u{ff42}locked.test",
    "blocked\u{ad}.test",
    "blocked..test",
    "[blocked.test]",
    "blocked.test;good.test",
    "blocked.test,good.test",
    "blocked.test\t",
];

/// The status of the first answer; 0 if there is none.
fn status(weir: &Weir, request: &[u8]) -> u16 {
    let mut stream = connect(weir.proxy);
    // weir may have answered and gone before it has all.
    let _ = stream.write_all(request);
    let mut line = [0; 12];
    let mut have = 0;
    while have < line.len() {
        match stream.read(&mut line[have..]) {
            Ok(0) | Err(_) => return 0,
            Ok(read) => have += read,
        }
    }
    std::str::from_utf8(&line[9..]).ok().and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// What weir answers where it has not so much as tried: anything else has passed the policy.
const REFUSED: [u16; 5] = [0, 400, 403, 404, 501];

#[test]
fn no_spelling_of_a_blocked_name_passes() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let weir = Weir::explicit(&format!(
        "security: {{filtering: {{domains: {{blocked: ['||blocked.test^']}}}}}}\n\
         routing: {{default_backend: 'http://{}'}}\n",
        origin.address
    ));
    let mut passed = Vec::new();
    let mut attempts = 0;
    for (form, request) in FORMS {
        for name in NAMES {
            attempts += 1;
            let answer = status(&weir, request.replace("HOST", name).as_bytes());
            if !REFUSED.contains(&answer) {
                passed.push(format!("{form} to {name:?}: {answer}"));
            }
        }
    }
    // SOCKS5, by name.
    for name in NAMES {
        attempts += 1;
        let length = u8::try_from(name.len()).expect("a short name");
        let mut stream = connect(weir.proxy);
        let hello = [&[5, 1, 0, 5, 1, 0, 3, length][..], name.as_bytes(), &[0, 80]].concat();
        stream.write_all(&hello).expect("weir takes it");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // Refused by policy, or no name at all.
        if !matches!(answer.get(3), Some(1 | 2) | None) {
            passed.push(format!("SOCKS5 to {name:?}: {answer:?}"));
        }
    }
    assert!(passed.is_empty(), "{} of {attempts} attempts have passed:\n{}", passed.len(), passed.join("\n"));
    assert_eq!((attempts, origin.connections()), (240, 0));
    // The measure itself: what is not blocked is tried.
    assert_eq!(status(&weir, b"GET http://good.test/ HTTP/1.1\r\nHost: blocked.test\r\n\r\n"), 502);
    assert_eq!(status(&weir, b"GET / HTTP/1.1\r\nHost: good.test\r\n\r\n"), 200);
}

/// Spellings of addresses at which nobody from outside may ask for anything.
const ADDRESSES: [&str; 40] = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7F.0.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "0177.0.0.01",
    "127.0.0.0x1",
    "0",
    "0.0.0.0",
    "0x0",
    "00",
    "0.0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[::ffff:0:127.0.0.1]",
    "[::1%25lo]",
    "[fe80::1]",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "[::ffff:169.254.169.254]",
    "[fd00:ec2::254]",
    "168.63.129.16",
];

#[test]
fn no_spelling_of_a_denied_address_passes() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let port = origin.address.port();
    let weir = Weir::explicit("security: {acl: {destinations: {loopback: deny}}}\n");
    let mut passed = Vec::new();
    for (form, request) in FORMS.iter().filter(|(form, _)| *form != "the gateway") {
        for address in ADDRESSES {
            let request = request.replace("HOST:443", "HOST").replace("HOST", &format!("{address}:{port}"));
            let answer = status(&weir, request.as_bytes());
            // 502: the system's resolver knows no such name.
            let unknown = answer == 502 && address.to_lowercase().contains("localhost");
            if !REFUSED.contains(&answer) && !unknown {
                passed.push(format!("{form} to {address}: {answer}"));
            }
        }
    }
    for address in [[127, 0, 0, 1], [0, 0, 0, 0], [169, 254, 169, 254]] {
        let mut stream = connect(weir.proxy);
        let hello = [&[5, 1, 0, 5, 1, 0, 1][..], &address, &port.to_be_bytes()].concat();
        stream.write_all(&hello).expect("weir takes it");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        if answer.get(3) != Some(&2) {
            passed.push(format!("SOCKS5 to {address:?}: {answer:?}"));
        }
    }
    assert!(passed.is_empty(), "{} attempts have passed:\n{}", passed.len(), passed.join("\n"));
    assert_eq!(origin.connections(), 0);
}

/// Spellings of paths below `/secret/`.
const PATHS: [&str; 22] = [
    "/secret/x",
    "/SECRET/x",
    "//secret//x",
    "/./secret/x",
    "/a/../secret/x",
    "/a/%2e%2e/secret/x",
    "/a/.%2E/secret/x",
    "/%73ecret/x",
    "/%73%65%63%72%65%74/x",
    "/secret%2fx",
    "/secret%2Fx",
    "/secret\\x",
    "/secret%5cx",
    "/secret/./x",
    "/secret/../secret/x",
    "/secret//",
    "/secret/?x",
    "/secret/#x",
    "/secret/;x",
    "/a;/secret/x",
    "/../secret/x",
    "/secret/x%00",
];

#[test]
fn no_spelling_of_a_blocked_path_passes() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let server = origin.address;
    let weir = Weir::explicit(&format!(
        "security: {{filtering: {{domains: {{blocked: ['/secret/*']}}}}}}\n\
         routing: {{default_backend: 'http://{server}'}}\n"
    ));
    let mut passed = Vec::new();
    for path in PATHS {
        for (form, request) in [
            ("absolute", format!("GET http://{server}{path} HTTP/1.1\r\nHost: {server}\r\n\r\n")),
            ("with another Host", format!("GET http://{server}{path} HTTP/1.1\r\nHost: x\r\n\r\n")),
            ("the gateway", format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n\r\n")),
        ] {
            let answer = status(&weir, request.as_bytes());
            if !REFUSED.contains(&answer) {
                passed.push(format!("{form} {path}: {answer}"));
            }
        }
    }
    assert!(passed.is_empty(), "{} attempts have passed:\n{}", passed.len(), passed.join("\n"));
    assert_eq!(origin.connections(), 0);
    let open = format!("GET http://{server}/secrets HTTP/1.1\r\nHost: {server}\r\n\r\n");
    assert_eq!(status(&weir, open.as_bytes()), 200);
}

/// In HTTP/2 the pseudo-fields say what is asked for.
#[test]
fn http2_is_judged_by_what_it_asks_for() {
    let weir =
        Weir::explicit("security: {filtering: {domains: {blocked: ['||blocked.test^', '/secret/*']}}}\n");
    let proxy = weir.proxy;
    let statuses = http2::run(async move {
        let mut statuses = Vec::new();
        for (method, uri, host) in [
            ("GET", "http://BLOCKED.test/", None),
            ("GET", "http://a.blocked.test:81/", None),
            ("GET", "https://blocked.test./", None),
            ("GET", "http://blocked.test/", Some("good.test")),
            ("GET", "http://good.test/%73ecret/", None),
            ("CONNECT", "blocked.test:443", None),
            ("CONNECT", "a.blocked.test.:443", None),
        ] {
            statuses.push((uri, ask(proxy, method, uri, host).await));
        }
        statuses.push(("good.test", ask(proxy, "GET", "http://good.test/", None).await));
        statuses
    });
    let (good, bad) = statuses.split_last().expect("some");
    assert!(bad.iter().all(|(_, status)| REFUSED.contains(status)), "{bad:?}");
    assert_eq!(good.1, 502);
}

async fn ask(proxy: SocketAddr, method: &str, uri: &str, host: Option<&str>) -> u16 {
    let stream = tokio::net::TcpStream::connect(proxy).await.expect("weir listens");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(async { drop(connection.await) });
    let mut request = ::http::Request::builder().method(method).uri(uri);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let request = request.body(()).expect("a request");
    let Ok((answer, _)) = client.send_request(request, true) else { return 0 };
    answer.await.map_or(0, |answer| answer.status().as_u16())
}
