//! Apps below `/proxy/{id}/`: named by the configuration and by the admin API, with real servers behind them.

use std::io::{Read as _, Write as _};
use std::process::Command;

use serde_json::{Value, json};
use weir_tests::background::Background;
use weir_tests::http;
use weir_tests::scripts;
use weir_tests::served::{app, ask_with, get, told, weir_with};
use weir_tests::venv;
use weir_tests::weir::{Weir, connect, free_port};

#[test]
fn an_app_is_asked_for_what_is_behind_its_prefix() {
    let app = app("one");
    let weir = weir_with(&[("one", &app.port)], "");
    for rest in ["/", "/a/b/?x=/../y&z", "//a//", "/%C3%A4%20b%2B;c=1?%2f..", "/a/?"] {
        let told = told(&get(&weir, &format!("/proxy/one{rest}")));
        assert_eq!(told["target"], rest, "untouched");
        assert_eq!(told["fields"]["x-forwarded-prefix"], "/proxy/one");
        assert_eq!(told["fields"]["x-forwarded-host"], "gate.test:1");
        assert_eq!(told["fields"]["x-forwarded-proto"], "http");
        assert_eq!(told["fields"]["host"], "gate.test:1");
    }
    // What a client claims of a prefix is no prefix.
    let answer =
        ask_with(&weir, "GET", "/proxy/one/", "X-Forwarded-Prefix: /evil\r\nX_Forwarded_Prefix: /evil\r\n");
    assert_eq!(told(&answer)["fields"]["x-forwarded-prefix"], "/proxy/one");
    assert!(!answer.text().contains("evil"), "{}", answer.text());
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let answer = http::send(
            weir.proxy,
            format!(
                "{method} /proxy/one/x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
            )
            .as_bytes(),
        );
        let told = told(&answer.expect("an answer"));
        assert_eq!((&told["method"], &told["body"]), (&method.into(), &"body".into()));
    }
    assert!(weir.metric("service_requests_total") >= 12 && weir.metric("service_failures_total") == 0);
}

#[test]
fn the_slash_behind_the_id_is_asked_for() {
    let app = app("one");
    let weir = weir_with(&[("one", &app.port)], "");
    let answer = get(&weir, "/proxy/one?a=b");
    assert_eq!((answer.status, answer.field("location")), (307, Some("/proxy/one/?a=b")));
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-L", "--noproxy", "*", &format!("http://{}/proxy/one?a=b", weir.proxy)]);
    let told: Value = serde_json::from_str(&scripts::stdout(&mut curl)).expect("JSON");
    assert_eq!(told["target"], "/?a=b");
}

#[test]
fn what_an_app_says_of_itself_is_told_as_its_client_knows_it() {
    let app = app("one");
    let weir = weir_with(&[("one", &app.port)], "");
    for (said, expected) in [
        ("/login", "/proxy/one/login"),
        ("http://gate.test:1/x", "/proxy/one/x"),
        ("https://elsewhere.test/x", "https://elsewhere.test/x"),
        ("next", "next"),
    ] {
        let answer = get(&weir, &format!("/proxy/one/redirect?{said}"));
        assert_eq!((answer.status, answer.field("location")), (302, Some(expected)));
    }
    // Without Host the app can only say where it is itself.
    let answer = get(&weir, &format!("/proxy/one/redirect?http://127.0.0.1:{}/x", app.port));
    assert_eq!(answer.field("location"), Some("/proxy/one/x"));
    let answer = get(&weir, "/proxy/one/cookie");
    assert_eq!(answer.field("set-cookie"), Some("session=one; Path=/proxy/one/; HttpOnly"));
}

#[test]
fn a_websocket_passes() {
    let app = Background::start_with(&venv::python(), "websocket_server.py", &[]);
    let weir = weir_with(&[("chat", &app.port)], "");
    let mut client = connect(weir.proxy);
    client
        .write_all(
            b"GET /proxy/chat/chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
              Sec-WebSocket-Protocol: chat\r\n\r\n",
        )
        .expect("weir takes it");
    let head = http::read_head(&mut client);
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.to_lowercase().contains("sec-websocket-protocol: chat"),
        "{head}"
    );
    // A masked text frame "hi", and its echo.
    client.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).expect("weir takes it");
    let mut echo = [0; 4];
    client.read_exact(&mut echo).expect("an echo");
    assert_eq!(&echo, &[0x81, 2, b'h', b'i']);
}

#[test]
fn services_are_listed_for_programs_and_for_people() {
    let app = app("one");
    let weir = weir_with(&[("one", &app.port), ("gone", &free_port().to_string())], "");
    get(&weir, "/proxy/one/");
    assert_eq!(get(&weir, "/proxy/gone/").status, 503);
    for path in ["/proxy", "/proxy/"] {
        let listed = get(&weir, path).json();
        let of = |name: &str| {
            listed["services"].as_array().unwrap().iter().find(|one| one["name"] == name).cloned()
        };
        assert_eq!(
            of("one").unwrap(),
            json!({ "id": "one", "name": "one", "framework": "generic", "state": "active", "from": "config",
                    "url": "/proxy/one/", "urls": ["/proxy/one/"], "container": null, "reason": null })
        );
        assert_eq!(of("gone").unwrap()["state"], "starting");
    }
    let page = ask_with(&weir, "GET", "/proxy", "Accept: text/html\r\n");
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("<a href=\"/proxy/one/\">one</a>"), "{}", page.text());
    assert_eq!(ask_with(&weir, "POST", "/proxy", "Content-Length: 0\r\n").status, 405);
}

#[test]
fn services_come_and_go_by_the_admin_api() {
    let (one, two) = (app("one"), app("two"));
    let weir = weir_with(&[("one", &one.port)], "");
    assert_eq!(get(&weir, "/proxy/two/").status, 404);
    let target = format!("http://127.0.0.1:{}", two.port);
    let url = scripts::stdout(&mut weir.command(&["services", "add", "two", &target]));
    assert_eq!(url, "/proxy/two/");
    assert_eq!(told(&get(&weir, "/proxy/two/"))["app"], "two");
    assert_eq!(told(&get(&weir, "/proxy/one/"))["app"], "one");
    for (wanted, status) in [
        (json!({ "name": "one", "target": target }), 409),
        (json!({ "name": "two", "target": target }), 409),
        (json!({ "name": "../x", "target": target }), 400),
        (json!({ "name": "x", "target": "two" }), 400),
        (json!({ "name": "x", "target": target, "framework": "no" }), 400),
    ] {
        assert_eq!(weir.api("POST", "/services", Some(&wanted)).0, status, "{wanted}");
    }
    let listed = scripts::stdout(&mut weir.command(&["services", "list"]));
    assert!(
        listed.lines().any(|line| line.starts_with("two two generic ") && line.ends_with(" /proxy/two/")),
        "{listed}"
    );
    assert!(!weir.command(&["services", "remove", "one"]).output().expect("weir runs").status.success());
    scripts::stdout(&mut weir.command(&["services", "remove", "two"]));
    assert_eq!(get(&weir, "/proxy/two/").status, 404);
    // Over TCP, which every local user reaches, nobody adds any.
    let refused = http::send(
        weir.admin,
        format!(
            "POST /services HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
             Connection: close\r\n\r\n{{}}",
            weir.admin
        )
        .as_bytes(),
    );
    assert_eq!(refused.expect("an answer").status, 403);
}

#[test]
fn an_upgrade_keeps_what_was_added() {
    let app = app("one");
    let mut weir = weir_with(&[], "");
    let target = format!("http://127.0.0.1:{}", app.port);
    scripts::stdout(&mut weir.command(&["services", "add", "one", &target, "--framework", "flask"]));
    weir.upgrade(&[]);
    assert_eq!(told(&get(&weir, "/proxy/one/"))["app"], "one");
    assert_eq!(get(&weir, "/proxy").json()["services"][0]["framework"], "flask");
}

#[test]
fn an_app_that_does_not_answer_may_be_starting() {
    let port = free_port();
    let weir = weir_with(&[("late", &port.to_string())], "");
    let answer = ask_with(&weir, "GET", "/proxy/late/", "Accept: text/html\r\n");
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
    assert_eq!(answer.field("refresh"), Some("2"), "a browser asks again on its own");
    assert!(!answer.text().contains(&port.to_string()), "nobody learns where it is: {}", answer.text());
    let _app = Background::start("app.py", &["late", &port.to_string()]);
    assert_eq!(told(&get(&weir, "/proxy/late/"))["app"], "late");
    assert_eq!(weir.metric("service_failures_total"), 1);
}

/// Every way that is known to talk a server into another path than the one that was checked, and then some.
#[test]
fn no_path_leads_out_of_its_app() {
    let (one, two) = (app("one"), app("two"));
    let weir = weir_with(
        &[("one", &one.port), ("two", &two.port)],
        &format!("routing: {{default_backend: 'http://127.0.0.1:{}'}}", two.port),
    );
    let dots = [
        "..",
        "%2e%2e",
        "%2E%2e",
        ".%2e",
        "%2e.",
        "..;",
        "..;x=y",
        "%2e%2e;",
        "..%00",
        "..%09",
        "%c0%ae%c0%ae",
        "%c0%2e%c0%2e",
        "%e0%80%ae%e0%80%ae",
        "%f0%80%80%ae%f0%80%80%ae",
        "%252e%252e",
        "%%32%65%%32%65",
        "%u002e%u002e",
        "..%5c",
        "..%255c",
        "...",
        "....//",
    ];
    let slashes = ["/", "%2f", "%2F", "%5c", "\\", "%252f", "%c0%af", "//"];
    let mut attempts = 0;
    for dot in dots {
        for slash in slashes {
            for rest in ["two/", "health/liveness"] {
                let path = format!("/proxy/one{slash}{dot}{slash}{rest}");
                let answer = get(&weir, &path);
                attempts += 1;
                match answer.status {
                    400 | 404 => {}
                    // Nothing in it is special: then it is the app's, as it was sent.
                    200 => {
                        let told = answer.json();
                        assert_eq!(told["app"], "one", "{path}");
                        assert_eq!(format!("/proxy/one{}", told["target"].as_str().unwrap()), path);
                    }
                    status => panic!("{path}: {status}: {}", answer.text()),
                }
            }
        }
    }
    for path in [
        "//proxy/one/",
        "/%70roxy/one/",
        "/x/../proxy/one/",
        "/proxy%2fone/",
        "/proxy/%6fne/",
        "/proxy/one%00/",
        "/proxy//one/",
        "/proxy/./one/",
        "/proxy/ONE/",
        "/proxy/one;x/",
        "/proxy/.one/",
        "/proxy/-/",
        "/proxy/_stcore/health",
    ] {
        let answer = get(&weir, path);
        attempts += 1;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}: {}", answer.status, answer.text());
    }
    assert!(attempts > 300, "{attempts}");
}

#[test]
fn weir_itself_is_no_app() {
    let weir = weir_with(&[], "");
    for address in [weir.admin, weir.proxy] {
        let wanted = json!({ "name": "own", "target": format!("http://{address}") });
        assert_eq!(weir.api("POST", "/services", Some(&wanted)).0, 201);
        for path in ["/proxy/own/health/liveness", "/proxy/own/proxy/status", "/proxy/own/"] {
            assert_eq!(get(&weir, path).status, 403, "{address} {path}");
        }
        assert_eq!(weir.api("DELETE", "/services/own", None).0, 200);
    }
}

#[test]
fn policy_limits_and_records_are_those_of_all_traffic() {
    let app = app("one");
    let weir = weir_with(
        &[("one", &app.port)],
        "security:\n  acl: {rules: [{name: no-secrets, urls: [/proxy/one/secret/*], action: deny}]}\n  \
         header_rules: [{name: mark, direction: request, paths: [/proxy/one/*], set: ['X-Mark: yes']}]\n\
         server: {limits: {body: 16KiB}}\ncache: {enabled: true}",
    );
    assert_eq!(get(&weir, "/proxy/one/secret/x").status, 403);
    assert_eq!(told(&get(&weir, "/proxy/one/"))["fields"]["x-mark"], "yes");
    let too_long = ask_with(&weir, "POST", "/proxy/one/", "Content-Length: 20000\r\n");
    assert_eq!(too_long.status, 413);
    let first = get(&weir, "/proxy/one/cached");
    let second = get(&weir, "/proxy/one/cached");
    assert_eq!(first.text(), second.text());
    assert_eq!(weir.metric("cache_hits_total"), 1);
    let flows = weir.flows(4);
    let flow = flows.iter().find(|flow| flow["status"] == 403).expect("a flow");
    assert_eq!(flow["front"], "gateway");
    assert!(flow["url"].as_str().unwrap().ends_with("/proxy/one/secret/x"), "{flow:#}");
}

#[test]
fn without_a_prefix_there_are_none() {
    let app = app("one");
    let weir = weir_with(&[], &format!("routing: {{default_backend: 'http://127.0.0.1:{}'}}", app.port));
    assert_eq!(get(&weir, "/proxy/x/").status, 404);
    let weir = Weir::explicit(&format!(
        "services: {{prefix: none}}\nrouting: {{default_backend: 'http://127.0.0.1:{}'}}",
        app.port
    ));
    assert_eq!(told(&get(&weir, "/proxy/x/"))["target"], "/proxy/x/");
}
