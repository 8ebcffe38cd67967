//! `upstream.rewrites`: servers that are really elsewhere, for every client of the explicit proxy.

use std::io::Write;

use weir_tests::http::Answer;
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{Weir, connect};

fn ask(weir: &Weir, head: &str) -> Answer {
    let mut client = connect(weir.proxy);
    write!(client, "{head}\r\n").expect("weir takes it");
    read_answer(&mut client, "GET").expect("an answer")
}

#[test]
fn requests_and_what_comes_back_are_mapped() {
    let port = weir_tests::weir::free_port();
    let origin = Origin::start(move |request| {
        let host = request.field("host").unwrap_or_default();
        format!(
            "HTTP/1.1 302 Found\r\nLocation: http://{host}/next\r\nSet-Cookie: a=b; Domain=localhost\r\n\
             Content-Length: 0\r\n\r\n"
        )
        .into_bytes()
    });
    let real = origin.address.port();
    let weir = Weir::explicit(&format!(
        "upstream: {{rewrites: [{{hosts: [app.test], ports: [80], to: 'http://localhost:{real}'}}, \
         {{hosts: ['*.old.test'], to: 'http://localhost:{real}'}}]}}\n\
         security: {{acl: {{destinations: {{loopback: allow}}}}}}"
    ));
    let answer =
        ask(&weir, "GET http://app.test/x HTTP/1.1\r\nHost: app.test\r\nOrigin: http://app.test\r\n");
    assert_eq!(answer.field("location"), Some("http://app.test/next"), "{}", answer.head);
    assert_eq!(answer.field("set-cookie"), Some("a=b"), "{}", answer.head);
    let told = &origin.requests()[0];
    assert_eq!(told.field("host"), Some(format!("localhost:{real}").as_str()));
    assert_eq!(told.field("origin"), Some(format!("http://localhost:{real}").as_str()));
    assert_eq!(ask(&weir, "GET http://a.b.old.test:81/ HTTP/1.1\r\nHost: x\r\n").status, 302);
    // Another port of it is not where the rule leads.
    let other = ask(&weir, &format!("GET http://app.test:{port}/ HTTP/1.1\r\nHost: x\r\n"));
    assert!(other.status >= 500, "{}", other.head);
    let mut tunnel = connect(weir.proxy);
    write!(tunnel, "CONNECT app.test:80 HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    assert!(weir_tests::http::read_head(&mut tunnel).starts_with("HTTP/1.1 200 "));
    write!(tunnel, "GET / HTTP/1.1\r\nHost: within\r\n\r\n").expect("the origin takes it");
    assert_eq!(read_answer(&mut tunnel, "GET").expect("an answer").status, 302);
}
