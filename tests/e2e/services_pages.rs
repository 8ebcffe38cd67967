//! Pages of apps below `/proxy/{id}/`: what they refer to, and what they ask for without their prefix.

use std::process::Command;

use weir_tests::http;
use weir_tests::scripts;
use weir_tests::served::{app, ask_with, get, told, weir_with};
use weir_tests::weir::Weir;

/// What a page asks for without its prefix: by its page, by the app that the browser was at last, by whose files are so
/// called; and never what a route is for.
#[test]
fn what_lacks_its_prefix_is_found() {
    let (one, two, backend) = (app("one"), app("two"), app("backend"));
    let apps = [("one", &*one.port), ("two", &*two.port)];
    let weir = weir_with(&apps, "");
    let page = "Referer: http://gate.test:1/proxy/two/page?x\r\n";
    let answer = ask_with(&weir, "GET", "/static/x.js?v=1", page);
    assert_eq!((answer.status, answer.field("location")), (307, Some("/proxy/two/static/x.js?v=1")));
    // What has content is not asked for twice.
    let answer = ask_with(&weir, "POST", "/api/?q=%2F", &format!("{page}Content-Length: 0\r\n"));
    assert_eq!((&told(&answer)["app"], &told(&answer)["target"]), (&"two".into(), &"/api/?q=%2F".into()));
    let answer = ask_with(&weir, "POST", "/cookie", &format!("{page}Content-Length: 0\r\n"));
    assert_eq!(answer.field("set-cookie"), Some("session=two; Path=/proxy/two/; HttpOnly"));
    for bad in ["/../one/", "/%2e%2e/one/", "/x%2f..%2fone/", "/x\\y"] {
        let answer = ask_with(&weir, "POST", bad, &format!("{page}Content-Length: 0\r\n"));
        assert_eq!(answer.status, 400, "{bad}");
    }
    // Another site's page, or one of no app's, says nothing.
    for other in
        ["http://evil.test/proxy/two/", "http://gate.test:2/proxy/two/", "http://gate.test:1/two/", "x"]
    {
        assert_eq!(
            ask_with(&weir, "GET", "/static/x.js", &format!("Referer: {other}\r\n")).status,
            404,
            "{other}"
        );
    }
    let cookie = "Cookie: a=b; weir-service=one\r\n";
    let answer = ask_with(&weir, "GET", "/static/x.js", cookie);
    assert_eq!(answer.field("location"), Some("/proxy/one/static/x.js"));
    let answer = ask_with(&weir, "GET", "/static/x.js", &format!("{cookie}{page}"));
    assert_eq!(answer.field("location"), Some("/proxy/two/static/x.js"), "the page counts more");
    assert_eq!(
        ask_with(&weir, "GET", "/", &format!("{cookie}Accept: text/html\r\n")).status,
        404,
        "a page of its own"
    );

    let weir = Weir::explicit(&format!(
        "services: {{apps: [{{name: one, target: 'http://127.0.0.1:{}', framework: dash}}]}}",
        one.port
    ));
    let answer = get(&weir, "/_dash-layout");
    assert_eq!(answer.field("location"), Some("/proxy/one/_dash-layout"));
    assert_eq!(get(&weir, "/other").status, 404);

    let weir = weir_with(
        &apps,
        &format!(
            "routing: {{default_backend: 'http://127.0.0.1:{0}', rules: [{{match: {{path: /ruled/*}}, \
             forward: {{target: 'http://127.0.0.1:{0}'}}}}]}}",
            backend.port
        ),
    );
    assert_eq!(told(&ask_with(&weir, "GET", "/ruled/x", page))["app"], "backend");
    assert_eq!(told(&ask_with(&weir, "GET", "/x", cookie))["app"], "backend");
    assert_eq!(ask_with(&weir, "GET", "/x", page).status, 307);
    assert_eq!(
        told(&ask_with(&weir, "GET", "/x", &format!("{page}Sec-Fetch-Mode: navigate\r\n")))["app"],
        "backend"
    );
}

#[test]
fn references_of_a_page_begin_at_the_prefix() {
    let app = app("one");
    let weir =
        weir_with(&[("one", &app.port)], "cache: {enabled: true}\ncompression: {enabled: true, min_size: 0}");
    let page =
        "/proxy/one/page?<a%20href=%22/x%22>%3Cimg%20src=http://gate.test:1/y>//z<script>'/s'</script>";
    let mapped = "<a href=\"/proxy/one/x\"><img src=/proxy/one/y>//z<script>'/s'</script>";
    let as_page = "Accept: text/html\r\nRange: bytes=0-1\r\n";
    // Whose client takes no chunks.
    let ask = |method: &str| {
        let request = format!("{method} {page} HTTP/1.0\r\nHost: gate.test:1\r\n{as_page}\r\n");
        http::send(weir.proxy, request.as_bytes()).expect("an answer")
    };
    let answer = ask("GET");
    assert_eq!((answer.status, &*answer.text()), (200, mapped));
    assert_eq!(answer.field("set-cookie"), Some("weir-service=one; Path=/; HttpOnly; SameSite=Lax"));
    let head = ask("HEAD");
    assert_eq!((head.status, head.field("content-length"), head.body.len()), (200, None, 0));
    // What is no page to its client stays as it is.
    assert!(get(&weir, page).text().starts_with("<a href=\"/x\">"));
    let unpacked =
        scripts::stdout(Command::new("curl").args(["-sS", "--noproxy", "*", "--compressed", "-g"]).args([
            "-HAccept: text/html",
            "-HHost: gate.test:1",
            &format!("http://{}{page}", weir.proxy),
        ]));
    assert_eq!(unpacked, mapped);
    assert_eq!(weir.metric("service_rewrites_total"), 2);
}
