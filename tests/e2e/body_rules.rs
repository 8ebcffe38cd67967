//! Text that is replaced in responses.

use std::io::Write;

use weir_tests::coded::coded;
use weir_tests::http::{self, Answer};
use weir_tests::origin::{Origin, chunk, chunked, read_answer};
use weir_tests::weir::{Weir, connect};

const RULES: &str = "security: {body_rules: [\
    {hosts: [127.0.0.1], find: 'http://old.test', with: 'https://a-longer-name.test'}, {find: secret}]}";

fn origin(fields: &str, body: &[u8]) -> Origin {
    let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    let answer = [head.as_bytes(), body].concat();
    Origin::start(move |request| match request.method() {
        "HEAD" => {
            answer[..answer.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4].to_vec()
        }
        _ => answer.clone(),
    })
}

fn ask(weir: &Weir, origin: &Origin, method: &str, fields: &str) -> Answer {
    let mut client = connect(weir.proxy);
    write!(client, "{method} http://{}/ HTTP/1.1\r\nHost: x\r\n{fields}\r\n", origin.address)
        .expect("weir takes it");
    read_answer(&mut client, method).expect("an answer")
}

const PAGE: &str = "<a href=http://old.test/x>secret</a><a href=http://old.test>http://old.tes</a>";
const CHANGED: &str =
    "<a href=https://a-longer-name.test/x></a><a href=https://a-longer-name.test>http://old.tes</a>";

#[test]
fn text_is_replaced_wherever_the_pieces_end() {
    let weir = Weir::explicit(RULES);
    let html = "Content-Type: text/html\r\n";
    let origin = origin(&format!("{html}ETag: \"a\"\r\nAccept-Ranges: bytes\r\n"), PAGE.as_bytes());
    let answer = ask(&weir, &origin, "GET", "Accept-Encoding: gzip\r\nRange: bytes=0-9\r\n");
    assert_eq!(answer.text(), CHANGED, "{}", answer.head);
    assert_eq!((answer.field("etag"), answer.field("accept-ranges")), (Some("W/\"a\""), None));
    let told = &origin.requests()[0];
    assert_eq!((told.field("accept-encoding"), told.field("range")), (Some("identity"), None));
    let head = ask(&weir, &origin, "HEAD", "");
    assert_eq!((head.field("content-length"), head.field("etag")), (None, Some("W/\"a\"")));
    for at in (0..PAGE.len()).step_by(7) {
        let (first, second) = PAGE.as_bytes().split_at(at);
        let bytes = [
            format!("HTTP/1.1 200 OK\r\n{html}Transfer-Encoding: chunked\r\n\r\n").into_bytes(),
            if first.is_empty() { Vec::new() } else { chunk(first) },
            chunked(second),
        ]
        .concat();
        let pieces = Origin::start(move |_| bytes.clone());
        assert_eq!(ask(&weir, &pieces, "GET", "").text(), CHANGED, "at {at}");
    }
    assert!(weir.metric("body_replacements_total") >= 30);
}

#[test]
fn what_is_no_text_or_cannot_be_read_stays_as_it_is() {
    let weir = Weir::explicit(RULES);
    for (fields, body) in [
        ("Content-Type: image/png\r\n", PAGE.as_bytes().to_vec()),
        ("", PAGE.as_bytes().to_vec()),
        ("Content-Type: text/html; charset=shift_jis\r\n", PAGE.as_bytes().to_vec()),
        ("Content-Type: text/html\r\nContent-Encoding: gzip\r\n", coded("gzip", PAGE.as_bytes())),
    ] {
        let answer = ask(&weir, &origin(fields, &body), "GET", "");
        assert_eq!(answer.body, body, "{fields}");
        assert_eq!(answer.field("content-length"), Some(body.len().to_string().as_str()), "{fields}");
    }
    assert_eq!(weir.metric("body_rules_skipped_total"), 1);
    // A larger body, of which every line is changed; and one that is compressed for its client.
    let lines = |line: &str| (0..50_000).map(|number| format!("{number} {line}\n")).collect::<String>();
    let large = origin("Content-Type: text/plain\r\n", lines("a secret").as_bytes());
    assert!(ask(&weir, &large, "GET", "").text() == lines("a "), "it differs");
    let both = Weir::explicit(&format!("compression: {{enabled: true}}\n{RULES}"));
    let url = format!("http://{}/", large.address);
    let output = both.curl(&["--compressed", &url]).output().expect("curl runs");
    assert!(output.stdout == lines("a ").as_bytes(), "it differs");
}

#[test]
fn the_cache_keeps_what_the_server_said() {
    let weir = Weir::explicit(&format!("cache: {{enabled: true}}\n{RULES}"));
    let origin = origin("Content-Type: text/html\r\nCache-Control: max-age=600\r\n", PAGE.as_bytes());
    for _ in 0..3 {
        assert_eq!(ask(&weir, &origin, "GET", "").text(), CHANGED);
    }
    assert_eq!(ask(&weir, &origin, "GET", "Range: bytes=0-5\r\n").text(), CHANGED);
    assert_eq!(origin.requests().len(), 1);
}

/// What has come goes on, though it ends like the beginning of a match: as soon as it is known to be none.
#[test]
fn streams_go_on_streaming() {
    let weir = Weir::explicit(RULES);
    let (more, wanted) = std::sync::mpsc::channel::<()>();
    let wanted = std::sync::Arc::new(std::sync::Mutex::new(wanted));
    let server = http::server("127.0.0.1", move |mut stream| {
        http::read_head(&mut stream);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("weir takes it");
        stream.write_all(&chunk(b"data: a secret\n\n")).expect("weir takes it");
        let _ = wanted.lock().expect("one at a time").recv();
        let _ = stream.write_all(b"0\r\n\r\n");
    });
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    http::read_head(&mut client);
    let mut event = Vec::new();
    while !event.ends_with(b"data: a \n\n") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut client, &mut byte).expect("the event, before the stream ends");
        event.push(byte[0]);
    }
    more.send(()).expect("the server waits");
}
