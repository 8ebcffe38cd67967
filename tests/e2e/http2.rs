//! HTTP/2 clients: streams side by side, each a request or a tunnel, towards origins that speak HTTP/1.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::ResponseFuture;
use http::{Method, Response};
use nix::sys::signal::Signal;
use weir_tests::http2::{client, content, get, request, run, send};
use weir_tests::origin::Origin;
use weir_tests::pattern::Pattern;
use weir_tests::weir::{Weir, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Answers with the body that came.
fn echo() -> Origin {
    Origin::start(|request| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
        [head.as_bytes(), &request.body].concat()
    })
}

#[test]
fn a_hundred_streams_side_by_side_keep_their_content() {
    let (weir, origin) = (Weir::explicit(""), echo());
    run(async {
        let client = client(&weir).await;
        let streams = (0..100).map(|seed| {
            let (mut client, origin) = (client.clone(), origin.address);
            tokio::spawn(async move {
                let body = Bytes::from(Pattern::bytes(seed, 10_000 * (seed as usize % 30)));
                let mut request = request(Method::POST, origin, "/echo");
                if seed % 2 == 0 {
                    request = request.header("content-length", body.len());
                }
                poll_fn(|cx| client.poll_ready(cx)).await.expect("room for a stream");
                let (answer, mut stream) =
                    client.send_request(request.body(()).expect("a request"), false).expect("a stream");
                let (sent, answer) = tokio::join!(send(&mut stream, body.clone()), answer);
                sent.expect("the origin takes it");
                let mut answer = answer.expect("an answer");
                assert_eq!(answer.status(), 200);
                assert!(content(answer.body_mut()).await.expect("a whole body") == body, "stream {seed}");
            })
        });
        for stream in streams.collect::<Vec<_>>() {
            stream.await.expect("a stream");
        }
    });
    assert_eq!(origin.requests().len(), 100);
    assert_eq!(weir.metric("http2_connections_total"), 1);
    assert!(weir.flows(100).iter().all(|flow| flow["protocol"] == "http2" && flow["end"] == "complete"));
}

#[test]
fn heads_are_translated_both_ways() {
    let origin = Origin::fixed(
        "HTTP/1.1 200 Fine\r\nX-Mixed: Case\r\nConnection: x-hop, close\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let weir = Weir::explicit("");
    run(async {
        let mut client = client(&weir).await;
        let request = request(Method::PATCH, origin.address, "/a%20b?c=d")
            .header("cookie", "a=1")
            .header("x-one", "1")
            .header("cookie", "b=2")
            .header("te", "trailers")
            .header("proxy-authorization", "Basic eDp5")
            .body(())
            .expect("a request");
        let mut answer = client.send_request(request, true).expect("a stream").0.await.expect("an answer");
        let fields: Vec<_> = answer.headers().keys().map(http::HeaderName::as_str).collect();
        // Date, since the origin sent none (RFC 9110 §6.6.1).
        assert_eq!(fields, ["x-mixed", "date", "via"]);
        assert_eq!(content(answer.body_mut()).await.expect("a whole body"), b"hello");
    });
    let request = &origin.requests()[0];
    assert!(request.head.starts_with("PATCH /a%20b?c=d HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.field("host"), Some(origin.address.to_string().as_str()));
    assert_eq!(request.field("cookie"), Some("a=1; b=2"));
    assert_eq!(request.field("x-one"), Some("1"));
    assert!(request.field("via").is_some_and(|via| via.starts_with("2 weir-")), "{}", request.head);
    assert_eq!((request.field("te"), request.field("proxy-authorization")), (Some("trailers"), None));
}

#[test]
fn responses_without_content_and_before_the_last() {
    let answers = [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, Some("5")),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304, Some("7")),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, Some("0")),
        (
            "GET",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            200,
            Some("0"),
        ),
    ];
    let weir = Weir::explicit("");
    for (method, answer, status, length) in answers {
        let origin = Origin::fixed(answer);
        run(async {
            let mut client = client(&weir).await;
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let request = request(method, origin.address, "/").body(()).expect("a request");
            let (mut response, _) = client.send_request(request, true).expect("a stream");
            if answer.contains("103") {
                let hint = interim(&mut response).await;
                assert_eq!(
                    (hint.status().as_u16(), hint.headers()["link"].as_bytes()),
                    (103, b"</a>".as_slice())
                );
            }
            let mut response = response.await.expect("an answer");
            let found = response.headers().get("content-length").map(|length| length.to_str().expect("text"));
            assert_eq!((response.status().as_u16(), found), (status, length), "{answer}");
            assert_eq!(content(response.body_mut()).await.expect("a whole body"), b"");
        });
    }
}

async fn interim(response: &mut ResponseFuture) -> Response<()> {
    poll_fn(|cx| response.poll_informational(cx)).await.expect("an interim response").expect("no error")
}

#[test]
fn a_response_that_is_cut_off_is_a_reset_of_its_stream_alone() {
    let weir = Weir::explicit("");
    let whole = Origin::fixed(OK);
    let cut_off = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nx\r\n",
    ];
    run(async {
        let mut client = client(&weir).await;
        for answer in cut_off {
            let origin = Origin::fixed(answer);
            let request = request(Method::GET, origin.address, "/").body(()).expect("a request");
            // The reset may overtake the head.
            let error = match client.send_request(request, true).expect("a stream").0.await {
                Ok(mut cut) => content(cut.body_mut()).await.expect_err("it is not whole"),
                Err(error) => error,
            };
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{answer}");
            let mut other = get(&mut client, whole.address).await;
            assert_eq!(content(other.body_mut()).await.expect("a whole body"), b"hello");
        }
    });
}

#[test]
fn limits_are_answered_with_their_status() {
    let (weir, origin) = (Weir::explicit("server: {limits: {body: 1000}}"), echo());
    let address = origin.address;
    let long = format!("/{}", "x".repeat(9000));
    let cases = [
        (request(Method::GET, address, &long), 414),
        (request(Method::GET, address, "/").header("x", "y".repeat(20_000)), 431),
        ((0..101).fold(request(Method::GET, address, "/"), |request, _| request.header("x", "y")), 431),
        (request(Method::POST, address, "/").header("content-length", "1001"), 413),
        (request(Method::GET, "127.0.0.1:1".parse().expect("an address"), "/"), 502),
    ];
    run(async {
        for (request, status) in cases {
            let mut client = client(&weir).await;
            let end = !request.headers_ref().expect("fields").contains_key("content-length");
            let request = request.body(()).expect("a request");
            let (response, _stream) = client.send_request(request, end).expect("a stream");
            let mut response = response.await.expect("an answer");
            assert_eq!(response.status(), status);
            let text = content(response.body_mut()).await.expect("a whole body");
            assert!(text.starts_with(format!("weir: {status}").as_bytes()), "{text:?}");
        }
        // A body that does not say how long it is, is counted.
        let mut client = client(&weir).await;
        let request = request(Method::POST, address, "/").body(()).expect("a request");
        let (response, mut stream) = client.send_request(request, false).expect("a stream");
        let _ = send(&mut stream, Bytes::from(vec![0; 1001])).await;
        assert_eq!(response.await.expect("an answer").status(), 413);
    });
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn a_drain_lets_streams_finish_and_takes_no_more() {
    let origin = Origin::start(|_| {
        std::thread::sleep(Duration::from_secs(1));
        OK.into()
    });
    let mut weir = Weir::explicit("");
    run(async {
        let mut client = client(&weir).await;
        let mut other = client.clone();
        let address = origin.address;
        let slow = tokio::spawn(async move { get(&mut other, address).await });
        while weir.status()["active_connections"] != 1 || weir.metric("http_requests_total") != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        weir.signal(Signal::SIGTERM);
        let mut answer = slow.await.expect("a task");
        assert_eq!(content(answer.body_mut()).await.expect("a whole body"), b"hello");
        let refused = poll_fn(|cx| client.poll_ready(cx)).await.expect_err("the connection is ended");
        assert!(refused.is_go_away() || refused.is_io(), "{refused}");
    });
    assert_eq!(weir.wait(), Some(0), "{}", weir.log());
}

#[test]
fn curl_and_the_gateway() {
    let origin = Origin::fixed(OK);
    let weir = Weir::explicit(&format!("routing: {{default_backend: 'http://{}'}}", origin.address));
    let mut curl = std::process::Command::new("curl");
    curl.args([
        "-sS",
        "--http2-prior-knowledge",
        "-w",
        " %{http_version}",
        &format!("http://{}/x", weir.proxy),
    ]);
    let output = curl.output().expect("curl is installed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello 2", "{output:?}");
    eventually("the flow", || (weir.flows(1)[0]["front"] == "gateway").then_some(()));
}
