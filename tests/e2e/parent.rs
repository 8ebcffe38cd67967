//! Through a parent proxy: HTTP and SOCKS5, with credentials, and what goes direct all the same.

use std::io::{Read, Write};
use std::process::Command;

use weir_tests::certificates::Authority;
use weir_tests::http::{self, Answer, Server};
use weir_tests::origin::{Origin, read_answer};
use weir_tests::scripts;
use weir_tests::weir::{Weir, connect};

fn origin() -> Origin {
    Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

fn behind(parent: &str, more: &str) -> Weir {
    Weir::explicit(&format!("upstream: {{parent: '{parent}'{more}}}"))
}

fn get(weir: &Weir, url: &str) -> Answer {
    let mut stream = connect(weir.proxy);
    write!(stream, "GET {url} HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    read_answer(&mut stream, "GET").expect("an answer")
}

/// A proxy that answers each request, whatever it is, with its head.
fn telling(status: &'static str) -> Server {
    http::server("127.0.0.1", move |mut stream| {
        let head = http::read_head(&mut stream);
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{head}", head.len());
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.read(&mut [0]);
    })
}

#[test]
fn requests_and_tunnels_go_through_the_parent() {
    let origin = origin();
    let parent = Weir::explicit("");
    for kind in ["http", "socks5"] {
        let weir = behind(&format!("{kind}://{}", parent.proxy), "");
        let url = format!("http://{}/p?q", origin.address);
        assert_eq!(get(&weir, &url).text(), "ok", "{kind}");
        let tunnelled = scripts::stdout(&mut weir.curl(&["-p", &url]));
        assert_eq!(tunnelled, "ok", "{kind}");
        let socks = ["-sS", "--noproxy", "", "--socks5-hostname", &weir.proxy.to_string(), &url];
        assert_eq!(scripts::stdout(Command::new("curl").args(socks)), "ok", "{kind}");
    }
    let arrived = origin.requests();
    assert_eq!(arrived[0].field("via").map(|via| via.matches("weir-").count()), Some(1));
    assert!(arrived[0].head.matches("Via:").count() == 2, "{}", arrived[0].head);
    // Each of the parent's flows came from a weir, none from a client.
    assert_eq!(parent.flows(6).len(), 6);
}

#[test]
fn https_urls_get_their_tls_behind_the_parent() {
    let authority = Authority::new();
    let identity = authority.issue("server", "DNS:localhost");
    let files = [&identity.certificate, &identity.key].map(|path| path.display().to_string());
    let server = weir_tests::background::Background::start("https_server.py", &[&files[0], &files[1]]);
    let parent = Weir::explicit("");
    for kind in ["http", "socks5"] {
        let roots = format!(", tls: {{roots: ['{}']}}", authority.certificate().display());
        let weir = behind(&format!("{kind}://{}", parent.proxy), &roots);
        for _ in 0..2 {
            let answer = get(&weir, &format!("https://localhost:{}/", server.port));
            assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        }
    }
    let flows = parent.flows(2);
    let asked = format!("localhost:{}", server.port);
    assert!(flows.iter().all(|flow| flow["method"] == "CONNECT" && flow["authority"] == asked), "{flows:?}");
}

/// TLS with the proxy, and for https:// URLs another one inside it.
#[test]
fn a_parent_may_be_spoken_to_through_tls() {
    let authority = Authority::new();
    let identity = authority.issue("server", "DNS:localhost");
    let files = [&identity.certificate, &identity.key].map(|path| path.display().to_string());
    let server = weir_tests::background::Background::start("https_server.py", &[&files[0], &files[1]]);
    let own = format!("cert: '{}', key: '{}'", files[0], files[1]);
    let parent = Weir::explicit(&format!("server: {{tls: {{enabled: true, required: true, {own}}}}}"));
    let address = format!("https://localhost:{}", parent.proxy.port());
    let roots = format!(", tls: {{roots: ['{}']}}", authority.certificate().display());
    let (weir, origin) = (behind(&address, &roots), origin());
    let url = format!("http://{}/p?q", origin.address);
    for _ in 0..3 {
        assert_eq!(get(&weir, &url).text(), "ok");
        assert_eq!(scripts::stdout(&mut weir.curl(&["-p", &url])), "ok");
        let answer = get(&weir, &format!("https://localhost:{}/", server.port));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let roots = authority.certificate().display().to_string();
        let tunnelled = format!("https://localhost:{}/", server.port);
        assert!(weir.curl(&["--cacert", &roots, &tunnelled]).status().expect("curl runs").success());
    }
    // The tunnels of https:// URLs are kept.
    let methods: Vec<_> = parent.flows(9).iter().map(|flow| flow["method"].to_string()).collect();
    assert_eq!(methods.iter().filter(|method| *method == "\"GET\"").count(), 3, "{methods:?}");

    let served = || parent.metric("http_requests_total") + parent.metric("tunnels_total");
    let before = served();

    // Whom nobody vouches for is told nothing.
    let stranger = behind(&address, "");
    for url in [url, format!("https://localhost:{}/", server.port)] {
        let answer = get(&stranger, &url);
        assert_eq!(answer.status, 502);
        assert!(answer.text().contains("no TLS session with localhost"), "{}", answer.text());
    }
    assert_eq!(served(), before);
}

#[test]
fn credentials_are_sent_to_the_parent_and_shown_to_nobody() {
    let parent = telling("200 OK");
    let weir = behind(&format!("http://me:se%40cret@{parent}"), "");
    let told = get(&weir, "http://a.example/p").text();
    let sent = told.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: "));
    assert_eq!(sent, Some("Basic bWU6c2VAY3JldA=="), "{told}");
    assert!(told.starts_with("GET http://a.example/p HTTP/1.1\r\nHost: a.example\r\n"), "{told}");
    // The client's own are for weir, not for the parent.
    let mut stream = connect(weir.proxy);
    let own = "GET http://a.example/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic eDp5\r\n\r\n";
    stream.write_all(own.as_bytes()).expect("weir takes it");
    assert!(!read_answer(&mut stream, "GET").expect("an answer").text().contains("eDp5"));
    // What comes out of the tunnel is what the parent was told.
    let mut tunnel = connect(weir.proxy);
    tunnel.write_all(b"CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    let heads = [http::read_head(&mut tunnel), http::read_head(&mut tunnel)];
    assert!(heads[0].starts_with("HTTP/1.1 200 ") && heads[1].contains("bWU6c2VAY3JldA=="), "{heads:?}");
    drop(tunnel);
    for shown in [weir.log(), format!("{:?}", weir.flows(3))] {
        assert!(!shown.contains("cret") && !shown.contains("bWU6"), "{shown}");
    }
}

#[test]
fn what_the_parent_refuses_is_explained() {
    for (status, words) in
        [("407 Proxy Authentication Required", "credentials"), ("403 Forbidden", "it answered with 403")]
    {
        let parent = telling(status);
        let weir = behind(&format!("http://{parent}"), "");
        let answer =
            http::send(weir.proxy, b"CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\n\r\n").expect("an answer");
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    let parent = telling("407 Proxy Authentication Required");
    let answer = get(&behind(&format!("http://{parent}"), ""), "http://a.example/");
    assert_eq!(
        (answer.status, answer.text().contains("wants credentials")),
        (502, true),
        "{}",
        answer.text()
    );
    for (said, words) in [
        (&b"\x05\xff"[..], "another kind of credentials"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak SOCKS5"),
        (b"\x05\x00\x05\x05\x00\x01\0\0\0\0\0\0", "connection was refused"),
        (b"\x05\x00\x05", "closed the connection"),
    ] {
        let parent = http::server("127.0.0.1", move |mut stream| {
            let _ = stream.write_all(said);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let answer = get(&behind(&format!("socks5://{parent}"), ""), "http://a.example/");
        assert_eq!((answer.status, answer.text().contains(words)), (502, true), "{}", answer.text());
    }
}

#[test]
fn the_parent_is_no_way_around_the_access_list() {
    let parent = telling("200 OK");
    let denied = "security: {acl: {destinations: {loopback: deny}}}";
    let weir = Weir::explicit(&format!("{denied}\nupstream: {{parent: 'http://{parent}'}}"));
    for host in ["127.0.0.1", "localhost", "a.LOCALHOST.", "[::1]", "169.254.169.254"] {
        assert_eq!(get(&weir, &format!("http://{host}/")).status, 403, "{host}");
    }
    assert_eq!(get(&weir, "http://a.example/").status, 200);
}

/// Whether curl sends a request for `host` to its proxy, and whether weir does to its parent.
fn goes_through(rule: &str, host: &str) -> (bool, bool) {
    let parent = telling("200 OK");
    let url = format!("http://{host}:1/");
    let mut curl = Command::new("curl");
    curl.args(["-s", "-x", &format!("http://{parent}"), "--noproxy", rule, &url]);
    let by_curl = curl.output().expect("curl is installed").status.success();
    let weir = behind(&format!("http://{parent}"), &format!(", no_proxy: ['{rule}']"));
    (by_curl, get(&weir, &url).status == 200)
}

#[test]
fn what_goes_direct_is_what_goes_direct_for_curl() {
    for (rule, host, through) in [
        ("*", "a.test", false),
        ("a.test", "a.test", false),
        ("a.test", "A.TEST", false),
        ("A.Test", "a.test", false),
        ("a.test", "b.a.test", false),
        ("a.test", "ba.test", true),
        ("a.test", "a.test.example", true),
        (".a.test", "a.test", false),
        (".a.test", "b.a.test", false),
        ("a.test.", "a.test", false),
        ("a.test", "a.test.", false),
        ("b.a.test", "a.test", true),
        ("127.1.2.3", "127.1.2.3", false),
        ("127.1.2.3", "127.1.2.4", true),
        ("127.1.0.0/16", "127.1.2.3", false),
        ("127.1.0.0/16", "127.2.2.3", true),
        ("127.1.2.3/32", "127.1.2.3", false),
        ("::1", "[::1]", false),
        ("2.3", "127.1.2.3", true),
    ] {
        assert_eq!(goes_through(rule, host), (through, through), "{rule} {host} (curl, weir)");
    }
}
