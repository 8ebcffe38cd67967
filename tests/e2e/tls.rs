//! TLS with upstreams: https:// URLs in absolute-form, https:// backends, and what is refused with which words.

use std::io::{Read, Write};
use std::process::Command;

use serde_json::Value;
use weir_tests::background::Background;
use weir_tests::certificates::{Authority, Certificate};
use weir_tests::http::{self, Answer};
use weir_tests::origin::read_answer;
use weir_tests::weir::{Weir, connect, free_port};

/// A server with this certificate; its port.
fn server(identity: &Certificate, more: &[&str]) -> (Background, u16) {
    let path = |path: &std::path::Path| path.display().to_string();
    let files = [path(&identity.certificate), path(&identity.key)];
    let arguments = [&[files[0].as_str(), files[1].as_str()][..], more].concat();
    let server = Background::start("https_server.py", &arguments);
    let port = server.port.parse().expect("a port");
    (server, port)
}

/// A weir that trusts the authority.
fn trusting(authority: &Authority, more: &str) -> Weir {
    let roots = authority.certificate();
    Weir::explicit(&format!(
        "upstream: {{tls: {{roots: ['{}'], system_roots: false{more}}}}}",
        roots.display()
    ))
}

#[track_caller]
fn get(weir: &Weir, url: &str) -> Answer {
    let mut stream = connect(weir.proxy);
    write!(stream, "GET {url} HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    read_answer(&mut stream, "GET").expect("an answer")
}

#[test]
fn an_https_url_in_absolute_form_is_fetched_over_tls() {
    let authority = Authority::new();
    let (_server, port) = server(&authority.issue("server", "DNS:localhost,IP:127.0.0.1"), &[]);
    let weir = trusting(&authority, "");
    let mut stream = connect(weir.proxy);
    for host in ["localhost", "127.0.0.1", "LOCALHOST"] {
        write!(stream, "GET https://{host}:{port}/p?q HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
        let answer = read_answer(&mut stream, "GET").expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told: Value = answer.json();
        let start = format!("GET /p?q HTTP/1.1\r\nHost: {}:{port}\r\n", host.to_lowercase());
        assert!(told["head"].as_str().is_some_and(|head| head.starts_with(&start)), "{told}");
        assert_eq!((&told["version"], &told["alpn"]), (&Value::from("TLSv1.3"), &Value::from("http/1.1")));
    }
    let flows = weir.flows(3);
    let flow = flows.iter().find(|flow| flow["url"] == format!("https://127.0.0.1:{port}/p?q"));
    assert!(flow.is_some_and(|flow| flow["timings"]["tls_us"].is_u64()), "{flows:?}");
}

#[test]
fn connections_and_sessions_are_used_again() {
    let authority = Authority::new();
    let (_server, port) = server(&authority.issue("server", "IP:127.0.0.1"), &[]);
    let weir = trusting(&authority, "");
    for _ in 0..5 {
        assert_eq!(get(&weir, &format!("https://127.0.0.1:{port}/")).status, 200);
    }
    let reuses = weir.metric("upstream_reuses_total");
    assert_eq!(weir.metric("upstream_tls_sessions_total") + reuses, 5);
    assert!(reuses >= 5 - 2 * num_workers(), "{reuses}");
    // A new connection, but no new key exchange with certificates.
    for _ in 0..2 * num_workers() {
        get(&weir, &format!("https://127.0.0.1:{port}/last"));
    }
    let resumed = get(&weir, &format!("https://127.0.0.1:{port}/last")).json();
    assert_eq!(resumed["resumed"], true, "{resumed}");
}

fn num_workers() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

/// What a failed handshake is answered with: the status, the type of RFC 9209, and words that say why.
#[track_caller]
fn check_refused(weir: &Weir, url: &str, kind: &str, words: &str) {
    let answer = get(weir, url);
    assert_eq!(answer.status, 502, "{url}: {}", answer.text());
    let status = answer.field("proxy-status").unwrap_or_default();
    assert!(status.contains(&format!("error={kind}")), "{url}: {status}");
    assert!(answer.text().contains(words), "{url}: {}", answer.text());
}

#[test]
fn what_is_not_to_be_trusted_is_not_asked() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (_other, unknown) = server(&other.issue("server", "DNS:localhost"), &[]);
    let (_wrong, wrong) = server(&authority.issue("server", "DNS:elsewhere.example"), &[]);
    let (_client, client) = server(
        &authority.issue("picky", "DNS:localhost"),
        &[&other.certificate().display().to_string(), "tls12"],
    );
    let plain = http::server("127.0.0.1", |mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let closing = http::server("127.0.0.1", |mut stream| drop(stream.read(&mut [0; 4096])));
    let weir = trusting(&authority, "");
    let certificate = "tls_certificate_error";
    check_refused(
        &weir,
        &format!("https://localhost:{unknown}/"),
        certificate,
        "authority that is not trusted",
    );
    check_refused(&weir, &format!("https://localhost:{wrong}/"), certificate, "for another name");
    check_refused(
        &weir,
        &format!("https://localhost:{client}/"),
        "tls_alert_received",
        "it refused the TLS session",
    );
    check_refused(&weir, &format!("https://{plain}/"), "tls_protocol_error", "it does not speak TLS");
    check_refused(&weir, &format!("https://{closing}/"), "tls_protocol_error", "closed the connection");
    assert_eq!(
        (weir.metric("upstream_tls_failures_total"), weir.metric("upstream_tls_sessions_total")),
        (5, 0)
    );
    // The system's authorities, which do not know ours.
    let usual = Weir::explicit("");
    check_refused(
        &usual,
        &format!("https://localhost:{wrong}/"),
        certificate,
        "authority that is not trusted",
    );
}

#[test]
fn exceptions_hold_for_the_servers_they_name_only() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (_other, unknown) = server(&other.issue("server", "DNS:localhost,IP:127.0.0.1"), &[]);
    let (_old, old) = server(&authority.issue("old", "DNS:localhost,IP:127.0.0.1"), &["-", "tls12"]);
    let insecure = trusting(&authority, ", destinations: [{host: localhost, verify: false}]");
    assert_eq!(get(&insecure, &format!("https://localhost:{unknown}/")).status, 200);
    check_refused(
        &insecure,
        &format!("https://127.0.0.1:{unknown}/"),
        "tls_certificate_error",
        "not trusted",
    );

    let roots = other.certificate();
    let roots = format!(", destinations: [{{host: localhost, roots: '{}'}}]", roots.display());
    let special = trusting(&authority, &roots);
    assert_eq!(get(&special, &format!("https://localhost:{unknown}/")).status, 200);
    check_refused(&special, &format!("https://localhost:{old}/"), "tls_certificate_error", "not trusted");

    let strict =
        trusting(&authority, ", min_version: 1.3, destinations: [{host: localhost, min_version: 1.2}]");
    assert_eq!(get(&strict, &format!("https://localhost:{old}/")).json()["version"], "TLSv1.2");
    assert_eq!(get(&strict, &format!("https://127.0.0.1:{old}/")).status, 502);
}

#[test]
fn a_client_certificate_is_shown_where_it_belongs() {
    let authority = Authority::new();
    let ca = authority.certificate().display().to_string();
    let (_server, port) = server(&authority.issue("server", "DNS:localhost,IP:127.0.0.1"), &[&ca, "tls12"]);
    let own = authority.issue("weir-itself", "DNS:weir.example");
    let weir = trusting(
        &authority,
        &format!(
            ", destinations: [{{host: localhost, cert: '{}', key: '{}'}}]",
            own.certificate.display(),
            own.key.display()
        ),
    );
    let told = get(&weir, &format!("https://localhost:{port}/")).json();
    assert_eq!(told["client"], serde_json::json!(["weir-itself"]));
    check_refused(&weir, &format!("https://127.0.0.1:{port}/"), "tls_alert_received", "refused");
}

#[test]
fn a_body_that_ends_without_close_notify_is_cut_off() {
    let authority = Authority::new();
    let (_server, port) = server(&authority.issue("server", "IP:127.0.0.1"), &[]);
    let weir = trusting(&authority, "");
    assert_eq!(get(&weir, &format!("https://127.0.0.1:{port}/closed")).text(), "all of it");
    let request = format!("GET https://127.0.0.1:{port}/truncated HTTP/1.0\r\n\r\n");
    http::send(weir.proxy, request.as_bytes()).expect_err("a reset, not a body that looks whole");
    assert!(weir.flows(2).iter().any(|flow| flow["end"].as_str().is_some_and(|end| end.contains("cut off"))));
}

#[test]
fn an_upgrade_becomes_a_tunnel_through_tls() {
    let authority = Authority::new();
    let (_server, port) = server(&authority.issue("server", "IP:127.0.0.1"), &[]);
    let weir = trusting(&authority, "");
    let mut stream = connect(weir.proxy);
    let fields = "Host: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n";
    write!(stream, "GET https://127.0.0.1:{port}/upgrade HTTP/1.1\r\n{fields}\r\n").expect("weir takes it");
    assert!(http::read_head(&mut stream).starts_with("HTTP/1.1 101 "));
    let mut reader = stream.try_clone().expect("a descriptor");
    let sent = weir_tests::pattern::Pattern::bytes(5, 8 << 20);
    let received = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).map(|_| received)
        });
        stream.write_all(&sent).expect("weir takes it");
        stream.shutdown(std::net::Shutdown::Write).expect("a half-close");
        reading.join().expect("a thread").expect("an orderly end")
    });
    assert!(received == sent, "the echo is another: {} bytes", received.len());
    assert!(weir.flows(1)[0]["end"] == "complete", "{:?}", weir.flows(1));
}

#[test]
fn a_backend_may_be_behind_tls() {
    let authority = Authority::new();
    let (_server, port) = server(&authority.issue("server", "DNS:localhost"), &[]);
    let roots = authority.certificate();
    let weir = Weir::explicit(&format!(
        "upstream: {{tls: {{roots: ['{}']}}}}\nrouting: {{default_backend: 'https://localhost:{port}'}}",
        roots.display()
    ));
    let request = "GET /shop HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
    let told = http::send(weir.proxy, request.as_bytes()).expect("an answer").json();
    let head = told["head"].as_str().unwrap_or_default();
    assert!(head.starts_with("GET /shop HTTP/1.1\r\nHost: shop.example\r\n"), "{head}");
    assert!(head.contains("X-Forwarded-Proto: http\r\n"), "{head}");
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("empty.pem"), "nothing").expect("a file");
    let port = free_port();
    for (file, words) in [("missing.pem", "can't be read"), ("empty.pem", "no certificate in it")] {
        let roots = format!("upstream.tls.roots=[{}]", folder.path().join(file).display());
        for command in [&["config", "check"][..], &["serve", "--set", "capture.mode=off"]] {
            let output = Command::new(weir_tests::weir::binary())
                .args(command)
                .args(["--set", &roots, "--set", &format!("server.port={port}"), "--set", "admin.port=0"])
                .args(["--set", &format!("admin.state_dir={}", folder.path().display())])
                .output()
                .expect("weir starts");
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && errors.contains(words) && errors.contains(file), "{errors}");
        }
    }
}
