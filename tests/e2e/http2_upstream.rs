//! Upstreams that speak HTTP/2: with prior knowledge or by ALPN, many requests on one connection, trailers both ways, and
//! HTTP/1.1 where that is what the server speaks.

use std::future::poll_fn;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::net::TcpStream;
use weir_tests::background::Background;
use weir_tests::certificates::Authority;
use weir_tests::http2::{LARGE, Server, client, content, get, request, run, send};
use weir_tests::origin::Origin;
use weir_tests::pattern::Pattern;
use weir_tests::weir::{Weir, eventually};

/// A weir that knows what servers on loopback speak.
fn knowing(more: &str) -> Weir {
    Weir::explicit(&format!("upstream: {{http2: {{prior_knowledge: ['127.0.0.1']}}}}\n{more}"))
}

#[test]
fn http1_clients_reach_an_http2_server() {
    let (weir, server) = (knowing(""), Server::start());
    let url = format!("http://{}/a?b", server.address);
    let curl = |arguments: &[&str]| {
        let output = weir.curl(arguments).output().expect("curl is installed");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let body = "x".repeat(300_000);
    std::fs::write(weir.folder().join("body"), &body).expect("a file");
    let file = format!("@{}", weir.folder().join("body").display());
    assert!(curl(&["-sS", "-X", "POST", "--data-binary", &file, &url]) == body);
    assert_eq!(curl(&["-sS", "-T-", "-X", "PUT", "-H", "Transfer-Encoding: chunked", &url]), "");
    let head = curl(&["-sSi", "-H", "Connection: x-hop", "-H", "X-Hop: 1", "-H", "X-End: 2", &url]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nx-from: upstream\r\n"), "{head}");
    assert!(head.contains("\r\nVia: 2 weir-"), "{head}");
    let seen = server.heads().pop().expect("a request");
    assert_eq!((seen.method(), seen.uri().to_string()), (&Method::GET, url));
    let field = |name: &str| seen.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
    assert_eq!((field("x-end"), field("x-hop"), field("host")), (Some("2".into()), None, None));
    assert!(field("via").is_some_and(|via| via.starts_with("1.1 weir-")));
}

#[test]
fn requests_share_one_connection_and_keep_their_content() {
    let (weir, server) = (knowing("server: {workers: 1}"), Server::start());
    run(async {
        let client = client(&weir).await;
        let streams = (0..60).map(|seed| {
            let (mut client, address) = (client.clone(), server.address);
            tokio::spawn(async move {
                let body = Bytes::from(Pattern::bytes(seed, 20_000 * (seed as usize % 20)));
                let request = request(Method::POST, address, "/").body(()).expect("a request");
                poll_fn(|cx| client.poll_ready(cx)).await.expect("room for a stream");
                let (answer, mut stream) = client.send_request(request, false).expect("a stream");
                let (sent, answer) = tokio::join!(send(&mut stream, body.clone()), answer);
                sent.expect("the server takes it");
                let mut answer = answer.expect("an answer");
                assert!(content(answer.body_mut()).await.expect("a whole body") == body, "stream {seed}");
            })
        });
        for stream in streams.collect::<Vec<_>>() {
            stream.await.expect("a stream");
        }
    });
    assert_eq!((server.connections(), server.heads().len()), (1, 60));
    assert_eq!(weir.metric("upstream_http2_connections_total"), 1);
}

/// Which worker a client is served by is chance: of so many, some are not served by the one that has the connection.
#[test]
fn all_workers_share_one_connection() {
    let (weir, server) = (knowing("server: {workers: 4}"), Server::start());
    for number in 0..40 {
        let url = format!("http://{}/{number}", server.address);
        let request = format!("GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = weir_tests::http::send(weir.proxy, request.as_bytes()).expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!((server.connections(), server.heads().len()), (1, 40));
}

/// What somebody does not read is nobody else's trouble.
#[test]
fn clients_that_read_nothing_do_not_hold_up_others() {
    let (weir, server) = (knowing(""), Server::start());
    run(async {
        // Its windows are small: weir can't pass on more than that, and so takes no more than a stream's window.
        let stream = TcpStream::connect(weir.proxy).await.expect("weir listens");
        let (mut slow, connection) = h2::client::handshake(stream).await.expect("weir speaks HTTP/2");
        tokio::spawn(connection);
        let mut unread = Vec::new();
        for _ in 0..40 {
            poll_fn(|cx| slow.poll_ready(cx)).await.expect("room for a stream");
            let request = request(Method::GET, server.address, "/large").body(()).expect("a request");
            let (answer, _) = slow.send_request(request, true).expect("a stream");
            unread.push(answer.await.expect("an answer"));
        }
        let mut client = client(&weir).await;
        poll_fn(|cx| client.poll_ready(cx)).await.expect("room for a stream");
        let request = request(Method::GET, server.address, "/large").body(()).expect("a request");
        let mut answer = client.send_request(request, true).expect("a stream").0.await.expect("an answer");
        assert_eq!(content(answer.body_mut()).await.expect("a whole body").len(), LARGE);
    });
    assert_eq!(server.connections(), 1);
}

#[test]
fn trailers_pass_both_ways() {
    let (weir, server) = (knowing(""), Server::start());
    run(async {
        let mut client = client(&weir).await;
        let request = request(Method::POST, server.address, "/")
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(())
            .expect("a request");
        let (answer, mut stream) = client.send_request(request, false).expect("a stream");
        stream.send_data(Bytes::from_static(b"message"), false).expect("a stream");
        let mut sent = HeaderMap::new();
        sent.insert("x-checksum", "abc".parse().expect("a value"));
        stream.send_trailers(sent).expect("a stream");
        let mut answer = answer.await.expect("an answer");
        assert_eq!(content(answer.body_mut()).await.expect("a whole body"), b"message");
        let trailers = answer.body_mut().trailers().await.expect("no error").expect("trailers");
        assert_eq!(
            (&trailers["grpc-status"], &trailers["x-checksum"]),
            (&"0".parse().unwrap(), &"abc".parse().unwrap())
        );
    });
    assert_eq!(server.heads()[0].headers()["te"], "trailers");
}

#[test]
fn what_breaks_on_one_stream_or_connection_breaks_nothing_else() {
    let (weir, server) = (knowing("server: {workers: 1}"), Server::start());
    let get_path = |path: &str| {
        let output = weir.curl(&["-sS", &format!("http://{}{path}", server.address)]).output().expect("curl");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(get_path("/"), (Some(0), String::new()));
    let (code, begun) = get_path("/reset");
    assert!(code != Some(0) && begun.len() <= 13, "a truncated success: {code:?} {begun}");
    assert_eq!(get_path("/refuse").0, Some(0), "what was refused is asked for again");
    assert_eq!(server.connections(), 1);
    assert_eq!(get_path("/last").0, Some(0));
    assert_eq!(get_path("/").0, Some(0));
    assert_eq!(server.connections(), 2, "a connection that the server ends is replaced");
}

#[test]
fn a_server_that_speaks_something_else_is_an_error_in_time() {
    let weir = Weir::explicit(
        "upstream: {connect_timeout: 1s, http2: {prior_knowledge: ['127.0.0.1']}}\nserver: {timeouts: {read: 2s}}",
    );
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let output =
        weir.curl(&["-sS", "-w", "%{http_code}", "-o", "/dev/null", &format!("http://{}/", origin.address)]);
    let mut output = output;
    let output = output.output().expect("curl is installed");
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(status == "502" || status == "504", "{output:?}");
}

#[test]
fn tls_servers_choose_by_alpn() {
    const SERVER: &str = "const h = require('http2'), fs = require('fs'); \
        const s = h.createSecureServer({allowHTTP1: true, key: fs.readFileSync(process.argv[2]), \
        cert: fs.readFileSync(process.argv[1])}, (q, r) => r.end(q.httpVersion + ' ' + q.url)); \
        s.listen(0, '127.0.0.1', () => console.log(s.address().port)); process.stdin.on('end', () => process.exit(0)).resume();";
    let authority = Authority::new();
    let identity = authority.issue("server", "IP:127.0.0.1");
    let node = Background::start_node(SERVER, &[&identity.certificate, &identity.key]);
    let url = format!("https://127.0.0.1:{}/x", node.port);
    for (enabled, expected) in [(true, "2.0 /x"), (false, "1.1 /x")] {
        let weir = Weir::explicit(&format!(
            "upstream: {{http2: {{enabled: {enabled}}}, tls: {{system_roots: false, roots: ['{}']}}}}",
            authority.certificate().display()
        ));
        // In absolute-form, so that weir is the TLS client.
        let head = format!("GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        for _ in 0..2 {
            let answer = weir_tests::http::send(weir.proxy, head.as_bytes()).expect("an answer");
            assert_eq!((answer.status, answer.text().contains(expected)), (200, true), "{answer:?}");
        }
        eventually("the flow", || (weir.flows(1)[0]["status"] == 200).then_some(()));
    }
}

#[test]
fn http2_on_one_side_and_http1_on_the_other_at_once() {
    let (weir, server) = (knowing(""), Server::start());
    let other = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    run(async {
        let mut client = client(&weir).await;
        assert_eq!(get(&mut client, server.address).await.status(), 200);
        // Not among those that are known: it is asked in HTTP/1.1.
        let named = format!("http://localhost:{}/", other.address.port());
        let request = http::Request::get(named).body(()).expect("a request");
        poll_fn(|cx| client.poll_ready(cx)).await.expect("room for a stream");
        let mut answer = client.send_request(request, true).expect("a stream").0.await.expect("an answer");
        assert_eq!(content(answer.body_mut()).await.expect("a whole body"), b"hello");
    });
}
