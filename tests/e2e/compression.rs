//! Compression of responses: what curl makes of it is what the server has said, and heads say what was done.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::mpsc;

use weir_tests::http::{self, Answer};
use weir_tests::origin::{Origin, Request, chunk, chunked, field, read_answer};
use weir_tests::weir::{SOON, Weir, connect, eventually};

const ON: &str = "compression: {enabled: true}";

/// Ten kilobytes that are easy to compress.
fn page() -> String {
    (0..400).map(|line| format!("line {line:4} of a page\n")).collect()
}

fn ok(fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// An origin of one page; what else its heads say is up to the request's path: fields, `;` between them.
fn origin() -> Origin {
    Origin::start(|request| {
        let path = request.head.split(' ').nth(1).unwrap_or_default();
        let fields = path.trim_start_matches('/').replace("%20", " ").replace(';', "\r\n");
        let fields = if fields.is_empty() { String::new() } else { fields + "\r\n" };
        if request.method() == "HEAD" {
            return format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", page().len())
                .into_bytes();
        }
        ok(&fields, &page())
    })
}

fn ask(weir: &Weir, method: &str, url: &str, fields: &str) -> Answer {
    let mut client = connect(weir.proxy);
    write!(client, "{method} {url} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").expect("weir takes it");
    read_answer(&mut client, method).expect("an answer")
}

fn html(origin: &Origin) -> String {
    format!("http://{}/Content-Type:text/html", origin.address)
}

/// What curl reads, and the head before it.
fn curl(weir: &Weir, arguments: &[&str]) -> (String, Vec<u8>) {
    let head = weir.folder().join("head");
    let dump = head.to_string_lossy().into_owned();
    let output =
        weir.curl(&[&["--compressed", "-D", &dump], arguments].concat()).output().expect("curl runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    (std::fs::read_to_string(head).expect("a head"), output.stdout)
}

/// What compression has made of a stored response is kept: who asks next gets it as it is, with its length.
#[test]
fn what_is_stored_is_compressed_once() {
    let weir = Weir::explicit(&format!("cache: {{enabled: true}}\n{ON}"));
    let origin = origin();
    let url = format!("http://{}/Content-Type:text/html;Cache-Control:max-age=60", origin.address);
    for coding in ["gzip", "br", "zstd"] {
        let wanted = format!("Accept-Encoding: {coding}");
        for attempt in 0..4 {
            let (head, body) = curl(&weir, &["-H", &wanted, &url]);
            assert_eq!(body, page().as_bytes(), "{head}");
            assert_eq!(field(&head, "content-encoding"), Some(coding), "{head}");
            let length = field(&head, "content-length").and_then(|length| length.parse::<usize>().ok());
            // The first of all is no hit, and the first hit makes the form.
            assert!(
                attempt < 2 || length.is_some_and(|length| length > 0 && length < page().len()),
                "{head}"
            );
        }
    }
    let (head, body) = curl(&weir, &["-H", "Accept-Encoding: identity", &url]);
    assert_eq!((body.as_slice(), field(&head, "content-encoding")), (page().as_bytes(), None));
    let head = ask(&weir, "HEAD", &url, "Accept-Encoding: gzip\r\n");
    assert_eq!(head.field("content-encoding"), Some("gzip"));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn curl_reads_what_the_server_said_in_every_coding() {
    let origin = origin();
    let backend =
        format!("compression: {{enabled: true}}\nrouting: {{default_backend: 'http://{}'}}", origin.address);
    let weir = Weir::explicit(&backend);
    let url = html(&origin);
    for (accept, coding) in [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip, br", "br"),
        ("gzip;q=1, br;q=0.5, zstd;q=0", "gzip"),
        ("*;q=0.2", "zstd"),
    ] {
        let wanted = format!("Accept-Encoding: {accept}");
        let over_http1 = curl(&weir, &["-H", &wanted, &url]);
        let gateway = format!("http://{}/Content-Type:text/html", weir.proxy);
        let over_http2 = curl(&weir, &["-x", "", "--http2-prior-knowledge", "-H", &wanted, &gateway]);
        for (head, body) in [over_http1, over_http2] {
            assert_eq!(body, page().as_bytes(), "{accept}: {head}");
            assert_eq!(field(&head, "content-encoding"), Some(coding), "{accept}: {head}");
            assert_eq!(field(&head, "vary"), Some("Accept-Encoding"), "{head}");
            assert_eq!(field(&head, "content-length"), None, "{head}");
        }
    }
    assert_eq!(weir.metric("http2_connections_total"), 6);
    let saved = weir.metric("compression_input_bytes_total") - weir.metric("compression_output_bytes_total");
    assert_eq!(weir.metric("compressed_responses_total"), 12);
    assert!(saved > 12 * page().len() as u64 / 2, "{saved}");
}

#[test]
fn what_is_chunked_or_ends_with_its_connection_is_compressed_too() {
    let weir = Weir::explicit(ON);
    for (head, framed) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n", false),
        ("HTTP/1.0 200 OK\r\n", false),
    ] {
        let body = if framed { chunked(page().as_bytes()) } else { page().into_bytes() };
        let answer = [format!("{head}Content-Type: text/css\r\n\r\n").as_bytes(), &body].concat();
        let server = http::server("127.0.0.1", move |mut stream| {
            http::read_head(&mut stream);
            stream.write_all(&answer).expect("weir takes it");
        });
        let (told, body) = curl(&weir, &[&format!("http://{server}/")]);
        assert_eq!((field(&told, "content-encoding"), body), (Some("zstd"), page().into_bytes()), "{head}");
    }
}

#[test]
fn what_may_not_be_changed_or_is_not_worth_it_stays_as_it_is() {
    let (weir, origin) = (Weir::explicit(ON), origin());
    for (fields, varies) in [
        ("", false),
        ("Content-Type:image/png", false),
        ("Content-Type:text/html;Content-Encoding:identity", false),
        ("Content-Type:text/html;Cache-Control:public,no-transform", false),
        ("Content-Type:text/html;Content-Digest:sha-256=:x:", false),
        ("Content-Type:text/html;Content-Range:bytes%200-9/10", false),
    ] {
        let url = format!("http://{}/{fields}", origin.address);
        let answer = ask(&weir, "GET", &url, "Accept-Encoding: gzip\r\n");
        assert_eq!(answer.text(), page(), "{fields}");
        assert_eq!(answer.field("vary").is_some(), varies, "{}", answer.head);
    }
    // Of these other clients may get another variant, and whoever stores them has to know.
    let url = html(&origin);
    for fields in ["", "Accept-Encoding: deflate\r\n", "Accept-Encoding: gzip;q=0, *;q=0\r\n"] {
        let answer = ask(&weir, "GET", &url, fields);
        assert_eq!((answer.text(), answer.field("vary")), (page(), Some("Accept-Encoding")), "{fields}");
        assert_eq!(answer.field("content-encoding"), None, "{fields}");
    }
    let answer = ask(&weir, "GET", &url, "Accept-Encoding: gzip\r\nCache-Control: no-transform\r\n");
    assert_eq!(answer.text(), page());
    let old = format!("GET {url} HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(http::send(weir.proxy, old.as_bytes()).expect("an answer").text(), page());
    assert_eq!(weir.metric("compressed_responses_total"), 0);
}

#[test]
fn a_small_body_or_none_stays_as_it_is() {
    let weir = Weir::explicit(ON);
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Type: text/html\r\n\r\n",
        "HTTP/1.1 206 Partial Content\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Type: text/html\r\nETag: \"a\"\r\nContent-Length: 9999\r\n\r\n",
    ] {
        let origin = Origin::fixed(answer);
        let url = format!("http://{}/", origin.address);
        let found = ask(&weir, "GET", &url, "Accept-Encoding: gzip, br, zstd\r\n");
        assert_eq!(found.field("content-encoding"), None, "{answer}");
        let told = origin.requests();
        assert_eq!(told[0].field("accept-encoding"), Some("gzip, br, zstd"), "the server may do it itself");
    }
}

#[test]
fn a_head_says_what_a_get_would() {
    let (weir, origin) = (Weir::explicit(ON), origin());
    let url = format!("http://{}/Content-Type:text/html;ETag:\"a\";Accept-Ranges:bytes", origin.address);
    let accept = "Accept-Encoding: br\r\n";
    let (get, head) = (ask(&weir, "GET", &url, accept), ask(&weir, "HEAD", &url, accept));
    for name in ["content-encoding", "vary", "etag", "accept-ranges", "content-length"] {
        assert_eq!(get.field(name), head.field(name), "{name}");
    }
    assert_eq!((head.field("etag"), head.field("accept-ranges")), (Some("W/\"a\""), None));
    let plain = ask(&weir, "HEAD", &url, "");
    assert_eq!(plain.field("content-length"), Some(page().len().to_string().as_str()));
    assert_eq!((plain.field("etag"), plain.field("accept-ranges")), (Some("\"a\""), Some("bytes")));
}

/// RFC 9110 §15.4.5: a 304 names the validator that the client has.
#[test]
fn a_client_that_has_it_compressed_is_told_that_it_is_not_modified() {
    let weir = Weir::explicit(ON);
    let origin = Origin::start(|request: &Request| match request.field("if-none-match") {
        Some(tags) if tags.contains("\"a\"") => b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".to_vec(),
        _ => ok("Content-Type: text/html\r\nETag: \"a\"\r\n", &page()),
    });
    let url = format!("http://{}/", origin.address);
    let first = ask(&weir, "GET", &url, "Accept-Encoding: gzip\r\n");
    assert_eq!(first.field("etag"), Some("W/\"a\""));
    let accept = "Accept-Encoding: gzip\r\n";
    for (condition, accept, tag) in [
        ("W/\"a\"", accept, "W/\"a\""),
        ("\"b\", W/\"a\"", accept, "W/\"a\""),
        ("\"a\"", accept, "\"a\""),
        ("W/\"a\"", "", "\"a\""),
    ] {
        let fields = format!("{accept}If-None-Match: {condition}\r\n");
        let again = ask(&weir, "GET", &url, &fields);
        assert_eq!((again.status, again.field("etag")), (304, Some(tag)), "{fields}");
    }
}

/// What is stored is what the server has said, whoever asked first: everybody gets the form that he takes.
#[test]
fn one_stored_response_serves_all_codings() {
    for first in ["gzip", "identity"] {
        let weir = Weir::explicit(&format!("cache: {{enabled: true}}\n{ON}"));
        let fields =
            "Content-Type: text/html\r\nCache-Control: max-age=60\r\nETag: \"a\"\r\nAccept-Ranges: bytes\r\n";
        let origin = Origin::fixed(&String::from_utf8(ok(fields, &page())).expect("text"));
        let url = format!("http://{}/", origin.address);
        for accept in [first, "gzip", "br", "identity", "zstd", "gzip"] {
            let (head, body) = curl(&weir, &["-H", &format!("Accept-Encoding: {accept}"), &url]);
            let coding = (accept != "identity").then_some(accept);
            assert_eq!(
                (field(&head, "content-encoding"), body),
                (coding, page().into_bytes()),
                "{accept}: {head}"
            );
            assert_eq!(field(&head, "vary"), Some("Accept-Encoding"), "{head}");
            let length = field(&head, "content-length").and_then(|length| length.parse::<usize>().ok());
            match coding {
                None => assert_eq!(length, Some(page().len()), "{head}"),
                // Known once it has been made.
                Some(_) => assert!(length.is_none_or(|length| length < page().len()), "{head}"),
            }
        }
        // Parts are of the content as it is, and have its own validator.
        let part = ask(&weir, "GET", &url, "Accept-Encoding: gzip\r\nRange: bytes=5-8\r\n");
        assert_eq!((part.status, part.text().as_str()), (206, &page()[5..9]));
        assert_eq!((part.field("etag"), part.field("content-encoding")), (Some("\"a\""), None));
        let whole =
            ask(&weir, "GET", &url, "Accept-Encoding: gzip\r\nRange: bytes=5-8\r\nIf-Range: W/\"a\"\r\n");
        assert_eq!((whole.status, whole.field("content-encoding")), (200, Some("gzip")));
        let same = ask(&weir, "GET", &url, "Accept-Encoding: gzip\r\nIf-None-Match: W/\"a\"\r\n");
        assert_eq!((same.status, same.field("etag")), (304, Some("W/\"a\"")));
        assert_eq!(origin.requests().len(), 1, "everything else came from store");
    }
}

/// What the server compresses itself is stored as the variant that it is, and never compressed again.
#[test]
fn variants_of_the_server_s_own_stay_apart() {
    let weir = Weir::explicit(&format!("cache: {{enabled: true}}\n{ON}"));
    let origin = Origin::start(|request: &Request| {
        let fields = "Content-Type: text/html\r\nCache-Control: max-age=60\r\nVary: Accept-Encoding\r\n";
        match request.field("accept-encoding") {
            Some("br") => ok(&format!("{fields}Content-Encoding: br\r\n"), &"b".repeat(5000)),
            _ => ok(fields, &page()),
        }
    });
    let url = format!("http://{}/", origin.address);
    for _ in 0..2 {
        let own = ask(&weir, "GET", &url, "Accept-Encoding: br\r\n");
        assert_eq!(
            (own.field("content-encoding"), own.body.len()),
            (Some("br"), 5000),
            "as the server made it"
        );
        let ours = ask(&weir, "GET", &url, "Accept-Encoding: gzip\r\n");
        assert_eq!(ours.field("content-encoding"), Some("gzip"));
        assert_eq!(ask(&weir, "GET", &url, "").text(), page());
    }
    assert_eq!(origin.requests().len(), 3);
}

/// Server-sent events and their like: each part is there before the next one is made.
#[test]
fn a_stream_is_not_held_back() {
    let weir = Weir::explicit(ON);
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Arc::new(std::sync::Mutex::new(gone));
    let server = http::server("127.0.0.1", move |mut stream| {
        http::read_head(&mut stream);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("weir takes it");
        for number in 0..3 {
            stream.write_all(&chunk(format!("data: {number}\n\n").as_bytes())).expect("weir takes it");
            // The next one is made only when this one was read.
            gone.lock().expect("no panic").recv_timeout(SOON).expect("the test goes on");
        }
        stream.write_all(b"0\r\n\r\n").expect("weir takes it");
    });
    for coding in ["gzip", "br", "zstd"] {
        let accept = format!("Accept-Encoding: {coding}");
        let url = format!("http://{server}/");
        let mut client = weir
            .curl(&["-N", "--compressed", "-H", &accept, &url])
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl runs");
        let mut lines = BufReader::new(client.stdout.take().expect("a pipe")).lines();
        for number in 0..3 {
            assert_eq!(lines.next().expect("a line").expect("text"), format!("data: {number}"), "{coding}");
            assert_eq!(lines.next().expect("a line").expect("text"), "");
            go.send(()).expect("the server waits");
        }
        assert!(client.wait().expect("a child of ours").success(), "{coding}");
    }
    assert_eq!(weir.metric("compressed_responses_total"), 3);
}

/// A body that is cut off must not look whole, compressed or not.
#[test]
fn a_truncated_body_stays_truncated() {
    let weir = Weir::explicit(ON);
    let server = http::server("127.0.0.1", |mut stream| {
        http::read_head(&mut stream);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 99999\r\n\r\n";
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(page().as_bytes()))
            .expect("weir takes it");
    });
    for coding in ["gzip", "br", "zstd"] {
        let accept = format!("Accept-Encoding: {coding}");
        let output = weir.curl(&["--compressed", "-H", &accept, &format!("http://{server}/")]).output();
        let output = output.expect("curl runs");
        assert!(!output.status.success(), "{coding}: curl took it for whole");
    }
}

#[test]
fn more_than_may_be_at_work_go_out_as_they_came() {
    let weir =
        Weir::explicit(&format!("{}\nserver: {{workers: 1}}", ON.replace("true}", "true, max_streams: 1}")));
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Arc::new(std::sync::Mutex::new(gone));
    let server = http::server("127.0.0.1", move |mut stream| {
        let head = http::read_head(&mut stream);
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(answer.as_bytes()).expect("weir takes it");
        stream.write_all(&chunk(b"part ")).expect("weir takes it");
        if head.contains("/wait") {
            gone.lock().expect("no panic").recv_timeout(SOON).expect("the test goes on");
        }
        stream.write_all(b"0\r\n\r\n").expect("weir takes it");
    });
    let mut first = connect(weir.proxy);
    write!(first, "GET http://{server}/wait HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n")
        .expect("sent");
    eventually("a compressor at work", || (weir.metric("compressed_responses_total") == 1).then_some(()));
    let url = format!("http://{server}/");
    let second = ask(&weir, "GET", &url, "Accept-Encoding: gzip\r\n");
    assert_eq!((second.field("content-encoding"), second.text().as_str()), (None, "part "));
    assert_eq!(weir.metric("compression_skipped_total"), 1);
    go.send(()).expect("the server waits");
    assert_eq!(read_answer(&mut first, "GET").expect("an answer").field("content-encoding"), Some("gzip"));
    let third = ask(&weir, "GET", &url, "Accept-Encoding: gzip\r\n");
    assert_eq!(third.field("content-encoding"), Some("gzip"), "its place is free again");
}

#[test]
fn it_is_off_by_default_and_by_front() {
    let origin = origin();
    let accept = "Accept-Encoding: gzip\r\n";
    let weir = Weir::explicit("");
    assert_eq!(ask(&weir, "GET", &html(&origin), accept).field("vary"), None);
    let backend = format!("routing: {{default_backend: 'http://{}'}}", origin.address);
    for (explicit, gateway) in [(true, false), (false, true)] {
        let weir = Weir::explicit(&format!(
            "compression: {{enabled: true, explicit: {explicit}, gateway: {gateway}}}\n{backend}"
        ));
        let by_proxy = ask(&weir, "GET", &html(&origin), accept);
        let by_gateway = ask(&weir, "GET", "/Content-Type:text/html", accept);
        assert_eq!(by_proxy.field("content-encoding").is_some(), explicit);
        assert_eq!(by_gateway.field("content-encoding").is_some(), gateway);
    }
}
