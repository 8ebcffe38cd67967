//! What weir says itself, and what it adds to what others say: explanations in the form that was asked for, Date, fields
//! for browsers.

use std::process::Command;

use weir_tests::certificates::Authority;
use weir_tests::http::{self, Answer};
use weir_tests::origin::Origin;
use weir_tests::scripts;
use weir_tests::weir::{Weir, free_port};

fn ask(weir: &Weir, target: &str, fields: &str) -> Answer {
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
    http::send(weir.proxy, request.as_bytes()).expect("an answer")
}

#[test]
fn an_explanation_has_the_form_that_was_asked_for() {
    let weir = Weir::explicit("");
    let url = format!("http://127.0.0.1:{}/<b>", free_port());
    for (accept, media_type, start) in [
        ("", "text/plain; charset=utf-8", "weir: 502 Bad Gateway: no connection to 127.0.0.1:"),
        ("Accept: */*\r\n", "text/plain; charset=utf-8", "weir: 502 "),
        ("Accept: text/html,*/*;q=0.8\r\n", "text/html; charset=utf-8", "<!doctype html>"),
        ("Accept: application/json\r\n", "application/problem+json", "{"),
    ] {
        let answer = ask(&weir, &url, accept);
        assert_eq!((answer.status, answer.field("content-type")), (502, Some(media_type)), "{accept}");
        assert!(answer.text().starts_with(start), "{accept}: {}", answer.text());
        assert!(answer.field("date").is_some_and(|date| date.ends_with(" GMT")), "{}", answer.head);
    }
    let problem = ask(&weir, &url, "Accept: application/json\r\n").json();
    assert_eq!((&problem["status"], &problem["title"]), (&502.into(), &"Bad Gateway".into()));
}

#[test]
fn whoever_asks_the_gateway_learns_nothing_of_what_is_behind_it() {
    let port = free_port();
    for backend in [format!("127.0.0.1:{port}"), "secret.invalid".into()] {
        let weir = Weir::explicit(&format!("routing: {{default_backend: 'http://{backend}'}}"));
        let answer = ask(&weir, "/", "");
        assert_eq!(answer.status, 502, "{}", answer.text());
        let told = format!("{}{}", answer.head, answer.text());
        assert!(!told.contains(&port.to_string()) && !told.contains("secret"), "{told}");
        let flows = weir.flows(1);
        let end = flows[0]["end"].as_str().unwrap_or_default();
        assert!(end.contains(&port.to_string()) || end.contains("secret.invalid"), "{flows:?}");
    }
}

#[test]
fn a_response_without_a_date_gets_one() {
    let weir = Weir::explicit("");
    let dateless = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let answer = ask(&weir, &format!("http://{}/", dateless.address), "");
    let date = answer.field("date").expect("a date");
    // As a program reads it: not far from now.
    let script = "import email.utils, sys, time\n\
                  print(abs(email.utils.parsedate_to_datetime(sys.argv[1]).timestamp() - time.time()) < 100)";
    assert_eq!(scripts::stdout(Command::new("python3").args(["-c", script, date])), "True");
    let dated = "Tue, 15 Nov 1994 08:12:31 GMT";
    let origin = Origin::fixed(&format!("HTTP/1.1 200 OK\r\nDATE: {dated}\r\nContent-Length: 0\r\n\r\n"));
    let answer = ask(&weir, &format!("http://{}/", origin.address), "");
    assert_eq!(answer.head.to_lowercase().matches("date:").count(), 1, "{}", answer.head);
    assert_eq!(answer.field("date"), Some(dated));
}

const FIELDS: [&str; 4] =
    ["x-content-type-options", "x-frame-options", "content-security-policy", "strict-transport-security"];

#[track_caller]
fn check(answer: &Answer, expected: [Option<&str>; 4]) {
    assert_eq!(FIELDS.map(|name| answer.field(name)), expected, "{}", answer.head);
}

#[test]
fn browsers_are_told_to_be_careful() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let backend = format!("routing: {{default_backend: 'http://{}'}}", origin.address);
    let absolute = format!("http://{}/", origin.address);
    let weir = Weir::explicit(&backend);
    check(&ask(&weir, "/", ""), [Some("nosniff"), Some("DENY"), None, None]);
    check(&ask(&weir, &absolute, ""), [None; 4]);

    let headers =
        "frame_options: SAMEORIGIN, explicit: true, content_security_policy: \"default-src 'self'\"";
    let weir = Weir::explicit(&format!("{backend}\nsecurity: {{headers: {{{headers}}}}}"));
    let expected = [Some("nosniff"), Some("SAMEORIGIN"), Some("default-src 'self'"), None];
    check(&ask(&weir, "/", ""), expected);
    check(&ask(&weir, &absolute, ""), expected);

    let off = Weir::explicit(&format!("{backend}\nsecurity: {{headers: {{gateway: false}}}}"));
    check(&ask(&off, "/", ""), [None; 4]);
    // What the server says itself stands.
    let own = Origin::fixed("HTTP/1.1 200 OK\r\nX-FRAME-OPTIONS: ALLOW\r\nContent-Length: 0\r\n\r\n");
    let weir = Weir::explicit(&format!("routing: {{default_backend: 'http://{}'}}", own.address));
    let answer = ask(&weir, "/", "");
    check(&answer, [Some("nosniff"), Some("ALLOW"), None, None]);
    assert_eq!(answer.head.to_lowercase().matches("x-frame-options").count(), 1, "{}", answer.head);
}

#[test]
fn only_tls_promises_tls() {
    let authority = Authority::new();
    let identity = authority.issue("shop", "DNS:shop.example");
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let weir = Weir::explicit(&format!(
        "server: {{tls: {{enabled: true, cert: '{}', key: '{}'}}}}\nrouting: {{default_backend: 'http://{}'}}",
        identity.certificate.display(),
        identity.key.display(),
        origin.address
    ));
    let port = weir.proxy.port();
    let mut curl = Command::new("curl");
    curl.args(["-sSi", "--noproxy", "*", "--resolve", &format!("shop.example:{port}:127.0.0.1"), "--cacert"]);
    curl.arg(authority.certificate()).arg(format!("https://shop.example:{port}/"));
    let told = scripts::stdout(&mut curl).to_lowercase();
    assert!(told.contains("strict-transport-security: max-age=31536000"), "{told}");
}
