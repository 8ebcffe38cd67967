//! Contexts with a route: what their clients take for their own machine is somewhere else, and they can't tell.

use std::io::{Read as _, Write as _};
use std::process::{Command, Output};

use serde_json::Value;
use weir_tests::background::Background;
use weir_tests::certificates::Authority;
use weir_tests::origin::read_answer;
use weir_tests::weir::{Weir, connect};
use weir_tests::{hosts, http, netns, scripts};

const ROUTE: [&str; 6] =
    ["--route", "morph_id=M1", "--route", "scope=base", "--route", "domain_suffix=cmux.test"];

struct Site {
    weir: Weir,
    user: String,
    _origin: Background,
    _authority: Authority,
}

/// A weir with a context that leads to names of cmux.test, and an origin there.
fn site(overlay: &str) -> Site {
    netns::enter();
    hosts::enter("127.0.0.1 cmux-m1-base-3000.cmux.test cmux-m1-base-8080.cmux.test");
    let authority = Authority::new();
    let identity = authority.issue("origin", "DNS:*.cmux.test");
    let path = |path: &std::path::Path| path.display().to_string();
    let files = [path(&identity.certificate), path(&identity.key)];
    let origin = Background::start("routed_origin.py", &[&files[0], &files[1]]);
    let weir = Weir::explicit(&format!(
        "upstream: {{tls: {{roots: ['{}'], system_roots: false}}}}\ncache: {{enabled: true}}\n\
         security:\n  auth: {{mode: required}}\n{overlay}",
        path(&authority.certificate())
    ));
    let made = weir.command(&["context", "create", "--json"]).args(ROUTE).output().expect("weir runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    let user = format!("{}:{}", text("username"), text("password"));
    Site { weir, user, _origin: origin, _authority: authority }
}

fn curl(site: &Site, arguments: &[&str]) -> Output {
    site.weir.curl(&["-m", "30", "-U", &site.user]).args(arguments).output().expect("curl runs")
}

#[track_caller]
fn told(site: &Site, arguments: &[&str]) -> Value {
    let output = curl(site, arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{arguments:?}: {error}: {}\n{errors}", String::from_utf8_lossy(&output.stdout))
    })
}

#[test]
fn loopback_leads_there_in_every_way_of_asking() {
    let site = site("");
    let ways: [(&str, &[&str]); 7] = [
        ("http://localhost:3000/a?b", &[]),
        ("http://127.0.0.1:3000/a?b", &[]),
        ("http://127.9.8.7:3000/a?b", &[]),
        ("http://[::1]:3000/a?b", &[]),
        ("http://localhost:3000/a?b", &["-p"]),
        ("http://app.localhost:3000/a?b", &["-p"]),
        ("http://localhost:3000/a?b", &["--socks5-hostname"]),
    ];
    for (url, options) in ways {
        let proxy = site.weir.proxy.to_string();
        let mut arguments = options.to_vec();
        if options.first() == Some(&"--socks5-hostname") {
            arguments.push(&proxy);
        }
        arguments.extend(["-H", "Origin: http://localhost:3000", "-e", "http://localhost:8080/from", url]);
        let seen = told(&site, &arguments);
        assert_eq!(seen["host"], "cmux-m1-base-3000.cmux.test", "{url} {options:?}");
        assert_eq!((&seen["path"], &seen["proxy-authorization"]), (&"/a?b".into(), &Value::Null), "{seen}");
        assert_eq!(seen["origin"], "https://cmux-m1-base-3000.cmux.test", "{seen}");
        assert_eq!(seen["referer"], "https://cmux-m1-base-8080.cmux.test/from", "{seen}");
    }
    assert_eq!(told(&site, &["http://localhost:8080/"])["host"], "cmux-m1-base-8080.cmux.test");
    let flows = site.weir.flows(8);
    let led = flows.iter().filter(|flow| flow["authority"] == "cmux-m1-base-3000.cmux.test:443");
    assert_eq!(led.count(), 7, "{flows:?}");
}

#[test]
fn what_comes_back_is_told_as_the_client_knows_it() {
    let site = site("");
    for option in ["-v", "-p"] {
        let head =
            curl(&site, &[option, "-D", "-", "--suppress-connect-headers", "http://localhost:3000/redirect"]);
        let head = String::from_utf8_lossy(&head.stdout).into_owned();
        for line in [
            "Location: http://localhost:3000/after?x=1",
            "Set-Cookie: plain=1; Path=/",
            "Set-Cookie: wide=1; Secure",
            "Access-Control-Allow-Origin: http://localhost:3000",
        ] {
            assert!(head.lines().any(|found| found.eq_ignore_ascii_case(line)), "{option}: {line}:\n{head}");
        }
    }
    // curl follows it, with the cookies.
    let seen = told(&site, &["-L", "-c", "/dev/null", "http://localhost:3000/redirect"]);
    assert_eq!((&seen["path"], &seen["host"]), (&"/after?x=1".into(), &"cmux-m1-base-3000.cmux.test".into()));
    assert!(seen["cookie"].as_str().is_some_and(|cookie| cookie.contains("plain=1")), "{seen}");
}

#[test]
fn upgrades_are_led_there_by_request_and_by_tunnel() {
    let site = site("");
    let script = format!("import base64; print(base64.b64encode(b'{}').decode())", site.user);
    let token = scripts::stdout(Command::new("python3").args(["-c", &script]));
    let upgrade = "Connection: upgrade\r\nUpgrade: echo\r\n";
    let by_request = format!(
        "GET ws://localhost:3000/socket HTTP/1.1\r\nHost: localhost:3000\r\nProxy-Authorization: Basic {token}\r\n{upgrade}\r\n"
    );
    let by_tunnel = format!(
        "CONNECT localhost:3000 HTTP/1.1\r\nHost: localhost:3000\r\nProxy-Authorization: Basic {token}\r\n\r\n"
    );
    let inside = format!("GET /socket HTTP/1.1\r\nHost: localhost:3000\r\n{upgrade}\r\n");
    // No tunnel within a tunnel: there could be one more each time.
    let mut stream = connect(site.weir.proxy);
    stream.write_all(by_tunnel.as_bytes()).expect("weir reads");
    assert!(http::read_head(&mut stream).starts_with("HTTP/1.1 200 "));
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost:3000\r\n\r\n").expect("weir reads");
    assert_eq!(read_answer(&mut stream, "GET").expect("an answer").status, 200);
    stream.write_all(by_tunnel.as_bytes()).expect("weir reads");
    let head = http::read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    for (first, second) in [(&by_request, None), (&by_tunnel, Some(&inside))] {
        let mut stream = connect(site.weir.proxy);
        stream.write_all(first.as_bytes()).expect("weir reads");
        if let Some(second) = second {
            let head = http::read_head(&mut stream);
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            stream.write_all(second.as_bytes()).expect("weir reads");
        }
        let head = http::read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}\n{}", site.weir.log());
        stream.write_all(b"hello").expect("weir reads");
        let mut echoed = [0; 5];
        stream.read_exact(&mut echoed).expect("an echo");
        assert_eq!(&echoed, b"hello");
    }
}

/// The rewrite comes before the check: what is judged is where it goes.
#[test]
fn only_a_context_with_a_route_is_led_elsewhere_and_policy_judges_where_to() {
    let overlay = "  filtering: {domains: {blocked: ['cmux-m1-base-8080.cmux.test']}}\n  \
                   acl: {destinations: {loopback: deny}, rules: [{destinations: [127.0.0.1], ports: [443], action: allow}]}\n";
    let site = site(overlay);
    assert_eq!(told(&site, &["http://localhost:3000/"])["host"], "cmux-m1-base-3000.cmux.test");
    let status = |user: &str, url: &str| {
        let output =
            site.weir.curl(&["-m", "30", "-U", user, "-o", "/dev/null", "-w", "%{http_code}", url]).output();
        String::from_utf8_lossy(&output.expect("curl runs").stdout).into_owned()
    };
    assert_eq!(status(&site.user, "http://localhost:8080/"), "403");
    let other = site.weir.command(&["context", "create", "--json"]).output().expect("weir runs");
    let other: Value = serde_json::from_slice(&other.stdout).expect("JSON");
    let text = |name: &str| other[name].as_str().expect("text").to_owned();
    let other = format!("{}:{}", text("username"), text("password"));
    assert_eq!(status(&other, "http://localhost:3000/"), "403");
    let wrong = site.weir.command(&["context", "create", "--route", "scope=x"]).output().expect("weir runs");
    let errors = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && errors.contains("needs `morph_id`"), "{errors}");
}
