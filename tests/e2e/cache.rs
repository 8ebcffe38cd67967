//! The cache: what is answered from store, what never is, and who can't be stopped from getting an answer.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use weir_tests::http::{self, Answer};
use weir_tests::origin::{Origin, Request, chunked, read_answer};
use weir_tests::pattern::Pattern;
use weir_tests::scripts;
use weir_tests::weir::{Weir, connect, eventually};

const CACHE: &str = "cache: {enabled: true}";

/// A GET of `path` through weir, on a connection of its own.
fn get(weir: &Weir, origin: &Origin, path: &str, fields: &str) -> Answer {
    ask(weir, origin, "GET", path, fields)
}

fn ask(weir: &Weir, origin: &Origin, method: &str, path: &str, fields: &str) -> Answer {
    let mut client = connect(weir.proxy);
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    write!(client, "{method} http://{}{path} HTTP/1.1\r\nHost: x\r\n{length}{fields}\r\n", origin.address)
        .expect("weir takes it");
    read_answer(&mut client, method).expect("an answer")
}

fn ok(fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// An origin that counts: each answer has the number of the request in it.
fn counting(fields: &'static str) -> Origin {
    let count = Arc::new(AtomicUsize::new(0));
    Origin::start(move |_| ok(fields, &format!("answer {}", count.fetch_add(1, Ordering::SeqCst))))
}

fn status_of(answer: &Answer) -> &str {
    answer.field("cache-status").unwrap_or("none")
}

#[test]
fn a_fresh_response_is_asked_for_once_by_all_workers() {
    let weir = Weir::explicit("cache: {enabled: true}\nserver: {workers: 2}");
    let origin = counting("Cache-Control: max-age=60\r\n");
    let first = get(&weir, &origin, "/", "");
    assert_eq!((first.text().as_str(), status_of(&first)), ("answer 0", "weir; fwd=uri-miss; stored"));
    for _ in 0..8 {
        let answer = get(&weir, &origin, "/", "");
        assert_eq!((answer.status, answer.text().as_str()), (200, "answer 0"));
        assert!(status_of(&answer).starts_with("weir; hit; ttl="), "{}", answer.head);
        assert!(answer.field("age").is_some_and(|age| age.parse::<u64>().is_ok()), "{}", answer.head);
    }
    assert_eq!(origin.requests().len(), 1);
    let hits: Vec<_> = weir.flows(9).into_iter().filter(|flow| flow["cache"] == "hit").collect();
    assert_eq!((hits.len(), weir.metric("cache_hits_total")), (8, 8));
    let head = ask(&weir, &origin, "HEAD", "/", "");
    assert_eq!((head.field("content-length"), head.body.len()), (Some("8"), 0));
    assert_eq!(origin.requests().len(), 1);
}

/// What costs nothing where nobody asked for it must not show, either.
#[test]
fn without_a_cache_nothing_is_stored_or_said() {
    let weir = Weir::explicit("");
    let origin = counting("Cache-Control: max-age=60\r\n");
    for number in 0..2 {
        let answer = get(&weir, &origin, "/", "");
        assert_eq!((answer.text(), status_of(&answer)), (format!("answer {number}"), "none"));
    }
}

#[test]
fn curl_gets_the_same_bytes_again() {
    let weir = Weir::explicit(CACHE);
    let body: Vec<u8> = Pattern::bytes(7, 3_000_000);
    let sent = body.clone();
    let origin = Origin::start(move |_| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"a\"\r\nContent-Length: {}\r\n\r\n",
            sent.len()
        );
        [head.as_bytes(), &sent].concat()
    });
    let url = format!("http://{}/large", origin.address);
    let out = weir.folder().join("out");
    for range in ["", "0-99", "1000000-1999999", "2999990-", "-7"] {
        let mut arguments = vec!["-f", "-o", out.to_str().expect("a path"), &url];
        if !range.is_empty() {
            arguments.extend(["-r", range]);
        }
        let output = weir.curl(&arguments).output().expect("curl runs");
        assert!(output.status.success(), "{output:?}");
        let got = std::fs::read(&out).expect("what curl wrote");
        let expected = match range {
            "" => &body[..],
            "0-99" => &body[..100],
            "1000000-1999999" => &body[1_000_000..2_000_000],
            "2999990-" => &body[2_999_990..],
            _ => &body[body.len() - 7..],
        };
        assert!(got == expected, "range {range:?}: {} bytes", got.len());
    }
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_stale_response_is_validated_and_renewed() {
    let weir = Weir::explicit(CACHE);
    let origin = Origin::start(|request: &Request| match request.field("if-none-match") {
        Some("\"a\"") => {
            b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=60\r\nX: new\r\n\r\n"
                .to_vec()
        }
        _ => ok("ETag: \"a\"\r\nCache-Control: max-age=0\r\nX: old\r\n", "content"),
    });
    assert_eq!(get(&weir, &origin, "/", "").field("x"), Some("old"));
    let validated = get(&weir, &origin, "/", "");
    assert_eq!((validated.text().as_str(), validated.field("x")), ("content", Some("new")));
    assert_eq!(status_of(&validated), "weir; fwd=stale; fwd-status=304");
    assert!(status_of(&get(&weir, &origin, "/", "")).starts_with("weir; hit"));
    let known = get(&weir, &origin, "/", "If-None-Match: W/\"a\"\r\n");
    assert_eq!((known.status, known.field("etag"), known.body.len()), (304, Some("\"a\""), 0));
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn while_it_is_validated_in_the_background_a_stale_response_is_used() {
    let weir = Weir::explicit(CACHE);
    let count = Arc::new(AtomicUsize::new(0));
    let origin = Origin::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => ok("Cache-Control: max-age=1, stale-while-revalidate=60\r\n", "answer 0"),
        later => ok("Cache-Control: max-age=60\r\n", &format!("answer {later}")),
    });
    assert_eq!(get(&weir, &origin, "/", "").text(), "answer 0");
    std::thread::sleep(Duration::from_millis(1100));
    let stale = get(&weir, &origin, "/", "");
    assert_eq!(stale.text(), "answer 0");
    assert!(status_of(&stale).contains("hit; ttl=-"), "{}", stale.head);
    eventually("a renewed response", || (get(&weir, &origin, "/", "").text() == "answer 1").then_some(()));
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn an_origin_that_fails_is_stood_in_for() {
    let weir = Weir::explicit(CACHE);
    let down = Arc::new(AtomicUsize::new(0));
    let state = Arc::clone(&down);
    let origin = Origin::start(move |request: &Request| {
        match (state.load(Ordering::SeqCst), request.head.contains("/sie")) {
            (0, true) => ok("Cache-Control: max-age=0, stale-if-error=60\r\nETag: \"a\"\r\n", "good"),
            (0, false) => ok("Cache-Control: max-age=0, must-revalidate\r\nETag: \"a\"\r\n", "good"),
            (1, _) => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nbad".to_vec(),
            // It closes the connection without a word.
            _ => Vec::new(),
        }
    });
    for path in ["/sie", "/strict"] {
        assert_eq!(get(&weir, &origin, path, "").text(), "good");
    }
    for failure in [1, 2] {
        down.store(failure, Ordering::SeqCst);
        assert_eq!(get(&weir, &origin, "/sie", "").text(), "good", "failure {failure}");
        let strict = get(&weir, &origin, "/strict", "");
        assert_eq!(strict.status, if failure == 1 { 503 } else { 502 });
    }
}

/// A body that was cut off is not whole, and no later client may take it for that.
#[test]
fn what_is_cut_off_is_never_stored() {
    let weir = Weir::explicit(CACHE);
    let cut: &[&str] = &[
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        // Whether this is all of it can't be known.
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: close\r\n\r\nhello",
    ];
    for answer in cut {
        let origin = Origin::fixed(answer);
        for _ in 0..2 {
            let mut client = connect(weir.proxy);
            write!(client, "GET http://{}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", origin.address)
                .expect("weir takes it");
            let mut bytes = Vec::new();
            let _ = client.read_to_end(&mut bytes);
            assert!(String::from_utf8_lossy(&bytes).contains("hello"));
        }
        assert_eq!(origin.requests().len(), 2, "stored: {answer}");
    }
}

/// Nobody knows beforehand how long it is.
#[test]
fn what_comes_in_chunks_is_stored_up_to_the_largest_object() {
    let weir = Weir::explicit(CACHE);
    for (length, is_stored) in [(3_000_000, true), (9_000_000, false)] {
        let content = Pattern::bytes(length, length as usize);
        let of_origin = content.clone();
        let origin = Origin::start(move |_| {
            let head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";
            [head, &chunked(&of_origin)[..]].concat()
        });
        for _ in 0..2 {
            assert!(get(&weir, &origin, "/", "").body == content, "{length}");
        }
        assert_eq!(origin.requests().len(), if is_stored { 1 } else { 2 }, "{length}");
    }
}

/// RFC 9111 §4.4
#[test]
fn what_is_changed_is_forgotten() {
    let weir = Weir::explicit(CACHE);
    let origin = counting("Cache-Control: max-age=60\r\n");
    for (method, forgets) in
        [("POST", true), ("DELETE", true), ("PUT", true), ("FROB", true), ("OPTIONS", false)]
    {
        let path = format!("/{method}");
        let before = get(&weir, &origin, &path, "").text();
        ask(&weir, &origin, method, &path, if method == "PUT" { "Content-Length: 0\r\n" } else { "" });
        assert_eq!(get(&weir, &origin, &path, "").text() != before, forgets, "{method}");
    }
}

#[test]
fn only_if_cached_asks_nobody() {
    let weir = Weir::explicit(CACHE);
    let origin = counting("Cache-Control: max-age=60\r\n");
    assert_eq!(get(&weir, &origin, "/", "Cache-Control: only-if-cached\r\n").status, 504);
    assert_eq!(origin.requests().len(), 0);
    get(&weir, &origin, "/", "");
    assert_eq!(get(&weir, &origin, "/", "Cache-Control: only-if-cached\r\n").status, 200);
    assert_eq!(origin.requests().len(), 1);
}

/// As the gateway, weir is a cache of the origin's own: RFC 9213 lets that be told something else than all others.
#[test]
fn the_gateway_caches_apart_from_the_proxy() {
    let origin = counting("Cache-Control: no-store\r\nCDN-Cache-Control: max-age=60\r\n");
    let weir = Weir::explicit(&format!("{CACHE}\nrouting: {{default_backend: 'http://{}'}}", origin.address));
    let through = || http::get(weir.proxy, "/").expect("an answer").text();
    assert_eq!((through(), through()), ("answer 0".into(), "answer 0".into()));
    // A proxy is no part of the origin: for it, the response is not to be stored.
    assert_eq!(get(&weir, &origin, "/", "").text(), "answer 1");
    assert_eq!(get(&weir, &origin, "/", "").text(), "answer 2");
    assert_eq!(through(), "answer 0");
}

/// The standard library's server says Last-Modified and nothing of freshness: a tenth of the file's age is allowed.
#[test]
fn a_file_that_has_long_been_the_same_is_used_again() {
    let weir = Weir::explicit(CACHE);
    let script = "import http.server, os, sys, threading\n\
         os.chdir(sys.argv[1])\n\
         open('old', 'w').write('content'); os.utime('old', (1e9, 1e9))\n\
         s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n\
         threading.Thread(target=s.serve_forever, daemon=True).start()\n\
         import urllib.request\n\
         urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({'http': sys.argv[2]})))\n\
         for _ in range(2):\n\
         \x20   a = urllib.request.urlopen(f'http://127.0.0.1:{s.server_port}/old')\n\
         \x20   print(a.read().decode(), a.headers['Cache-Status'])\n";
    let proxy = format!("http://{}", weir.proxy);
    let mut python = std::process::Command::new("python3");
    python.args(["-c", script, weir.folder().to_str().expect("a path"), &proxy]);
    let said = scripts::stdout(&mut python);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "content weir; fwd=uri-miss; stored", "{said}");
    assert!(lines[1].starts_with("content weir; hit; ttl="), "{said}");
}

#[test]
fn what_is_stored_can_be_seen_and_removed() {
    let weir = Weir::explicit(CACHE);
    let origin = counting(
        "Cache-Control: max-age=60\r\nVary: X-Who\r\nSurrogate-Key: one two\r\nCache-Tag: three, four\r\n",
    );
    let say = |arguments: &[&str]| scripts::stdout(&mut weir.command(&[&["cache"], arguments].concat()));
    let fill = || {
        get(&weir, &origin, "/a", "X-Who: me\r\n");
        get(&weir, &origin, "/b", "");
    };
    fill();
    let seen = say(&["inspect", &format!("http://{}/*", origin.address)]);
    assert!(
        seen.contains("/a\n  200 8 bytes, age 0 s, fresh for ") && seen.contains(", x-who `me`"),
        "{seen}"
    );
    assert!(seen.contains(", x-who absent"), "{seen}");
    assert!(say(&["stats"]).starts_with("2 URLs in "), "{}", say(&["stats"]));
    for (arguments, removed) in [
        (["purge", "other.example"].as_slice(), 0),
        (&["purge", "127.0.0.1"], 2),
        (&["purge", "*/a"], 1),
        (&["purge", "--tag", "two"], 2),
        (&["purge", "--tag", "four"], 2),
        (&["purge", "--tag", "thre"], 0),
        (&["purge", "*"], 2),
    ] {
        fill();
        assert_eq!(say(arguments), format!("{removed} removed"), "{arguments:?}");
    }
    // Over TCP, which every local user reaches, nobody sees URLs or removes anything.
    assert_eq!(http::get(weir.admin, "/admin/cache/entries?pattern=*").expect("an answer").status, 403);
    let stats = http::get(weir.admin, "/admin/cache/stats").expect("an answer").json();
    assert_eq!((&stats["enabled"], &stats["memory"]["keys"]), (&true.into(), &0.into()));
}

/// Whoever asks why something is not stored is told, for as long as it is remembered.
#[test]
fn what_is_not_stored_can_be_asked_about() {
    let weir = Weir::explicit(CACHE);
    let origin = Origin::start(|request: &Request| match request.head.split(' ').nth(1) {
        Some("/private") => ok("Cache-Control: private\r\n", "x"),
        Some("/silent") => ok("", "x"),
        Some("/cut") => {
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nConnection: close\r\nContent-Length: 9\r\n\r\nx"
                .to_vec()
        }
        _ => ok("Cache-Control: max-age=60\r\nETag: \"a\"\r\n", "x"),
    });
    let inspect = |path: &str| {
        let url = format!("http://{}{path}", origin.address);
        scripts::stdout(&mut weir.command(&["cache", "inspect", &url]))
    };
    for (path, fields, expected) in [
        ("/private", "", "s ago, private: it is for one user"),
        ("/silent", "", "s ago, no freshness: it does not say how long it is good for"),
        ("/", "Authorization: Basic eA==\r\n", "s ago, authorization: the request had"),
        ("/", "X-Forwarded-Host: y\r\n", "s ago, unkeyed request field: "),
    ] {
        get(&weir, &origin, path, fields);
        assert!(inspect(path).contains(expected), "{}", inspect(path));
    }
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{}/cut HTTP/1.1\r\nHost: x\r\n\r\n", origin.address).expect("weir takes it");
    let _ = client.read_to_end(&mut Vec::new());
    assert!(inspect("/cut").contains("ago, cut off: it ended before its end"), "{}", inspect("/cut"));
    assert!(inspect("/never").contains("nothing is known"), "{}", inspect("/never"));
    get(&weir, &origin, "/", "");
    let both = inspect("/");
    assert!(both.contains("\n  200 1 bytes, age ") && both.contains("not stored"), "{both}");
}

/// An answer that was on its way when it was removed is older than that.
#[test]
fn what_is_removed_while_it_arrives_is_not_stored() {
    let weir = Weir::explicit(CACHE);
    let (asked, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (noted, waits) = (Arc::clone(&asked), Arc::clone(&go));
    let origin = Origin::start(move |request: &Request| {
        if request.head.contains("/slow") {
            noted.wait();
            waits.wait();
        }
        ok("Cache-Control: max-age=60\r\n", "content")
    });
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| get(&weir, &origin, "/slow", "").text());
        asked.wait();
        scripts::stdout(&mut weir.command(&["cache", "purge", "*"]));
        go.wait();
        assert_eq!(slow.join().expect("an answer"), "content");
    });
    assert_eq!(get(&weir, &origin, "/slow", "Cache-Control: only-if-cached\r\n").status, 504);
}
