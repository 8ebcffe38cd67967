//! TLS with clients: curl through an https proxy, the gateway over https, and certificates that change.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use weir_tests::certificates::{Authority, Certificate};
use weir_tests::http;
use weir_tests::origin::Origin;
use weir_tests::pattern::Pattern;
use weir_tests::weir::{Weir, connect, eventually};

fn origin() -> Origin {
    Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

fn entry(identity: &Certificate) -> String {
    format!("cert: '{}', key: '{}'", identity.certificate.display(), identity.key.display())
}

fn listening(identity: &Certificate, more: &str) -> Weir {
    Weir::explicit(&format!("server: {{tls: {{enabled: true, {}{more}}}}}", entry(identity)))
}

/// curl through weir as an https proxy.
fn curl(weir: &Weir, authority: &Authority, arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sS", "--noproxy", "", "-x", &format!("https://localhost:{}", weir.proxy.port())]);
    command.arg("--proxy-cacert").arg(authority.certificate()).args(arguments);
    command
}

#[track_caller]
fn stdout(mut command: Command) -> Vec<u8> {
    let output = command.output().expect("curl is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// `openssl s_client` says which certificate it was shown: its subject.
fn shown(weir: &Weir, name: &str) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &weir.proxy.to_string(), "-servername", name])
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let subject = text.lines().find_map(|line| line.strip_prefix("subject="));
    subject.unwrap_or_default().replace("CN = ", "").replace("CN=", "").trim().to_owned()
}

#[test]
fn curl_uses_an_https_proxy() {
    let authority = Authority::new();
    let weir = listening(&authority.issue("localhost", "DNS:localhost"), "");
    let large = Pattern::bytes(3, 4 << 20);
    let origin = Origin::start(move |request| {
        let body: &[u8] = if request.head.contains("/large") { &large } else { b"ok" };
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    });
    let url = format!("http://{}/", origin.address);
    assert_eq!(stdout(curl(&weir, &authority, &[&url])), b"ok");
    // CONNECT within TLS.
    assert_eq!(stdout(curl(&weir, &authority, &["-p", &url])), b"ok");
    let large = format!("{url}large");
    assert!(stdout(curl(&weir, &authority, &["-p", &large])) == Pattern::bytes(3, 4 << 20));
    assert!(stdout(curl(&weir, &authority, &[&large])) == Pattern::bytes(3, 4 << 20));
    // In the clear on the same port.
    assert_eq!(
        stdout({
            let mut plain = weir.curl(&[&url]);
            plain.arg("-v");
            plain
        }),
        b"ok"
    );
    assert!(weir.metric("downstream_tls_sessions_total") >= 4);
    let flows = weir.flows(5);
    assert!(flows.iter().all(|flow| flow["end"] == "complete"), "{flows:?}");
}

#[test]
fn the_gateway_is_reached_over_https() {
    let authority = Authority::new();
    let identity = authority.issue("shop", "DNS:shop.example");
    let origin = origin();
    let weir = Weir::explicit(&format!(
        "server: {{tls: {{enabled: true, {}}}}}\nrouting: {{default_backend: 'http://{}'}}",
        entry(&identity),
        origin.address
    ));
    let port = weir.proxy.port();
    let mut command = Command::new("curl");
    command.args(["-sS", "--noproxy", "*", "--resolve", &format!("shop.example:{port}:127.0.0.1")]);
    command.arg("--cacert").arg(authority.certificate()).arg(format!("https://shop.example:{port}/p"));
    command.args(["-w", " %{http_version}"]);
    assert_eq!(stdout(command), b"ok 2", "ALPN finds what both sides speak");
    let head = origin.requests()[0].head.clone();
    assert!(head.starts_with(&format!("GET /p HTTP/1.1\r\nHost: shop.example:{port}\r\n")), "{head}");
    assert!(head.contains("X-Forwarded-Proto: https\r\n"), "{head}");
    assert_eq!(weir.flows(1)[0]["url"], format!("https://shop.example:{port}/p"));
}

#[test]
fn the_certificate_is_the_one_that_was_asked_for() {
    let authority = Authority::new();
    let [usual, a, b] = ["usual", "a", "b"].map(|name| authority.issue(name, &format!("DNS:{name}.example")));
    let certificates = format!(
        ", certificates: [{{host: a.example, {}}}, {{host: '*.b.example', {}}}]",
        entry(&a),
        entry(&b)
    );
    let weir = listening(&usual, &certificates);
    for (name, expected) in
        [("a.example", "a"), ("A.Example", "a"), ("x.b.example", "b"), ("c.example", "usual")]
    {
        assert_eq!(shown(&weir, name), expected, "{name}");
    }
}

#[test]
fn a_new_certificate_is_used_without_a_restart() {
    let authority = Authority::new();
    let (first, second) = (authority.issue("first", "DNS:x"), authority.issue("second", "DNS:x"));
    let weir = listening(&first, "");
    assert_eq!(shown(&weir, "x"), "first");
    // A connection from before goes on.
    let tunnel = connect(weir.proxy);
    let replace = |from: &Path, to: &Path| std::fs::copy(from, to).expect("a copy");
    replace(&second.certificate, &first.certificate);
    // Only half of it is new: what is used stays as it is, and weir lives.
    weir.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("an error in the log", || weir.log().contains("stay as they were").then_some(()));
    assert_eq!(shown(&weir, "x"), "first");
    replace(&second.key, &first.key);
    weir.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("the new certificate", || (shown(&weir, "x") == "second").then_some(()));
    drop(tunnel);
}

#[test]
fn connections_in_the_clear_are_refused_if_tls_is_required() {
    let authority = Authority::new();
    let weir = listening(&authority.issue("localhost", "DNS:localhost"), ", required: true");
    let origin = origin();
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address);
    let answer = http::send(weir.proxy, request.as_bytes()).expect("an answer");
    assert_eq!((answer.status, answer.text().contains("TLS only")), (400, true), "{}", answer.text());
    assert_eq!(stdout(curl(&weir, &authority, &[&format!("http://{}/", origin.address)])), b"ok");
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn handshakes_that_come_to_nothing_cost_nothing() {
    let authority = Authority::new();
    let weir = Weir::explicit(&format!(
        "server: {{timeouts: {{request_head: 500ms}}, tls: {{enabled: true, {}}}}}",
        entry(&authority.issue("localhost", "DNS:localhost"))
    ));
    let begun: Vec<_> = (0..20)
        .map(|count: usize| {
            let mut stream = connect(weir.proxy);
            let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and no more";
            stream.write_all(&hello[..1 + count % hello.len()]).expect("weir takes it");
            stream
        })
        .collect();
    for mut stream in begun {
        // An alert, or nothing; and the end of the connection.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    eventually("all connections ended", || (weir.status()["active_connections"] == 0).then_some(()));
    assert!(weir.metric("downstream_tls_failures_total") >= 20);
}
