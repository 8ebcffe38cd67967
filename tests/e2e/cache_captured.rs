//! Captured traffic and the cache: a Host that nobody has verified is only the claim of who wrote it.

use weir_tests::http::{self, Server};
use weir_tests::weir::Weir;
use weir_tests::{netns, scripts};

fn server(address: &str, answer: &'static str) -> Server {
    http::server(address, move |mut stream| {
        use std::io::Write;
        http::read_head(&mut stream);
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        );
        let _ = stream.write_all(head.as_bytes());
    })
}

/// What a captured program gets from `server`, claiming to ask `host`.
fn ask(weir: &Weir, server: &Server, host: &str) -> String {
    let script = format!(
        "import client\n\
         s = client.connect('{}', {})\n\
         s.sendall(b'GET / HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n')\n\
         data = b''\n\
         while piece := s.recv(65536): data += piece\n\
         print(data.decode().split('\\r\\n\\r\\n')[1], 'hit' if b'weir; hit' in data else 'miss')",
        server.ip(),
        server.port()
    );
    scripts::stdout(&mut weir.exec(&scripts::python(&script))).trim().to_owned()
}

#[test]
fn a_host_that_leads_elsewhere_shares_nothing() {
    netns::enter();
    let weir = Weir::capturing("cache: {enabled: true}");
    let good = server(netns::V4, "good");
    let evil = server(netns::V4, "evil");
    let name = good.to_string();
    // The attacker's own server, under the victim's name.
    assert_eq!(ask(&weir, &evil, &name), "evil miss");
    assert_eq!(ask(&weir, &evil, &name), "evil hit", "for those that go there, it may be stored");
    assert_eq!(ask(&weir, &good, &name), "good miss");
    assert_eq!(ask(&weir, &good, &name), "good hit");
    // The explicit proxy finds the way itself: it shares what was captured under a name that is true.
    let url = format!("http://{name}/");
    let curl = scripts::stdout(&mut weir.curl(&["-D", "-", &url]));
    assert!(curl.contains("weir; hit") && curl.ends_with("good"), "{curl}");
}
