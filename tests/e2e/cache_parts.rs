//! Parts of responses in the cache: what ranges have brought answers ranges, what was cut off is completed, and nothing
//! is put together that is not known to belong together.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use weir_tests::http::{self, Answer, Server};
use weir_tests::origin::{Origin, Request, read_answer};
use weir_tests::pattern::Pattern;
use weir_tests::scripts;
use weir_tests::weir::{Weir, connect, eventually};

const CACHE: &str = "cache: {enabled: true}";

const LENGTH: usize = 100_000;

fn get(weir: &Weir, origin: &Origin, fields: &str) -> Answer {
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{}/file HTTP/1.1\r\nHost: x\r\n{fields}\r\n", origin.address)
        .expect("weir takes it");
    read_answer(&mut client, "GET").expect("an answer")
}

fn range(weir: &Weir, origin: &Origin, range: &str) -> Answer {
    get(weir, origin, &format!("Range: bytes={range}\r\n"))
}

fn status_of(answer: &Answer) -> &str {
    answer.field("cache-status").unwrap_or("none")
}

fn content(seed: u64) -> Vec<u8> {
    Pattern::bytes(seed, LENGTH)
}

/// What an origin has: the seed of its content, and its entity tag.
type Version = Arc<Mutex<(u64, &'static str)>>;

/// An origin that takes ranges, and knows If-Range.
fn file(version: &Version) -> Origin {
    let version = Arc::clone(version);
    Origin::start(move |request: &Request| {
        let (seed, tag) = *version.lock().expect("no test has failed");
        let whole = content(seed);
        let fits = request.field("if-range").is_none_or(|condition| condition == tag);
        answer(&whole, tag, request.field("range").filter(|_| fits))
    })
}

fn answer(whole: &[u8], tag: &str, range: Option<&str>) -> Vec<u8> {
    let (status, part, place) = match range.and_then(|range| span(range, whole.len())) {
        Some((first, last)) => {
            let place = format!("Content-Range: bytes {first}-{last}/{}\r\n", whole.len());
            ("206 Partial Content", &whole[first..=last], place)
        }
        None => ("200 OK", whole, String::new()),
    };
    let length = part.len();
    let tag = if tag.is_empty() { String::new() } else { format!("ETag: {tag}\r\n") };
    let fields = format!("Cache-Control: max-age=60\r\n{tag}{place}Content-Length: {length}\r\n");
    [format!("HTTP/1.1 {status}\r\n{fields}\r\n").as_bytes(), part].concat()
}

fn span(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), last) => Some((first, last.map_or(length - 1, |last| last.min(length - 1)))),
        (Err(_), Ok(last)) => Some((length - last, length - 1)),
        (Err(_), Err(_)) => None,
    }
}

#[track_caller]
fn is_part(answer: &Answer, seed: u64, first: usize, last: usize) {
    assert!(answer.head.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{}", answer.head);
    let place = format!("bytes {first}-{last}/{LENGTH}");
    assert_eq!(answer.field("content-range"), Some(place.as_str()), "{}", answer.head);
    assert!(answer.body == content(seed)[first..=last], "other bytes: {}", answer.head);
}

#[track_caller]
fn is_whole(answer: &Answer, seed: u64) {
    assert_eq!((answer.status, answer.field("content-range")), (200, None), "{}", answer.head);
    assert!(answer.body == content(seed), "other bytes: {}", answer.head);
}

fn start(tag: &'static str) -> (Weir, Origin, Version) {
    let version = Version::new(Mutex::new((1, tag)));
    (Weir::explicit(CACHE), file(&version), version)
}

#[test]
fn a_part_answers_what_is_within_it() {
    // By itself it needs no validator.
    for tag in ["\"a\"", "W/\"a\"", ""] {
        let (weir, origin, _) = start(tag);
        let first = range(&weir, &origin, "-50000");
        is_part(&first, 1, 50_000, 99_999);
        assert_eq!(status_of(&first), "weir; fwd=uri-miss; stored");
        for (asked, first, last) in [
            ("-50000", 50_000, 99_999),
            ("60000-60009", 60_000, 60_009),
            ("99990-", 99_990, 99_999),
            ("-1", 99_999, 99_999),
        ] {
            let answer = range(&weir, &origin, asked);
            is_part(&answer, 1, first, last);
            assert!(status_of(&answer).starts_with("weir; hit"), "{}", answer.head);
        }
        assert_eq!(origin.requests().len(), 1);
        is_part(&range(&weir, &origin, "0-9"), 1, 0, 9);
        assert_eq!(origin.requests().len(), 2, "it had no more than the end");
    }
}

#[test]
fn parts_become_the_whole() {
    let (weir, origin, _) = start("\"a\"");
    for at in [0, 40_000, 20_000, 80_000, 60_000] {
        let last = at + 19_999;
        is_part(&range(&weir, &origin, &format!("{at}-{last}")), 1, at, last);
    }
    assert_eq!(origin.requests().len(), 5);
    is_part(&range(&weir, &origin, "10000-90000"), 1, 10_000, 90_000);
    let whole = get(&weir, &origin, "");
    is_whole(&whole, 1);
    assert!(status_of(&whole).starts_with("weir; hit"), "{}", whole.head);
    assert_eq!(origin.requests().len(), 5);
}

#[test]
fn what_is_missing_is_asked_for() {
    let (weir, origin, _) = start("\"a\"");
    range(&weir, &origin, "0-9999");
    let whole = get(&weir, &origin, "");
    is_whole(&whole, 1);
    assert_eq!(status_of(&whole), "weir; fwd=partial; fwd-status=206; stored");
    let asked = origin.requests();
    assert_eq!((asked[1].field("range"), asked[1].field("if-range")), (Some("bytes=10000-"), Some("\"a\"")));
    is_whole(&get(&weir, &origin, ""), 1);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn what_has_changed_is_not_put_together() {
    let (weir, origin, version) = start("\"a\"");
    range(&weir, &origin, "0-9999");
    *version.lock().expect("it is good") = (2, "\"b\"");
    is_whole(&get(&weir, &origin, ""), 2);
    is_whole(&get(&weir, &origin, ""), 2);
    assert_eq!(origin.requests().len(), 2);
    // Nor is the new part with the old.
    let (weir, origin, version) = start("\"a\"");
    range(&weir, &origin, "0-9999");
    *version.lock().expect("it is good") = (2, "\"b\"");
    is_part(&range(&weir, &origin, "10000-19999"), 2, 10_000, 19_999);
    let both = range(&weir, &origin, "5000-15000");
    is_part(&both, 2, 5_000, 15_000);
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn without_a_strong_validator_nothing_is_put_together() {
    for tag in ["W/\"a\"", ""] {
        let (weir, origin, _) = start(tag);
        range(&weir, &origin, "0-9999");
        range(&weir, &origin, "10000-99999");
        is_part(&range(&weir, &origin, "5000-15000"), 1, 5_000, 15_000);
        is_whole(&get(&weir, &origin, ""), 1);
        let asked = origin.requests();
        assert_eq!(asked.len(), 4);
        assert_eq!(asked[3].field("range"), None);
    }
}

/// An origin that says nonsense harms nobody but itself.
#[test]
fn a_rest_that_is_none_is_not_used() {
    type Lie = fn(&[u8], &str) -> Vec<u8>;
    let lies: [(&str, Lie); 6] = [
        ("another range", |whole, tag| answer(whole, tag, Some("bytes=10001-"))),
        ("another tag", |whole, _| answer(whole, "\"z\"", Some("bytes=10000-"))),
        ("no tag", |whole, _| answer(whole, "", Some("bytes=10000-"))),
        ("another length", |whole, tag| answer(&whole[..LENGTH - 1], tag, Some("bytes=10000-"))),
        ("304", |_, _| b"HTTP/1.1 304 No\r\nETag: \"a\"\r\n\r\n".to_vec()),
        ("416", |_, _| b"HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n".to_vec()),
    ];
    for (name, lie) in lies {
        let weir = Weir::explicit(CACHE);
        let origin = Origin::start(move |request: &Request| match request.field("if-range") {
            Some(tag) => lie(&content(1), tag),
            None => answer(&content(1), "\"a\"", request.field("range")),
        });
        range(&weir, &origin, "0-9999");
        is_whole(&get(&weir, &origin, ""), 1);
        assert_eq!(origin.requests().len(), 3, "{name}");
    }
}

#[test]
fn a_part_that_says_two_things_of_its_length_is_not_stored() {
    let weir = Weir::explicit(CACHE);
    let origin = Origin::fixed(
        "HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nETag: \"a\"\r\nContent-Range: bytes 0-9/100\r\nContent-Length: 5\r\n\r\nhello",
    );
    for count in 1..=2 {
        assert_eq!(range(&weir, &origin, "0-9").text(), "hello");
        assert_eq!(origin.requests().len(), count);
    }
}

/// The first answer ends after a part of it; later ones are whole.
fn cutting(cut_at: usize) -> Origin {
    let count = AtomicUsize::new(0);
    let count = Arc::new(count);
    Origin::start(move |request: &Request| {
        let mut answer = answer(&content(1), "\"a\"", request.field("range"));
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            let text =
                String::from_utf8_lossy(&answer[..200]).replacen("\r\n", "\r\nConnection: close\r\n", 1);
            let head = text.split("\r\n\r\n").next().unwrap_or_default().to_owned() + "\r\n\r\n";
            answer = [head.as_bytes(), &content(1)[..cut_at]].concat();
        }
        answer
    })
}

#[test]
fn what_was_cut_off_is_completed() {
    let weir = Weir::explicit(CACHE);
    let origin = cutting(70_000);
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{}/file HTTP/1.1\r\nHost: x\r\n\r\n", origin.address).expect("weir takes it");
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).expect_err("what is cut off ends in a reset");
    // It is a part, and no more.
    is_part(&get(&weir, &origin, "Range: bytes=0-69999\r\nCache-Control: only-if-cached\r\n"), 1, 0, 69_999);
    assert_eq!(get(&weir, &origin, "Cache-Control: only-if-cached\r\n").status, 504);
    is_whole(&get(&weir, &origin, ""), 1);
    let asked = origin.requests();
    assert_eq!((asked.len(), asked[1].field("range")), (2, Some("bytes=70000-")));
    is_whole(&get(&weir, &origin, "Cache-Control: only-if-cached\r\n"), 1);
}

/// Sends a half, and the rest when it is told to.
fn halting(go: mpsc::Receiver<()>) -> Server {
    let go = Arc::new(Mutex::new(go));
    http::server("127.0.0.1", move |mut stream: TcpStream| {
        let head = http::read_head(&mut stream);
        let whole = answer(&content(1), "\"a\"", weir_tests::origin::field(&head, "range"));
        let half = whole.len() - LENGTH / 2;
        let _ = stream.write_all(&whole[..half]);
        let _ = go.lock().expect("no test has failed").recv();
        let _ = stream.write_all(&whole[half..]);
    })
}

/// A purge that comes while a part is on its way: the part is older.
#[test]
fn a_part_that_was_removed_on_its_way_is_not_stored() {
    let weir = Weir::explicit(CACHE);
    let (go, wait) = mpsc::channel();
    let server = halting(wait);
    let mut client = connect(weir.proxy);
    let ask = |fields: &str| format!("GET http://{}/file HTTP/1.1\r\nHost: x\r\n{fields}\r\n", *server);
    client.write_all(ask("Range: bytes=0-79999\r\n").as_bytes()).expect("weir takes it");
    let head = http::read_head(&mut client);
    scripts::stdout(&mut weir.command(&["cache", "purge", "127.0.0.1"]));
    go.send(()).expect("the origin waits");
    let mut body = vec![0; 80_000];
    client.read_exact(&mut body).expect("the whole part");
    assert!(head.contains(" 206 ") && body == content(1)[..80_000]);
    let mut client = connect(weir.proxy);
    client
        .write_all(ask("Range: bytes=0-9\r\nCache-Control: only-if-cached\r\n").as_bytes())
        .expect("weir takes it");
    assert_eq!(read_answer(&mut client, "GET").expect("an answer").status, 504);
}

#[test]
fn parts_are_bounded() {
    let weir = Weir::explicit("cache: {enabled: true, max_object: 30000}");
    let version = Version::new(Mutex::new((1, "\"a\"")));
    let origin = file(&version);
    let stored = |asked: &str| {
        let answer =
            get(&weir, &origin, &format!("Range: bytes={asked}\r\nCache-Control: only-if-cached\r\n"));
        answer.status == 206
    };
    is_part(&range(&weir, &origin, "0-39999"), 1, 0, 39_999);
    assert!(!stored("0-9"), "larger than max_object");
    for at in (0..100_000).step_by(10_000) {
        range(&weir, &origin, &format!("{at}-{}", at + 9_999));
    }
    let kept = (0..10).filter(|at| stored(&format!("{}-{}", at * 10_000, at * 10_000 + 9))).count();
    assert!((1..=3).contains(&kept), "{kept} of 10000 bytes: together no more than max_object");
    is_whole(&get(&weir, &origin, ""), 1);
}

/// A stale response is validated for a range, too, and what is new is then a part.
#[test]
fn a_range_of_what_is_stale_is_validated() {
    let weir = Weir::explicit(CACHE);
    let origin = Origin::start(|request: &Request| match request.field("if-none-match") {
        Some("\"a\"") => {
            b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: no-cache\r\n\r\n".to_vec()
        }
        _ => {
            let answer = answer(&content(1), "\"a\"", request.field("range"));
            let text = b"Cache-Control: max-age=60";
            let at = answer.windows(text.len()).position(|window| window == text).expect("it has one");
            [&answer[..at], b"Cache-Control: no-cache", &answer[at + text.len()..]].concat()
        }
    });
    is_whole(&get(&weir, &origin, ""), 1);
    let part = range(&weir, &origin, "10-19");
    is_part(&part, 1, 10, 19);
    assert_eq!(status_of(&part), "weir; fwd=stale; fwd-status=304");
    assert_eq!(origin.requests()[1].field("range"), Some("bytes=10-19"));
}

/// As people do it: a download that is broken off, and taken up again.
#[test]
fn curl_takes_a_download_up_again() {
    let (weir, origin, _) = start("\"a\"");
    let target = weir.folder().join("file");
    let url = format!("http://{}/file", origin.address);
    let path = target.to_str().expect("a plain path").to_owned();
    let proxy = format!("http://{}", weir.proxy);
    let curl = |arguments: &[&str]| {
        let common = ["curl", "-sS", "-x", &proxy, "-o", &path];
        let mut command = std::process::Command::new("curl");
        command.args(&common[1..]).args(arguments).arg(&url);
        assert!(command.status().expect("curl runs").success());
    };
    curl(&["-r", "0-29999"]);
    curl(&["-C", "-"]);
    assert!(std::fs::read(&target).expect("a file") == content(1));
    assert_eq!(origin.requests().len(), 2);
    // Both parts are there now, and somebody else gets them.
    std::fs::remove_file(&target).expect("it is there");
    curl(&[]);
    assert!(std::fs::read(&target).expect("a file") == content(1));
    assert_eq!(origin.requests().len(), 2);
}

/// A client that leaves takes nothing with it but itself: what has arrived is kept.
#[test]
fn what_a_client_gave_up_is_completed() {
    let weir = Weir::explicit(CACHE);
    let (go, wait) = mpsc::channel();
    let server = halting(wait);
    let ask = |fields: &str| format!("GET http://{}/file HTTP/1.1\r\nHost: x\r\n{fields}\r\n", *server);
    let mut client = connect(weir.proxy);
    client.write_all(ask("").as_bytes()).expect("weir takes it");
    let mut half = vec![0; LENGTH / 2];
    http::read_head(&mut client);
    client.read_exact(&mut half).expect("a half");
    weir_tests::weir::reset(client);
    let first = "Range: bytes=0-9999\r\nCache-Control: only-if-cached\r\n";
    eventually("the half to be kept", || {
        let mut client = connect(weir.proxy);
        client.write_all(ask(first).as_bytes()).ok()?;
        (read_answer(&mut client, "GET").ok()?.status == 206).then_some(())
    });
    drop(go);
    let mut client = connect(weir.proxy);
    client.write_all(ask("").as_bytes()).expect("weir takes it");
    is_whole(&read_answer(&mut client, "GET").expect("an answer"), 1);
}
