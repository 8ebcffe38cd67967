//! `security.header_rules`: what servers and clients see of each other's fields.

use std::io::Write as _;

use weir_tests::http2;
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{Weir, connect};

const RULES: &str = "security:\n  header_rules:\n\
    \x20   - {direction: request, remove: [cookie], set: ['DNT: 1', 'User-Agent: weir'], add: ['X-Add: b']}\n\
    \x20   - {direction: request, paths: [/private/*], add: ['X-Private: yes']}\n\
    \x20   - {direction: request, hosts: [other.test], set: ['X-Other: yes']}\n\
    \x20   - {direction: response, remove: [Server, X-Powered-By], set: ['Cache-Control: no-store']}\n";

#[test]
fn fields_are_changed_both_ways() {
    let origin = Origin::fixed(
        "HTTP/1.1 200 OK\r\nServer: x\r\nX-Powered-By: y\r\nCache-Control: max-age=1\r\nContent-Length: 2\r\n\r\nok",
    );
    let weir = Weir::explicit(&format!("{RULES}routing: {{default_backend: 'http://{}'}}\n", origin.address));
    let server = origin.address;
    let sent = "User-Agent: a\r\nuser-agent: b\r\nCookie: c=d\r\nX-Add: a\r\n";
    let mut stream = connect(weir.proxy);
    for (target, private) in [
        (format!("http://{server}/"), false),
        (format!("http://{server}/private/%2e./private/x?y"), true),
        ("/privates".to_owned(), false),
        ("/private".to_owned(), true),
    ] {
        write!(stream, "GET {target} HTTP/1.1\r\nHost: {server}\r\n{sent}\r\n").expect("weir reads");
        let answer = read_answer(&mut stream, "GET").expect("an answer");
        assert_eq!((answer.field("server"), answer.field("x-powered-by")), (None, None));
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        let seen = origin.requests().pop().expect("a request").head.to_lowercase();
        assert!(seen.contains("\r\ndnt: 1\r\n") && seen.contains("\r\nuser-agent: weir\r\n"), "{seen}");
        assert_eq!(seen.matches("user-agent:").count(), 1, "{seen}");
        assert!(seen.contains("\r\nx-add: a\r\n") && seen.contains("\r\nx-add: b\r\n"), "{seen}");
        assert!(!seen.contains("cookie") && !seen.contains("x-other"), "{seen}");
        assert_eq!(seen.contains("x-private: yes"), private, "{target}: {seen}");
    }
}

#[test]
fn over_http2_as_well() {
    let origin = http2::Server::start();
    let weir = Weir::explicit(&format!("{RULES}upstream: {{http2: {{prior_knowledge: [127.0.0.1]}}}}\n"));
    let mut curl = weir.curl(&["-H", "Cookie: c=d", "-D", "-", "-o", "/dev/null"]);
    let output = curl.arg(format!("http://{}/", origin.address)).output().expect("curl runs");
    let head = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert!(head.contains("cache-control: no-store"), "{head}");
    let seen = origin.heads().pop().expect("a request");
    assert_eq!(seen.headers().get("dnt").and_then(|value| value.to_str().ok()), Some("1"), "{seen:?}");
    assert!(seen.headers().get("cookie").is_none(), "{seen:?}");
}
