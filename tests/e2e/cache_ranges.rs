//! Ranges of what is stored: several at once, what their heads say, and who has none.

use std::io::Write;
use std::path::Path;

use tempfile::TempDir;
use weir_tests::http::Answer;
use weir_tests::origin::{Origin, Request, read_answer};
use weir_tests::pattern::Pattern;
use weir_tests::weir::{Weir, connect};

const LENGTH: usize = 1_000_000;

/// Fields that a part has to have if the whole has them (RFC 9110 §15.3.7).
const SHARED: &str = "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nCache-Control: max-age=600000000\r\nETag: \"a\"\r\n\
                      Expires: Thu, 01 Jan 2099 00:00:00 GMT\r\nContent-Location: /here\r\nVary: X-Who\r\n";

/// An origin of one large text, which knows no ranges.
fn origin() -> Origin {
    Origin::start(|_| {
        let head = format!(
            "HTTP/1.1 200 OK\r\n{SHARED}Content-Type: text/plain\r\nX-Other: x\r\nContent-Length: {LENGTH}\r\n\r\n"
        );
        [head.as_bytes(), &content()].concat()
    })
}

fn content() -> Vec<u8> {
    Pattern::bytes(3, LENGTH)
}

fn ask(weir: &Weir, origin: &Origin, method: &str, fields: &str) -> Answer {
    let mut client = connect(weir.proxy);
    write!(client, "{method} http://{}/x HTTP/1.1\r\nHost: x\r\n{fields}\r\n", origin.address)
        .expect("weir takes it");
    read_answer(&mut client, method).expect("an answer")
}

fn ranges(weir: &Weir, origin: &Origin, ranges: &str) -> Answer {
    ask(weir, origin, "GET", &format!("Range: bytes={ranges}\r\n"))
}

/// A weir that has it in memory, or on disk alone.
fn holding(origin: &Origin, disk: Option<&Path>) -> Weir {
    let weir = match disk {
        None => Weir::explicit("cache: {enabled: true}\ncompression: {enabled: true}"),
        Some(folder) => Weir::explicit(&format!(
            "cache: {{enabled: true, max_object: 100KiB, disk: {{path: '{}', max_size: 1GB, max_object: 100MB}}}}",
            folder.display()
        )),
    };
    assert!(ask(&weir, origin, "GET", "").body == content());
    weir
}

/// The parts of a multipart answer: what each says of its place, and its content.
#[track_caller]
fn parts(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    assert!(answer.head.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{}", answer.head);
    assert_eq!(answer.field("content-range"), None, "{}", answer.head);
    let kind = answer.field("content-type").expect("a type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect("what it is");
    let mut found = Vec::new();
    let mut rest = answer.body.strip_prefix(format!("--{boundary}\r\n").as_bytes()).expect("a first part");
    loop {
        let end = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(rest[..end].to_vec()).expect("text");
        let range =
            head.strip_prefix("Content-Type: text/plain\r\nContent-Range: bytes ").expect("its place");
        let (place, length) = range.split_once('/').expect("a length");
        assert_eq!(length, LENGTH.to_string());
        let (first, last) = place.split_once('-').expect("a range");
        let length = last.parse::<usize>().expect("a number") - first.parse::<usize>().expect("a number") + 1;
        let (content, behind) = rest[end + 4..].split_at(length);
        found.push((place.to_owned(), content.to_vec()));
        rest = behind.strip_prefix(format!("\r\n--{boundary}").as_bytes()).expect("a boundary");
        match rest {
            b"--\r\n" => return found,
            _ => rest = rest.strip_prefix(b"\r\n").expect("another part"),
        }
    }
}

#[test]
fn several_at_once() {
    let folder = TempDir::new().expect("a folder");
    for disk in [None, Some(folder.path())] {
        let origin = origin();
        let weir = holding(&origin, disk);
        let whole = content();
        for (asked, expected) in [
            ("0-9,500000-500999,-5", vec![(0, 9), (500_000, 500_999), (999_995, 999_999)]),
            ("999999-,0-0", vec![(999_999, 999_999), (0, 0)]),
            // Over the ends of what is read from disk at once.
            (
                "262000-263000,700000-990000, 100-199",
                vec![(262_000, 263_000), (700_000, 990_000), (100, 199)],
            ),
            // What overlaps is sent once.
            ("5000-6999,0-99,5500-7999", vec![(0, 99), (5000, 7999)]),
            ("0-9,5000000-,2000-2009", vec![(0, 9), (2000, 2009)]),
        ] {
            let answer = ranges(&weir, &origin, asked);
            let found = parts(&answer);
            let places: Vec<_> = expected.iter().map(|(first, last)| format!("{first}-{last}")).collect();
            assert_eq!(found.iter().map(|(place, _)| place.clone()).collect::<Vec<_>>(), places, "{asked}");
            for ((first, last), (_, content)) in expected.into_iter().zip(found) {
                assert!(content == whole[first..=last], "{asked}: other bytes");
            }
            assert!(
                answer.field("cache-status").is_some_and(|status| status.contains("hit")),
                "{}",
                answer.head
            );
        }
        // One is left: no multipart message for that.
        let one = ranges(&weir, &origin, "0-9,5-19");
        assert_eq!(
            (one.status, one.field("content-range")),
            (206, Some("bytes 0-19/1000000")),
            "{}",
            one.head
        );
        assert!(one.body == whole[..20]);
        let none = ranges(&weir, &origin, "2000000-,3000000-");
        assert_eq!(
            (none.status, none.field("content-range")),
            (416, Some("bytes */1000000")),
            "{}",
            none.head
        );
        assert_eq!(origin.requests().len(), 1);
    }
}

/// A small request is not to cost more than the content that it is for.
#[test]
fn too_many_get_the_whole() {
    let origin = origin();
    let weir = holding(&origin, None);
    for asked in [
        (0..100).map(|at| format!("{}-{}", at * 9000, at * 9000)).collect::<Vec<_>>().join(","),
        ["0-"; 1000].join(","),
        "0-9,nonsense".to_owned(),
    ] {
        let answer = ranges(&weir, &origin, &asked);
        assert!(answer.status == 200 && answer.body == content(), "{}", answer.head);
    }
    let all = ranges(&weir, &origin, &["0-"; 30].join(","));
    assert!(all.status == 206 && all.body == content(), "{}", all.head);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn conditions_hold_for_several_too() {
    let origin = origin();
    let weir = holding(&origin, None);
    let asked =
        |fields: &str| ask(&weir, &origin, "GET", &format!("Range: bytes=0-9,5000-5009\r\n{fields}\r\n"));
    assert_eq!(parts(&asked("If-Range: \"a\"")).len(), 2);
    assert!(asked("If-Range: \"b\"").body == content());
    assert_eq!(asked("If-None-Match: \"a\"").status, 304);
}

/// As people do it.
#[test]
fn curl_asks_for_several() {
    let origin = origin();
    let weir = holding(&origin, None);
    let url = format!("http://{}/x", origin.address);
    let output = weir.curl(&["-i", "-r", "10-19,600000-600009", &url]).output().expect("curl runs");
    let whole = content();
    let has = |part: &[u8]| output.stdout.windows(part.len()).any(|bytes| bytes == part);
    assert!(output.status.success() && has(&whole[10..20]) && has(&whole[600_000..600_010]), "{output:?}");
}

/// RFC 9110 §15.3.7: what the whole says to caches and of itself, its parts say, too.
#[test]
fn a_part_says_what_the_whole_would() {
    let origin = origin();
    let weir = holding(&origin, None);
    let names = ["date", "cache-control", "etag", "expires", "content-location", "x-other"];
    // weir would compress the whole for some, and so its answer depends on more than its origin says.
    let vary = |answer: &Answer| {
        let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
        let values = lines.filter(|(name, _)| name.eq_ignore_ascii_case("vary")).map(|(_, value)| value);
        values.collect::<Vec<_>>().join(", ")
    };
    let whole = ask(&weir, &origin, "GET", "");
    assert_eq!(vary(&whole), "X-Who, Accept-Encoding");
    for (asked, status) in [
        ("Range: bytes=0-9\r\n", 206),
        ("Range: bytes=0-9\r\nAccept-Encoding: gzip\r\n", 206),
        ("Range: bytes=0-9,5000-5009\r\n", 206),
        ("If-None-Match: \"a\"\r\n", 304),
    ] {
        let answer = ask(&weir, &origin, "GET", asked);
        assert_eq!((answer.status, vary(&answer)), (status, vary(&whole)), "{asked}");
        for name in names {
            assert_eq!(answer.field(name), whole.field(name), "{asked} {name}");
        }
    }
}

/// RFC 9110 §14.2: only GET has ranges.
#[test]
fn head_has_no_ranges() {
    let origin = origin();
    let weir = holding(&origin, None);
    for asked in ["0-9", "0-9,100-109", "5000000-", "nonsense"] {
        let answer = ask(&weir, &origin, "HEAD", &format!("Range: bytes={asked}\r\n"));
        let says = (answer.status, answer.field("content-length"), answer.field("content-range"));
        assert_eq!(says, (200, Some("1000000"), None), "{asked}: {}", answer.head);
    }
    assert_eq!(origin.requests().len(), 1);
}

/// There are origins that have one strong entity tag for a text and for its compressed form.
#[test]
fn forms_in_different_codings_are_not_put_together() {
    let weir = Weir::explicit("cache: {enabled: true}");
    let origin = Origin::start(|request: &Request| {
        let (coding, seed) = match request.field("x-coding") {
            Some(coding) => (format!("Content-Encoding: {coding}\r\n"), 2),
            None => (String::new(), 1),
        };
        let range = request.field("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let body = Pattern::bytes(seed, 1000);
        let (first, last): (usize, usize) = match range {
            Some((first, last)) => (first.parse().unwrap_or(0), last.parse().unwrap_or(999)),
            None => (0, 999),
        };
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        let place = if range.is_some() {
            format!("Content-Range: bytes {first}-{last}/1000\r\n")
        } else {
            String::new()
        };
        let fields = format!("Cache-Control: max-age=60\r\nETag: \"a\"\r\n{coding}{place}");
        let length = last - first + 1;
        let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n");
        [head.as_bytes(), &body[first..=last]].concat()
    });
    let plain = |fields: &str| ask(&weir, &origin, "GET", fields);
    assert!(plain("Range: bytes=0-499\r\n").body == Pattern::bytes(1, 1000)[..500]);
    // The rest in another coding than what there is.
    assert!(plain("X-Coding: gzip\r\nRange: bytes=500-999\r\n").body == Pattern::bytes(2, 1000)[500..]);
    assert_eq!(plain("Cache-Control: only-if-cached\r\n").status, 504, "halves of two were put together");
    // And where weir itself asks for the rest.
    let weir = Weir::explicit("cache: {enabled: true}");
    let coded = |fields: &str| ask(&weir, &origin, "GET", &format!("X-Coding: gzip\r\n{fields}"));
    assert!(coded("Range: bytes=0-499\r\n").body == Pattern::bytes(2, 1000)[..500]);
    let whole = ask(&weir, &origin, "GET", "X-Coding: br\r\n");
    assert_eq!((whole.status, whole.field("content-encoding")), (200, Some("br")), "{}", whole.head);
    assert!(whole.body == Pattern::bytes(2, 1000));
}
