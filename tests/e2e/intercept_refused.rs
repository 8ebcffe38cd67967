//! Intercepted TLS where something is wrong: with the server's certificate, with what the client trusts, with what its
//! ClientHello hides. Nothing bad is answered as good, and everybody is told why.

use std::process::Command;

use serde_json::Value;
use weir_tests::certificates::Authority;
use weir_tests::http;
use weir_tests::intercepting::{Intercepting, serve};
use weir_tests::scripts;
use weir_tests::weir::Weir;

const ALL: &str = "rules: [{name: all, action: intercept}]";

/// The client gets a 502 that says what is wrong.
#[track_caller]
fn check_told(site: &Intercepting, port: &str, kind: &str, words: &str) {
    let url = format!("https://localhost:{port}/");
    let answer = scripts::stdout(&mut site.curl(&["-i", "--suppress-connect-headers", &url]));
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(answer.contains(&format!("error={kind}")) && answer.contains(words), "{words}: {answer}");
    let problem = scripts::stdout(&mut site.curl(&["-H", "Accept: application/json", &url]));
    let problem: Value = serde_json::from_str(&problem).expect("a problem document");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{problem}");
    let page = scripts::stdout(&mut site.curl(&["-H", "Accept: text/html", &url]));
    assert!(page.starts_with("<!doctype html>") && page.contains(words), "{page}");
}

#[test]
fn a_bad_certificate_is_explained_and_never_answered_as_good() {
    let site = Intercepting::start(ALL, "cache: {enabled: true}");
    let other = Authority::new();
    let names = "DNS:localhost";
    let (_unknown, unknown) = serve(&other.issue("server", names), &[]);
    let (_wrong, wrong) = serve(&site.authority.issue("wrong", "DNS:elsewhere.example"), &[]);
    let (_expired, expired) = serve(&site.authority.issue_expired("expired", names), &[]);
    let (_client, picky) =
        serve(&site.authority.issue("picky", names), &[&other.certificate().display().to_string(), "tls12"]);
    let alone = other.certificate();
    let mut openssl = Command::new("openssl");
    let own = alone.with_file_name("own.pem");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "9",
    ]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"]);
    let key = alone.with_file_name("own.key");
    scripts::stdout(openssl.arg(&key).arg("-out").arg(&own));
    let (_own, signed_by_itself) =
        serve(&weir_tests::certificates::Certificate { certificate: own, key }, &[]);
    let certificate = "tls_certificate_error";
    check_told(&site, &unknown, certificate, "authority that is not trusted");
    check_told(&site, &wrong, certificate, "for another name");
    check_told(&site, &expired, certificate, "has expired");
    check_told(&site, &signed_by_itself, certificate, "its certificate");
    check_told(&site, &picky, "tls_alert_received", "it refused the TLS session");
    let plain = http::server("127.0.0.1", |mut stream| {
        let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
        let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    check_told(&site, &plain.port().to_string(), "tls_protocol_error", "it does not speak TLS");
    assert_eq!(site.weir.metric("upstream_tls_sessions_total"), 0);
    assert_eq!(site.weir.metric("intercept_server_failures_total"), 18);
    let flows = site.weir.flows(36);
    assert!(flows.iter().all(|flow| flow["end"] != "complete" || flow["status"] == 502), "{flows:?}");
    let tunnel = flows.iter().find(|flow| flow["method"] == "CONNECT").expect("a tunnel");
    assert!(tunnel["end"].as_str().is_some_and(|end| end.contains("not trusted")), "{tunnel}");
}

#[test]
fn an_exception_for_a_server_holds_inside() {
    let site = Intercepting::start(ALL, "");
    let other = Authority::new();
    let (_unknown, port) = serve(&other.issue("server", "DNS:localhost,IP:127.0.0.1"), &[]);
    let destinations = "destinations: [{host: localhost, verify: false}]";
    let Intercepting { weir, authority } = site;
    drop(weir);
    let overlay = Intercepting::overlay(&authority, ALL, "");
    let overlay = overlay.replace("system_roots: false", &format!("system_roots: false, {destinations}"));
    let site = Intercepting { weir: Weir::explicit(&overlay), authority };
    let status = ["-o", "/dev/null", "-w", "%{http_code}"];
    assert_eq!(scripts::stdout(site.curl(&[&format!("https://localhost:{port}/")]).args(status)), "200");
    assert_eq!(scripts::stdout(site.curl(&[&format!("https://127.0.0.1:{port}/")]).args(status)), "502");
}

#[test]
fn a_server_that_weir_does_not_trust_is_left_to_the_client_where_a_rule_says_so() {
    let site = Intercepting::start("on_failure: pass_through, rules: [{action: intercept}]", "");
    let other = Authority::new();
    let (_unknown, port) = serve(&other.issue("server", "DNS:localhost"), &[]);
    let url = format!("https://localhost:{port}/");
    // The client knows better.
    let trusted = other.certificate().display().to_string();
    let told = scripts::stdout(&mut site.weir.curl(&["--cacert", &trusted, &url]));
    assert!(!told.contains("Via:"), "{told}");
    // Or it does not.
    let output = site.curl(&[&url]).output().expect("curl runs");
    assert_eq!(output.status.code(), Some(60), "{output:?}");
    assert_eq!(site.weir.metric("intercept_passed_total"), 2);
}

#[test]
fn a_client_that_does_not_trust_weir_is_told_of_in_words() {
    let site = Intercepting::start(ALL, "");
    let (_server, port) = site.server(&[]);
    let url = format!("https://localhost:{port}/");
    let own = site.authority.certificate().display().to_string();
    for _ in 0..2 {
        let output = site.weir.curl(&["--cacert", &own, &url]).output().expect("curl runs");
        assert_eq!(output.status.code(), Some(60), "{output:?}");
    }
    let flows = site.weir.flows(2);
    for flow in &flows {
        let end = flow["end"].as_str().expect("text");
        assert!(end.contains("does not take weir's certificate (alert UnknownCA)"), "{end}");
        assert!(end.contains("weir ca trust") && end.contains("rule `all`"), "{end}");
    }
    assert_eq!(site.weir.metric("intercept_distrusted_total"), 2);
}

#[test]
fn a_pinned_client_passes_from_its_second_connection_on() {
    let site = Intercepting::start("rules: [{name: all, action: intercept, on_failure: pass_through}]", "");
    let (_server, port) = site.server(&[]);
    let url = format!("https://localhost:{port}/");
    let own = site.authority.certificate().display().to_string();
    let pinned = || site.weir.curl(&["--cacert", &own, &url]).output().expect("curl runs");
    assert_eq!(pinned().status.code(), Some(60));
    let passed = pinned();
    assert!(
        passed.status.success() && !String::from_utf8_lossy(&passed.stdout).contains("Via:"),
        "{passed:?}"
    );
    // Nothing is remembered for other servers.
    let (_other, other) = site.server(&[]);
    let told = scripts::stdout(&mut site.curl(&[&format!("https://localhost:{other}/")]));
    assert!(told.contains("Via:"), "{told}");
}

/// Opens a tunnel, and says hello in TLS: with a server name or without.
const HELLO: &str = "import socket, ssl, sys\n\
    proxy, port, name = sys.argv[1:]\n\
    host, number = proxy.split(':')\n\
    raw = socket.create_connection((host, int(number)))\n\
    raw.sendall(f'CONNECT 127.0.0.1:{port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'.encode())\n\
    assert b' 200 ' in raw.recv(4096)\n\
    context = ssl.create_default_context()\n\
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE\n\
    try:\n\
    \x20   context.wrap_socket(raw, server_hostname=name or None)\n\
    \x20   print('a session')\n\
    except ssl.SSLError as error:\n\
    \x20   print(error.reason)\n";

#[test]
fn who_names_no_server_is_refused_where_that_is_wanted() {
    let weir = Weir::explicit("tls: {no_sni: refuse}");
    let authority = Authority::new();
    let (_server, port) = serve(&authority.issue("server", "DNS:localhost,IP:127.0.0.1"), &[]);
    let say = |name: &str| {
        let mut python = Command::new("python3");
        scripts::stdout(python.args(["-c", HELLO, &weir.proxy.to_string(), &port, name]))
    };
    assert_eq!(say("localhost"), "a session");
    assert_eq!(say(""), "TLSV1_ALERT_ACCESS_DENIED");
    // Asked for by name, it is known who is wanted.
    let mut curl = weir.curl(&["--insecure", "-o", "/dev/null", "-w", "%{http_code}"]);
    assert_eq!(scripts::stdout(curl.arg(format!("https://localhost:{port}/"))), "200");
    let flows = weir.flows(3);
    let refused = flows.iter().find(|flow| flow["verdict"].is_string()).expect("a refusal");
    assert!(refused["verdict"].as_str().is_some_and(|verdict| verdict.contains("tls.no_sni")), "{refused}");
    assert_eq!(weir.metric("tls_refused_total"), 1);
}

#[test]
fn a_hello_that_is_read_late_or_in_pieces_is_read() {
    let site = Intercepting::start(ALL, "");
    let (_server, port) = site.server(&[]);
    let script = "import socket, ssl, sys, time\n\
        proxy, port, trusted = sys.argv[1:]\n\
        host, number = proxy.split(':')\n\
        raw = socket.create_connection((host, int(number)))\n\
        raw.sendall(f'CONNECT localhost:{port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'.encode())\n\
        assert b' 200 ' in raw.recv(4096)\n\
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()\n\
        tls = ssl.create_default_context(cafile=trusted).wrap_bio(incoming, outgoing, server_hostname='localhost')\n\
        def step(what):\n\
        \x20   while True:\n\
        \x20       try:\n\
        \x20           done = what()\n\
        \x20           raw.sendall(outgoing.read())\n\
        \x20           return done\n\
        \x20       except ssl.SSLWantReadError:\n\
        \x20           said = outgoing.read()\n\
        \x20           time.sleep(0.3) if said else None\n\
        \x20           for at in range(0, len(said), 50):\n\
        \x20               raw.sendall(said[at:at + 50])\n\
        \x20               time.sleep(0.01)\n\
        \x20           incoming.write(raw.recv(65536))\n\
        step(tls.do_handshake)\n\
        print(tls.getpeercert()['issuer'][-1][0][1])\n";
    let mut python = Command::new("python3");
    python.args(["-c", script, &site.weir.proxy.to_string(), &port]).arg(site.trusted());
    assert!(scripts::stdout(&mut python).starts_with("weir CA "));
}

/// CONNECT names an address, or a harmless name, and the ClientHello another: that is the one that counts, too.
#[test]
fn a_blocked_name_in_a_client_hello_is_refused_where_nothing_is_intercepted() {
    let authority = Authority::new();
    let (_server, port) = serve(&authority.issue("server", "DNS:localhost,IP:127.0.0.1"), &[]);
    for policy in [
        "filtering: {domains: {blocked: ['||blocked.test^']}}",
        "filtering: {mode: allowlist, domains: {allowed: [127.0.0.1, localhost], blocked: ['||blocked.test^']}}",
        "acl: {destinations: {loopback: allow}, rules: [{domains: ['*.blocked.test', blocked.test], action: deny}]}",
    ] {
        let weir = Weir::explicit(&format!("security: {{{policy}}}"));
        let say = |name: &str| {
            let mut python = Command::new("python3");
            scripts::stdout(python.args(["-c", HELLO, &weir.proxy.to_string(), &port, name]))
        };
        assert_eq!(say("localhost"), "a session", "{policy}");
        for name in ["blocked.test", "BLOCKED.test", "a.Blocked.Test", "blocked.test."] {
            let said = say(name);
            // OpenSSL itself refuses to send some.
            assert!(
                said.contains("ACCESS_DENIED") || said.contains("CONNECTION"),
                "{policy}: {name}: {said}"
            );
        }
        let flows = weir.flows(5);
        let refused = flows.iter().filter(|flow| flow["end"] == "denied").count();
        assert_eq!(refused, 4, "{flows:?}");
    }
}
