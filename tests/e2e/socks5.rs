//! SOCKS5 and the PAC file on the explicit proxy's port.

use std::io::{Read, Write};
use std::process::Command;

use weir_tests::http;
use weir_tests::origin::Origin;
use weir_tests::scripts;
use weir_tests::weir::{Weir, connect, eventually};

fn origin() -> Origin {
    Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

#[test]
fn curl_uses_socks5_by_name_and_by_address() {
    let (weir, origin) = (Weir::explicit(""), origin());
    let port = origin.address.port();
    for (option, host) in
        [("--socks5", "localhost"), ("--socks5-hostname", "localhost"), ("--socks5", "127.0.0.1")]
    {
        let mut curl = Command::new("curl");
        curl.args([
            "-sS",
            "--noproxy",
            "",
            option,
            &weir.proxy.to_string(),
            &format!("http://{host}:{port}/"),
        ]);
        assert_eq!(scripts::stdout(&mut curl), "ok", "{option} {host}");
    }
    // A client that could also authenticate need not.
    let mut curl = Command::new("curl");
    let url = format!("http://127.0.0.1:{port}/");
    curl.args(["-sS", "--noproxy", "", "--socks5", &weir.proxy.to_string(), "--proxy-user", "a:b", &url]);
    assert_eq!(scripts::stdout(&mut curl), "ok");
    let flows = weir.flows(4);
    assert!(flows.iter().all(|flow| flow["protocol"] == "socks5" && flow["end"] == "complete"), "{flows:?}");
}

/// What a client that says this gets, until the connection ends.
#[track_caller]
fn check(weir: &Weir, what: &str, said: &[u8], expected: &[u8]) {
    let mut stream = connect(weir.proxy);
    stream.write_all(said).expect("weir takes it");
    stream.shutdown(std::net::Shutdown::Write).expect("a half-close");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap_or_else(|error| panic!("{what}: {error}, after {got:?}"));
    assert_eq!(got, expected, "{what}");
}

#[test]
fn what_can_not_be_served_is_answered_as_the_rfc_says() {
    let weir = Weir::explicit("");
    let refused = |reply: u8| [&[5, 0][..], &[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    let ask = |rest: &[u8]| [&[5, 1, 0][..], rest].concat();
    check(&weir, "only with a password", &[5, 1, 2], &[5, 0xff]);
    check(&weir, "no method at all", &[5, 0], &[5, 0xff]);
    check(&weir, "BIND", &ask(&[5, 2, 0, 1, 127, 0, 0, 1, 0, 80]), &refused(7));
    check(&weir, "UDP ASSOCIATE", &ask(&[5, 3, 0, 1, 127, 0, 0, 1, 0, 80]), &refused(7));
    check(&weir, "an unknown address", &ask(&[5, 1, 0, 9, 127, 0, 0, 1, 0, 80]), &refused(8));
    check(&weir, "an empty name", &ask(&[5, 1, 0, 3, 0, 0, 80]), &refused(1));
    check(&weir, "a name with a blank", &ask(b"\x05\x01\x00\x03\x03a b\x00\x50"), &refused(1));
    check(&weir, "port 0", &ask(&[5, 1, 0, 1, 127, 0, 0, 1, 0, 0]), &refused(1));
    check(&weir, "a link-local address", &ask(&[5, 1, 0, 1, 169, 254, 1, 1, 0, 80]), &refused(2));
    check(&weir, "a closed port", &ask(&[5, 1, 0, 1, 127, 0, 0, 1, 0, 1]), &refused(5));
    check(&weir, "no such name", &ask(b"\x05\x01\x00\x03\x0fnothing.invalid\x00\x50"), &refused(4));
    check(&weir, "another version within", &ask(&[4, 1, 0, 1, 127, 0, 0, 1, 0, 80]), &[5, 0]);
    for beginning in [&[5][..], &[5, 1], &[5, 1, 0, 5, 1, 0, 1, 127]] {
        let mut stream = connect(weir.proxy);
        stream.write_all(beginning).expect("weir takes it");
    }
    eventually("all connections ended", || (weir.status()["active_connections"] == 0).then_some(()));
    let own = weir.proxy.port().to_be_bytes();
    check(&weir, "weir itself", &ask(&[&[5, 1, 0, 1, 127, 0, 0, 1][..], &own].concat()), &refused(2));
    let off = Weir::explicit("server: {socks5: false}");
    let mut stream = connect(off.proxy);
    stream.write_all(&[5, 1, 0]).expect("weir takes it");
    assert!(http::read_head(&mut stream).starts_with("HTTP/1.1 400 "));
}

#[test]
fn bytes_sent_ahead_and_byte_by_byte_arrive() {
    let (weir, origin) = (Weir::explicit(""), origin());
    let port = origin.address.port().to_be_bytes();
    let greeting = [&[5, 2, 2, 0, 5, 1, 0, 1, 127, 0, 0, 1][..], &port].concat();
    let whole = [&greeting[..], b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"].concat();
    for piece in [whole.len(), 1] {
        let mut stream = connect(weir.proxy);
        stream.set_nodelay(true).expect("a socket option");
        for part in whole.chunks(piece) {
            stream.write_all(part).expect("weir takes it");
        }
        let mut replies = [0; 12];
        stream.read_exact(&mut replies).expect("both replies");
        assert_eq!(replies, [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("the server's answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}

#[test]
fn a_browser_is_told_where_the_proxy_is() {
    let weir = Weir::explicit("");
    let pac = http::get(weir.proxy, "/proxy.pac").expect("an answer");
    assert_eq!((pac.status, pac.field("content-type")), (200, Some("application/x-ns-proxy-autoconfig")));
    let hosts = "['example.com', 'localhost', 'a.localhost', '127.0.0.9', '[::1]', 'intranet', '10.0.0.1']";
    let script = format!(
        "const shExpMatch = (s, p) => new RegExp('^' + p.replace(/[.]/g, '\\\\.').replace(/[*]/g, '.*') + '$').test(s);\n\
         {}\nconsole.log({hosts}.map(host => FindProxyForURL('http://' + host + '/', host)).join(','))",
        pac.text()
    );
    let proxy = format!("PROXY {}", weir.proxy);
    let expected = format!("{proxy},DIRECT,DIRECT,DIRECT,DIRECT,{proxy},{proxy}");
    assert_eq!(scripts::stdout(Command::new("node").args(["-e", &script])), expected);
    let off = Weir::explicit("server: {pac: false}");
    assert_eq!(http::get(off.proxy, "/proxy.pac").expect("an answer").status, 404);
    // As an absolute URL it is somebody else's.
    let origin = origin();
    let url =
        format!("GET http://{}/proxy.pac HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", origin.address);
    assert_eq!(http::send(weir.proxy, url.as_bytes()).expect("an answer").text(), "ok");
}
