//! Max-Forwards (RFC 9110 §7.6.2): how far TRACE and OPTIONS go.

use std::process::Command;

use weir_tests::http;
use weir_tests::origin::Origin;
use weir_tests::weir::Weir;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn ask(weir: &Weir, line: &str, fields: &str) -> http::Answer {
    let request = format!("{line}\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
    http::send(weir.proxy, request.as_bytes()).expect("an answer")
}

#[test]
fn what_is_to_go_no_further_is_answered_here() {
    let origin = Origin::fixed(OK);
    let weir = Weir::explicit(&format!("routing: {{default_backend: 'http://{}'}}", origin.address));
    for target in [format!("http://{}/a?b", origin.address), "/a?b".to_owned()] {
        let line = format!("TRACE {target} HTTP/1.1");
        let secrets = "Cookie: a=b\r\nAuthorization: Basic x\r\nProxy-Authorization: Basic y\r\n";
        let answer = ask(&weir, &line, &format!("Max-Forwards: 0\r\nX-Seen: 1\r\n{secrets}"));
        assert_eq!(
            (answer.status, answer.field("content-type")),
            (200, Some("message/http")),
            "{}",
            answer.head
        );
        let text = answer.text();
        assert!(
            text.starts_with(&format!("{line}\r\nHost: x\r\n")) && text.contains("X-Seen: 1\r\n"),
            "{text}"
        );
        assert!(text.contains("\r\nVia: 1.1 weir-") && text.ends_with("\r\n\r\n"), "{text}");
        assert!(!text.contains("Basic") && !text.contains("Cookie"), "{text}");
        let answer = ask(&weir, &format!("OPTIONS {target} HTTP/1.1"), "Max-Forwards: 0\r\n");
        assert_eq!((answer.status, answer.text().as_str()), (200, ""));
        assert!(answer.field("allow").is_some_and(|allow| allow.contains("CONNECT")), "{}", answer.head);
    }
    assert!(origin.requests().is_empty());
    let curl = ["-sS", "--noproxy", "*", "--http2-prior-knowledge", "-X", "TRACE", "-H", "Max-Forwards: 0"];
    let output = Command::new("curl").args(curl).arg(format!("http://{}/", weir.proxy)).output();
    let text = String::from_utf8_lossy(&output.expect("curl runs").stdout).into_owned();
    assert!(text.starts_with("TRACE / HTTP/2\r\n"), "{text}");
}

#[test]
fn what_goes_on_goes_on_with_one_less() {
    let (weir, origin) = (Weir::explicit(""), Origin::fixed(OK));
    for (method, sent, expected) in [
        ("TRACE", "Max-Forwards: 1\r\n", Some("0")),
        ("OPTIONS", "max-forwards: 010\r\n", Some("9")),
        ("OPTIONS", "", None),
        // RFC 9110 §7.6.2: only these two methods have it.
        ("GET", "Max-Forwards: 0\r\n", Some("0")),
        ("POST", "Max-Forwards: x\r\nContent-Length: 0\r\n", Some("x")),
    ] {
        let answer = ask(&weir, &format!("{method} http://{}/ HTTP/1.1", origin.address), sent);
        assert_eq!(answer.text(), "ok", "{method} {sent}");
        let request = origin.requests().pop().expect("a request");
        assert_eq!((request.method(), request.field("max-forwards")), (method, expected), "{sent}");
    }
}

#[test]
fn what_can_t_be_counted_is_refused() {
    let (weir, origin) = (Weir::explicit(""), Origin::fixed(OK));
    for fields in [
        "Max-Forwards: x\r\n",
        "Max-Forwards: -1\r\n",
        "Max-Forwards:\r\n",
        "Max-Forwards: 1, 1\r\n",
        "Max-Forwards: 1\r\nMax-Forwards: 1\r\n",
    ] {
        let answer = ask(&weir, &format!("TRACE http://{}/ HTTP/1.1", origin.address), fields);
        assert_eq!(answer.status, 400, "{fields}");
    }
    let most = "Max-Forwards: 99999999999999999999999\r\n";
    assert_eq!(ask(&weir, &format!("TRACE http://{}/ HTTP/1.1", origin.address), most).status, 200);
    let content = "Max-Forwards: 0\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(ask(&weir, &format!("TRACE http://{}/ HTTP/1.1", origin.address), content).status, 400);
    assert_eq!(origin.requests().len(), 1);
}
