//! `security.filtering` and `security.acl.rules` for clients of the explicit proxy and of the gateway: what is refused, how
//! that is told, and how lists are read again.

use std::io::Write as _;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use weir_tests::http::{self, Answer};
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{Weir, connect, eventually};

/// The status and what curl has written.
fn curl(weir: &Weir, arguments: &[&str]) -> (String, String) {
    let output =
        weir.curl(&["-m", "20", "-w", "\n%{http_code}"]).args(arguments).output().expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.to_owned(), body.to_owned())
}

fn ask(weir: &Weir, request: &str) -> Answer {
    let mut stream = connect(weir.proxy);
    stream.write_all(request.as_bytes()).expect("weir takes the request");
    read_answer(&mut stream, "GET").expect("an answer")
}

fn rewrite(weir: &Weir, overlay: &str) {
    std::fs::write(weir.folder().join("overlay.yaml"), overlay).expect("a file in a temporary folder");
}

#[test]
fn what_is_blocked_is_told_with_the_rule() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let weir = Weir::explicit(
        "security: {filtering: {domains: {blocked: ['||ads.example^', '/track/*'], allowed: [good.ads.example]}}}\n",
    );
    let server = origin.address;
    assert_eq!(curl(&weir, &[&format!("http://{server}/")]), ("200".into(), "ok".into()));

    let (status, page) = curl(&weir, &["-H", "Accept: text/html", "http://x.ads.example/"]);
    assert_eq!(status, "403");
    assert!(
        page.contains("<h1>403 Forbidden</h1>") && page.contains("`||ads.example^` of security.filtering"),
        "{page}"
    );
    let (status, json) =
        curl(&weir, &["-H", "Accept: application/json", &format!("http://{server}/track/1")]);
    let problem: Value = serde_json::from_str(&json).expect("a problem document");
    assert_eq!((status.as_str(), &problem["status"]), ("403", &403.into()));
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert_eq!(
        detail,
        format!("{server} is blocked; refused by `/track/*` of security.filtering.domains.blocked")
    );
    // A name that is excepted is only not there.
    assert_eq!(curl(&weir, &["http://good.ads.example/"]).0, "502");
    // A tunnel, too, by HTTP and by SOCKS5.
    let output = weir.curl(&["-m", "20", "https://ads.example/"]).output().expect("curl runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("403"), "{errors}");
    let socks = format!("socks5h://{}", weir.proxy);
    let output =
        Command::new("curl").args(["-sSm20", "--noproxy", "", "-x", &socks, "https://ads.example/"]).output();
    let errors = String::from_utf8_lossy(&output.expect("curl runs").stderr).into_owned();
    assert!(errors.contains("SOCKS5") && errors.contains("(2)"), "{errors}");

    let flows = weir.flows(6);
    let refused: Vec<&Value> = flows.iter().filter(|flow| flow["end"] == "denied").collect();
    assert_eq!(refused.len(), 4, "{flows:?}");
    for flow in &refused {
        assert!(
            flow["verdict_rule"].as_str().is_some_and(|rule| rule.contains("of security.filtering")),
            "{flow}"
        );
    }
    assert_eq!((weir.metric("denied_total"), weir.metric("denied_by_lists_total")), (4, 4));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn only_what_is_allowed_passes() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let weir = Weir::explicit(&format!(
        "security: {{filtering: {{mode: allowlist, domains: {{allowed: [localhost, gate.example]}}}}}}\n\
         routing: {{default_backend: 'http://{}'}}\n",
        origin.address
    ));
    let port = origin.address.port();
    assert_eq!(curl(&weir, &[&format!("http://localhost:{port}/")]).0, "200");
    // Whether the system's resolver knows it is another question.
    assert_ne!(curl(&weir, &[&format!("http://LocalHost.:{port}/")]).0, "403");
    let (status, text) = curl(&weir, &[&format!("http://127.0.0.1:{port}/")]);
    assert_eq!(status, "403");
    assert_eq!(
        text,
        format!(
            "weir: 403 Forbidden: 127.0.0.1:{port} is not on the list of what is allowed; refused by \
             security.filtering.mode: allowlist\n"
        )
    );
    // The gateway is judged by the same lists; what is weir's own is not.
    let host = |host: &str| {
        ask(&weir, &format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).status
    };
    assert_eq!((host("gate.example"), host("other.example")), (200, 403));
    assert_eq!(http::get(weir.proxy, "/proxy.pac").expect("an answer").status, 200);
}

#[test]
fn rules_decide_by_client_method_port_name_and_address() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let port = origin.address.port();
    let weir = Weir::explicit(&format!(
        "security:\n  acl:\n    destinations: {{loopback: deny}}\n    rules:\n\
         \x20   - {{name: no-tunnels, methods: [CONNECT], ports: [1-{0}, {1}-65535], action: deny}}\n\
         \x20   - {{name: no-delete, clients: [127.0.0.0/8], methods: [DELETE], action: deny}}\n\
         \x20   - {{name: names, domains: [blocked.example], action: deny}}\n\
         \x20   - {{name: private, urls: [/private/*], action: deny}}\n\
         \x20   - {{name: this-one, destinations: [127.0.0.1], ports: [{port}], action: allow}}\n\
         \x20   - {{name: documentation, destinations: [192.0.2.0/24], action: deny}}\n",
        port - 1,
        port + 1
    ));
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    // A rule that names the address lifts its class, for what has no name as for what has one.
    assert_eq!(curl(&weir, &[&url("/")]).0, "200");
    assert_eq!(curl(&weir, &[&format!("http://localhost:{port}/")]).0, "200");
    assert_eq!(curl(&weir, &["-p", &url("/")]).0, "200");
    let refused = |arguments: &[&str], rule: &str| {
        let (status, text) = curl(&weir, arguments);
        assert!(status == "403" && text.contains(&format!("`{rule}`")), "{arguments:?}: {status} {text}");
    };
    refused(&["-X", "DELETE", &url("/")], "no-delete");
    refused(&["http://blocked.example/"], "names");
    refused(&[&url("/a/%70rivate/b")], "private");
    refused(&["http://192.0.2.1/"], "documentation");
    refused(&["http://3221225985/"], "documentation");
    let output = weir.curl(&["-p", "http://127.0.0.1:9/"]).output().expect("curl runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("403"), "{output:?}");
    // Other addresses of that class stay what they were.
    let (status, text) = curl(&weir, &[&format!("http://127.0.0.2:{port}/")]);
    assert!(status == "403" && text.contains("security.acl.destinations.loopback"), "{text}");
    assert_eq!(weir.metric("denied_by_rules_total"), 6);
    // weir itself can't be reached in this way.
    rewrite(&weir, "security: {acl: {rules: [{destinations: [127.0.0.0/8], action: allow}]}}\n");
    assert!(weir.command(&["policy", "reload"]).status().expect("weir runs").success());
    let (status, text) = curl(&weir, &[&format!("http://{}/", weir.admin)]);
    assert!(status == "403" && text.contains("weir's own"), "{text}");
}

/// Lists are replaced as a whole, while requests pass; what is wrong changes nothing.
#[test]
fn lists_are_read_again_without_a_gap() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let list = folder.path().join("list.txt");
    // A long list, of which one half always blocks.
    let write = |name: &str| {
        let lines: String = (0..50_000).map(|number| format!("0.0.0.0 host{number}.example\n")).collect();
        let new = folder.path().join("new");
        std::fs::write(&new, format!("{lines}||{name}^\n||always.example^\n")).expect("a file");
        std::fs::rename(&new, &list).expect("a file");
    };
    write("one.example");
    let weir = Weir::explicit(&format!(
        "security: {{filtering: {{domains: {{blocked_files: ['{}']}}}}}}\n",
        list.display()
    ));
    let status = |name: &str| {
        ask(&weir, &format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"))
            .status
    };
    assert_eq!((status("one.example"), status("two.example")), (403, 502));
    let mut kept = connect(weir.proxy);
    let ok = format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.address);
    let pass = |stream: &mut std::net::TcpStream| {
        stream.write_all(ok.as_bytes()).expect("weir takes the request");
        assert_eq!(read_answer(stream, "GET").expect("an answer").status, 200);
    };
    pass(&mut kept);
    write("two.example");
    weir.signal(Signal::SIGHUP);
    eventually("the new list", || {
        assert_eq!(status("always.example"), 403, "a gap");
        pass(&mut kept);
        (status("two.example") == 403).then_some(())
    });
    assert_eq!(status("one.example"), 502);
    // A list that is gone, and a configuration that is wrong.
    std::fs::remove_file(&list).expect("the list");
    let reload = weir.command(&["policy", "reload"]).output().expect("weir runs");
    let errors = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert!(!reload.status.success() && errors.contains("can't be read"), "{errors}");
    rewrite(&weir, "security: {filtering: {mode: greylist}}\n");
    let reload = weir.command(&["policy", "reload"]).output().expect("weir runs");
    let errors = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert!(errors.contains("`greylist` is not one of blocklist, allowlist"), "{errors}");
    assert_eq!(status("two.example"), 403);
    pass(&mut kept);
    // What changes is noticed without being told.
    rewrite(
        &weir,
        &format!("security: {{filtering: {{domains: {{blocked_files: ['{}']}}}}}}\n", list.display()),
    );
    write("three.example");
    eventually("the changed list to be noticed", || (status("three.example") == 403).then_some(()));
    let shown = weir.command(&["policy", "show"]).output().expect("weir runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("blocklist: 50002 entries blocked, 0 allowed"), "{shown}");
}

#[test]
fn explain_tells_the_rule() {
    let weir =
        Weir::explicit("security: {filtering: {domains: {blocked: ['||ads.example^', '/track/*']}}}\n");
    for (url, expected) in [
        ("https://a.ads.example/", "deny: a.ads.example:443 is blocked; refused by `||ads.example^`"),
        ("http://127.0.0.1:81/track/", "deny: 127.0.0.1:81 is blocked; refused by `/track/*`"),
        ("http://127.0.0.1:81/", "allow"),
    ] {
        let output = weir.command(&["explain", "--url", url]).output().expect("weir runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.starts_with(expected), "{url}: {text}");
    }
}
