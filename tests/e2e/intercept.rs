//! Intercepted TLS: what is spoken inside is served like plain HTTP, whichever way the connection was asked for.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use weir_tests::intercepting::Intercepting;
use weir_tests::nginx::Nginx;
use weir_tests::weir::{Weir, eventually};
use weir_tests::{scripts, venv};

const ALL: &str = "rules: [{name: all, action: intercept}]";

/// What `https_server.py` tells of the request that it got.
#[track_caller]
fn told(command: &mut Command) -> Value {
    serde_json::from_str(&scripts::stdout(command)).expect("JSON")
}

#[track_caller]
fn assert_forwarded(told: &Value) {
    assert!(told["head"].as_str().is_some_and(|head| head.contains("\r\nVia: 1.1 weir-")), "{told}");
}

#[test]
fn curl_is_served_by_connect_and_by_socks() {
    let site = Intercepting::start(ALL, "");
    let (_server, port) = site.server(&[]);
    let proxy = site.weir.proxy;
    for (option, scheme, host) in [
        ("-x", "http", "localhost"),
        ("-x", "http", "127.0.0.1"),
        ("-x", "socks5h", "localhost"),
        // Its SNI names whom it wants; the address is what weir is told.
        ("-x", "socks5", "localhost"),
    ] {
        let url = format!("https://{host}:{port}/seen");
        let told = told(site.curl(&[&url]).args([option, &format!("{scheme}://{proxy}")]));
        assert_forwarded(&told);
        assert!(
            told["head"].as_str().is_some_and(|head| head.contains(&format!("Host: {host}:{port}"))),
            "{told}"
        );
    }
    let flows = site.weir.flows(8);
    let (inside, tunnels): (Vec<_>, Vec<_>) = flows.iter().partition(|flow| flow["method"] == "GET");
    assert_eq!((inside.len(), tunnels.len()), (4, 4), "{flows:?}");
    assert!(flows.iter().all(|flow| flow["intercepted"] == true), "{flows:?}");
    assert!(inside.iter().all(|flow| flow["end"] == "complete" && flow["status"] == 200), "{inside:?}");
    assert!(tunnels.iter().all(|flow| flow["end"] == "intercepted"), "{tunnels:?}");
    let by_name = format!("https://localhost:{port}/seen");
    assert_eq!(inside.iter().filter(|flow| flow["url"] == *by_name).count(), 3, "{inside:?}");
    assert_eq!(site.weir.metric("intercepted_total"), 4);
    let (minted, hits) =
        (site.weir.metric("intercept_minted_total"), site.weir.metric("intercept_minted_hits_total"));
    assert_eq!((minted, hits), (2, 2));
    // The session that was verified is the one that carries the request.
    assert_eq!(site.weir.metric("upstream_tls_sessions_total"), 4);
}

#[test]
fn the_certificate_is_for_the_name_that_is_asked_for_and_no_other() {
    let site = Intercepting::start(ALL, "");
    let (_server, port) = site.server(&[]);
    let mut openssl = Command::new("openssl");
    openssl.args([
        "s_client",
        "-verify_return_error",
        "-verify_hostname",
        "localhost",
        "-servername",
        "localhost",
    ]);
    openssl.args([
        "-proxy",
        &site.weir.proxy.to_string(),
        "-connect",
        &format!("localhost:{port}"),
        "-CAfile",
    ]);
    let output = openssl.arg(site.trusted()).stdin(std::process::Stdio::null()).output().expect("openssl");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("Verify return code: 0 (ok)") && text.contains("issuer=O = weir, CN = weir CA "),
        "{text}"
    );
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-ext", "subjectAltName,extendedKeyUsage,basicConstraints"]);
    let mut child = openssl
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("openssl runs");
    child.stdin.take().expect("a pipe").write_all(&output.stdout).expect("it reads");
    let shown = String::from_utf8_lossy(&child.wait_with_output().expect("it ends").stdout).into_owned();
    assert!(shown.contains("DNS:localhost\n") && shown.contains("TLS Web Server Authentication"), "{shown}");
    assert!(shown.contains("CA:FALSE") && !shown.contains("127.0.0.1"), "{shown}");
}

#[test]
fn python_and_node_are_served() {
    let site = Intercepting::start(ALL, "");
    let (_server, port) = site.server(&[]);
    let url = format!("https://localhost:{port}/seen");
    let (proxy, trusted) = (format!("http://{}", site.weir.proxy), site.trusted().display().to_string());
    let requests = "import sys, requests\n\
        session = requests.Session()\n\
        session.proxies, session.verify = {'https': sys.argv[2]}, sys.argv[3]\n\
        session.trust_env = False\n\
        first, last = session.get(sys.argv[1]), session.post(sys.argv[1], data=b'x' * 100)\n\
        assert first.status_code == last.status_code == 200\n\
        print(last.text)\n";
    let mut python = Command::new(venv::python());
    assert_forwarded(&told(python.args(["-c", requests, &url, &proxy, &trusted])));
    let fetch = "const [modules, url, proxy, ca] = process.argv.slice(1);\n\
        const { fetch, ProxyAgent } = require(modules + '/undici');\n\
        const requestTls = { ca: require('fs').readFileSync(ca) };\n\
        const dispatcher = new ProxyAgent({ uri: proxy, requestTls });\n\
        fetch(url, { dispatcher }).then((answer) => answer.text()).then((text) => {\n\
          console.log(text); process.exit(0);\n\
        });\n";
    let mut node = Command::new("node");
    node.args(["-e", fetch]).arg(venv::node_modules()).args([&url, &proxy, &trusted]);
    assert_forwarded(&told(&mut node));
    let inside = site.weir.flows(4).into_iter().filter(|flow| flow["method"] == "GET").count();
    assert!(inside >= 2);
}

#[test]
fn http2_is_spoken_where_the_server_speaks_it() {
    let site = Intercepting::start(ALL, "");
    let identity = site.authority.issue("nginx", "DNS:localhost,IP:127.0.0.1");
    let nginx = Nginx::start(&identity, &[]);
    let url = format!("https://localhost:{}/shown", nginx.tls_port);
    let version = ["-o", "/dev/null", "-w", "%{http_version}"];
    assert_eq!(scripts::stdout(site.curl(&[&url]).args(version)), "2");
    assert!(scripts::stdout(&mut site.curl(&[&url])).starts_with("HTTP/2.0 GET /shown via=2 weir-"));
    assert_eq!(scripts::stdout(site.curl(&["--http1.1", &url]).args(version)), "1.1");
    // A server that has no HTTP/2 is not spoken for as if it had.
    let (_server, port) = site.server(&[]);
    let url = format!("https://localhost:{port}/seen");
    assert_eq!(scripts::stdout(site.curl(&[&url]).args(version)), "1.1");
    assert_eq!(told(&mut site.curl(&[&url]))["alpn"], "http/1.1");
}

#[test]
fn a_response_is_stored_once_for_all_who_come_by_whatever_way() {
    let site = Intercepting::start(ALL, "cache: {enabled: true}");
    let (_server, port) = site.server(&[]);
    let url = format!("https://localhost:{port}/fresh");
    let first = scripts::stdout(&mut site.curl(&[&url]));
    let second = scripts::stdout(&mut site.curl(&["-i", &url]));
    assert!(second.ends_with(&first) && second.contains("Cache-Status: weir; hit"), "{second}");
    // The same URL asked for in absolute-form.
    let asked = format!("GET {url} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    let answer = weir_tests::http::send(site.weir.proxy, asked.as_bytes()).expect("an answer");
    assert_eq!(answer.text(), first);
    assert_eq!(site.weir.metric("cache_hits_total"), 2);
}

#[test]
fn filters_and_rules_hold_inside() {
    let site = Intercepting::start(
        ALL,
        "security:\n  filtering: {domains: {blocked: ['||localhost^*/tracked']}}\n\
         \x20 acl: {rules: [{name: no-post, methods: [POST], action: deny}]}\n\
         \x20 header_rules:\n    - {direction: request, set: ['X-Added: by weir']}\n\
         \x20   - {direction: response, set: ['X-Seen: by weir']}\n",
    );
    let (_server, port) = site.server(&[]);
    let url = |path: &str| format!("https://localhost:{port}{path}");
    let status = |arguments: &[&str]| {
        scripts::stdout(site.curl(arguments).args(["-o", "/dev/null", "-w", "%{http_code}"]))
    };
    assert_eq!(status(&[&url("/tracked")]), "403");
    assert_eq!(status(&["-d", "x", &url("/seen")]), "403");
    let seen = scripts::stdout(&mut site.curl(&["-i", &url("/seen")]));
    assert!(seen.contains("X-Added: by weir") && seen.contains("\nX-Seen: by weir"), "{seen}");
    let flows = site.weir.flows(6);
    let refused: Vec<_> = flows.iter().filter(|flow| flow["status"] == 403).collect();
    assert!(refused.len() == 2 && refused.iter().all(|flow| flow["verdict_rule"].is_string()), "{flows:?}");
}

#[test]
fn a_request_is_for_the_server_that_the_connection_was_opened_to() {
    let site = Intercepting::start(ALL, "");
    let (_server, port) = site.server(&[]);
    let url = format!("https://localhost:{port}/seen");
    let status = |arguments: &[&str]| {
        scripts::stdout(site.curl(arguments).args(["-o", "/dev/null", "-w", "%{http_code}"]))
    };
    for host in ["other.example", "127.0.0.1", &format!("other.example:{port}"), "localhost"] {
        assert_eq!(status(&["-H", &format!("Host: {host}"), &url]), "421", "{host}");
    }
    assert_eq!(status(&["-H", &format!("Host: LOCALHOST.:{port}"), &url]), "200");
    // The ClientHello names another server than CONNECT: nobody is asked.
    let before = site.weir.metric("upstream_tls_sessions_total");
    let to = format!("front.example:{port}:localhost:{port}");
    assert_eq!(status(&["--connect-to", &to, &format!("https://front.example:{port}/")]), "421");
    assert_eq!(site.weir.metric("upstream_tls_sessions_total"), before);
    assert_eq!(site.weir.metric("intercept_misdirected_total"), 1);
}

#[test]
fn the_authority_outlives_weir_and_is_nobody_elses() {
    let authority = weir_tests::certificates::Authority::new();
    let overlay = Intercepting::overlay(&authority, ALL, "");
    let site = Intercepting { weir: Weir::explicit(&overlay), authority };
    let first = std::fs::read_to_string(site.trusted()).expect("a certificate");
    let Intercepting { weir, authority } = site;
    drop(weir);
    let site = Intercepting { weir: Weir::explicit(&overlay), authority };
    assert_eq!(std::fs::read_to_string(site.trusted()).expect("a certificate"), first);
    // A key that others could have read is not used.
    let mut chmod = Command::new("chmod");
    scripts::stdout(chmod.arg("0644").arg(site.key()));
    let mut weir = Command::new(weir_tests::weir::binary());
    let file = site.authority.folder().join("again.yaml");
    let ports = "server: {port: 0}\nadmin: {port: 0}\ncapture: {mode: off}\n";
    let state =
        format!("admin: {{port: 0, state_dir: '{}'}}\n", site.authority.folder().join("state").display());
    std::fs::write(&file, format!("{}{overlay}", ports.replace("admin: {port: 0}\n", &state)))
        .expect("a file");
    let output = weir.args(["serve", "--config"]).arg(&file).output().expect("weir runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("others may use it (mode 0644)"), "{errors}");
}

#[test]
fn a_client_of_the_tls_listener_is_intercepted_inside_its_session() {
    let authority = weir_tests::certificates::Authority::new();
    let identity = authority.issue("proxy", "DNS:localhost,IP:127.0.0.1");
    let listener = format!(
        "server: {{tls: {{enabled: true, cert: '{}', key: '{}'}}}}",
        identity.certificate.display(),
        identity.key.display()
    );
    let weir = Weir::explicit(&Intercepting::overlay(&authority, ALL, &listener));
    let site = Intercepting { weir, authority };
    let (_server, port) = site.server(&[]);
    let mut curl = site.curl(&["--proxy-cacert", &site.authority.certificate().display().to_string()]);
    curl.args(["-x", &format!("https://localhost:{}", site.weir.proxy.port())]);
    assert_forwarded(&told(curl.arg(format!("https://localhost:{port}/seen"))));
}

#[test]
fn what_no_rule_matches_passes_unread() {
    let rules = "rules: [{domains: [localhost], action: intercept}]";
    let site = Intercepting::start(rules, "");
    let (_server, port) = site.server(&[]);
    let own = site.authority.certificate().display().to_string();
    let passed = told(site.weir.curl(&["--cacert", &own]).arg(format!("https://127.0.0.1:{port}/seen")));
    assert!(passed["head"].as_str().is_some_and(|head| !head.contains("Via:")), "{passed}");
    assert_forwarded(&told(&mut site.curl(&[&format!("https://localhost:{port}/seen")])));
    // So does what is no TLS at all.
    let echo = weir_tests::http::server("127.0.0.1", |mut stream| {
        let mut bytes = [0; 5];
        if stream.read_exact(&mut bytes).is_ok() {
            let _ = stream.write_all(&bytes);
        }
    });
    let mut stream = site.weir.tunnel(*echo);
    stream.write_all(b"hello").expect("weir takes it");
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).expect("what was sent");
    assert_eq!(&bytes, b"hello");
    drop(stream);
    let intercepted = site.weir.flows(4).iter().filter(|flow| flow["intercepted"] == true).count();
    assert_eq!(intercepted, 2);
}

#[test]
fn secrets_are_nowhere() {
    let site = Intercepting::start(ALL, "logging: {level: trace}\ncache: {enabled: true}");
    let (_server, port) = site.server(&[]);
    let fields = [
        "-H",
        "Cookie: id=canary-cookie",
        "-H",
        "Authorization: Bearer canary-bearer",
        "-u",
        "me:canary-password",
    ];
    let url = format!("https://localhost:{port}/seen?token=canary-token");
    scripts::stdout(site.curl(&fields).arg(&url));
    let _ = site.weir.curl(&fields).arg(&url).output();
    let log = eventually("a log of both", || {
        Some(site.weir.log()).filter(|log| log.matches("CONNECT").count() >= 2)
    });
    let command = |words: &[&str]| scripts::stdout(&mut site.weir.command(words));
    let metrics = weir_tests::http::get(site.weir.admin, "/metrics").expect("metrics").text();
    let told = [log, command(&["flows", "--json"]), command(&["status"]), metrics];
    for secret in ["canary", &site.key_text()] {
        assert!(told.iter().all(|text| !text.contains(secret)), "{secret} is told");
    }
    assert!(Path::new(&site.key()).exists());
}

/// What a context wants for itself holds for it alone, and what rules pass is passed.
#[test]
fn a_context_may_want_it_for_itself() {
    let rules = "rules: [{name: pinned, domains: [pinned.test], action: pass}, {name: web, ports: [1], action: intercept}]";
    let site = Intercepting::start(rules, "security: {auth: {mode: optional}}");
    let (_server, port) = site.server(&[]);
    let context = |intercept: &[&str]| {
        let arguments = [&["context", "create", "--json"], intercept].concat();
        let output = site.weir.command(&arguments).output().expect("weir runs");
        let made: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let word = |name: &str| made[name].as_str().expect("a word").to_owned();
        (word("username"), word("password"))
    };
    let url = format!("https://localhost:{port}/seen");
    let is_intercepted = |identity: Option<&(String, String)>| {
        let mut curl = site.curl(&["-k", &url]);
        if let Some((name, password)) = identity {
            curl.args(["-U", &format!("{name}:{password}")]);
        }
        told(&mut curl)["head"].as_str().is_some_and(|head| head.contains("\r\nVia: 1.1 weir-"))
    };
    let (wants, does_not, plain) =
        (context(&["--intercept", "true"]), context(&["--intercept", "false"]), context(&[]));
    assert!(is_intercepted(Some(&wants)));
    for other in [Some(&does_not), Some(&plain), None] {
        assert!(!is_intercepted(other));
    }
}

#[test]
fn it_is_explained() {
    let rules = "rules: [{name: bank, domains: [bank.test], action: pass}, {name: all, action: intercept}]";
    let inspection =
        "security: {acl: {destinations: {loopback: allow}}, inspection: {enabled: true, requests: false}}";
    let site = Intercepting::start(rules, inspection);
    let explain = |url: &str| scripts::stdout(&mut site.weir.command(&["explain", "--url", url]));
    let text = explain("https://localhost/");
    assert!(text.contains("TLS inside: intercept: rule all of tls.intercept.rules"), "{text}");
    assert!(text.contains("bodies of responses are judged by 1 rules"), "{text}");
    let plain = explain("http://localhost/");
    assert!(!plain.contains("TLS") && plain.contains("judged by"), "{plain}");
}
