//! The cache's store in Redis: shared by several weirs; and whatever becomes of the server, it costs nobody an answer, nor
//! much time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weir_tests::http::Answer;
use weir_tests::origin::{Origin, Request};
use weir_tests::pattern::Pattern;
use weir_tests::redis::{Redis, ask, cached, found, number, stored};
use weir_tests::scripts;
use weir_tests::weir::{SOON, Weir, eventually};

fn get(weir: &Weir, origin: &Origin, path: &str, fields: &str) -> Answer {
    ask(weir, origin, "GET", path, fields)
}

/// `/LENGTH/...` has so many bytes, which the path and X-Who tell.
fn expected(path: &str, who: &str) -> Vec<u8> {
    let length = path.split('/').nth(1).and_then(|length| length.parse().ok()).unwrap_or(0);
    Pattern::bytes(path.bytes().chain(who.bytes()).fold(7, |sum, byte| sum * 31 + u64::from(byte)), length)
}

fn origin() -> Origin {
    Origin::start(|request: &Request| {
        let path = request.head.split(' ').nth(1).unwrap_or_default();
        let body = expected(path, request.field("x-who").unwrap_or_default());
        let vary = if path.contains("/vary") { "Vary: X-Who\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n{vary}Surrogate-Key: all s{}\r\nContent-Length: {}\r\n\r\n",
            body.len(),
            body.len()
        );
        [head.into_bytes(), body].concat()
    })
}

#[test]
fn what_one_weir_has_stored_others_find() {
    for compression in ["none", "zstd"] {
        let (redis, origin) = (Redis::start(), origin());
        let more = format!(", compression: {compression}");
        let first = redis.weir(&more);
        let paths = ["/0", "/10", "/200000", "/1048576"];
        for path in paths {
            get(&first, &origin, path, "");
        }
        for who in ["me", "you"] {
            get(&first, &origin, "/100/vary", &format!("X-Who: {who}\r\n"));
        }
        // Larger than what is kept there.
        get(&first, &origin, "/1048577", "");
        stored(&first, 6);
        let second = redis.weir(&more);
        for path in paths {
            assert!(cached(&second, &origin, path) == Some(expected(path, "")), "{compression} {path}");
        }
        for who in ["me", "you"] {
            let fields = format!("X-Who: {who}\r\nCache-Control: only-if-cached\r\n");
            assert!(get(&second, &origin, "/100/vary", &fields).body == expected("/100/vary", who), "{who}");
        }
        let other = get(&second, &origin, "/100/vary", "X-Who: they\r\nCache-Control: only-if-cached\r\n");
        assert_eq!(other.status, 504);
        assert_eq!(cached(&second, &origin, "/1048577"), None);
        assert_eq!((origin.requests().len(), number(&second, "hits_total")), (7, 6));
        // What is found is in memory from then on.
        assert!(cached(&second, &origin, "/10").is_some());
        assert_eq!(number(&second, "hits_total"), 6);
        // An operator sees what is there, and for whom.
        let seen = scripts::stdout(&mut second.command(&["cache", "inspect", "*/vary"]));
        assert!(seen.contains("redis: 200 100 bytes") && seen.contains("x-who `you`"), "{seen}");
        let says = scripts::stdout(&mut second.command(&["cache", "stats"]));
        assert!(says.contains("redis (ready): 6 hits, "), "{says}");
        // Nothing stays there for ever.
        for key in redis.says(&["KEYS", "*"]) {
            let left: i64 = redis.says(&["PTTL", &key])[0].parse().expect("a number");
            assert!(
                key.starts_with("weir:http://127.0.0.1:") && (1..=600_000 + 3_600_000).contains(&left),
                "{key} {left}"
            );
        }
    }
}

#[test]
fn what_is_removed_is_removed_there_too() {
    let (redis, origin) = (Redis::start(), origin());
    let (first, other) = (redis.weir(""), redis.weir(", prefix: 'other:'"));
    redis.says(&["SET", "somebody's", "own"]);
    let paths: Vec<_> = (0..50).map(|number| format!("/{number}/x")).collect();
    for path in &paths {
        get(&first, &origin, path, "");
    }
    get(&other, &origin, "/7/x", "");
    stored(&first, 50);
    stored(&other, 1);
    let left = || redis.says(&["KEYS", "weir:*"]).len();
    let purge =
        |arguments: &[&str]| scripts::stdout(&mut first.command(&[&["cache", "purge"], arguments].concat()));
    assert_eq!((left(), purge(&["--tag", "s7"])), (50, "1 removed".to_owned()));
    assert_eq!((left(), purge(&["*/8/x"])), (49, "1 removed".to_owned()));
    assert_eq!((left(), purge(&["--tag", "s7"])), (48, "0 removed".to_owned()));
    ask(&first, &origin, "DELETE", "/9/x", "");
    eventually("it removed", || (left() == 47).then_some(()));
    assert_eq!(purge(&["nobody.example"]), "0 removed");
    assert_eq!(purge(&["127.0.0.1"]), "47 removed");
    assert_eq!((left(), redis.says(&["DBSIZE"])[0].as_str()), (0, "2"));
    assert!(cached(&other, &origin, "/7/x").is_some());
}

/// What weir could not remove because the server was gone is not found there when it is back.
#[test]
fn what_is_removed_while_it_is_gone_does_not_come_back() {
    let (mut redis, origin) =
        (Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]), origin());
    let weir = redis.weir("");
    for path in ["/10/deleted", "/10/purged", "/10/kept"] {
        get(&weir, &origin, path, "");
    }
    stored(&weir, 3);
    redis.kill();
    ask(&weir, &origin, "DELETE", "/10/deleted", "");
    assert_eq!(scripts::stdout(&mut weir.command(&["cache", "purge", "*/purged"])), "1 removed");
    assert!(cached(&weir, &origin, "/10/kept").is_some(), "it is in memory");
    redis.start_again(&["--appendonly", "yes"]);
    found(&weir);
    for (path, found) in [("/10/deleted", false), ("/10/purged", false), ("/10/kept", true)] {
        assert_eq!(cached(&weir, &origin, path).is_some(), found, "{path}");
    }
    assert_eq!(redis.says(&["KEYS", "weir:*"]).len(), 1);
}

#[test]
fn a_server_that_is_gone_costs_nobody_an_answer() {
    let (mut redis, origin) = (Redis::start(), origin());
    let weir = redis.weir("");
    get(&weir, &origin, "/10/before", "");
    stored(&weir, 1);
    redis.kill();
    for number in 0..50 {
        let path = format!("/1000/{number}");
        assert!(get(&weir, &origin, &path, "").body == expected(&path, ""), "{path}");
    }
    eventually("it noticed", || (number(&weir, "up") == 0).then_some(()));
    assert!(number(&weir, "breaker_opened_total") >= 1);
    let says = scripts::stdout(&mut weir.command(&["cache", "stats"]));
    assert!(says.contains("redis (unreachable): "), "{says}");
    redis.start_again(&["--save", ""]);
    found(&weir);
    get(&weir, &origin, "/10/after", "");
    eventually("something stored", || (redis.says(&["DBSIZE"])[0] == "1").then_some(()));
}

/// One that has never been there, too.
#[test]
fn weir_starts_without_its_server() {
    let origin = origin();
    let weir = Weir::explicit("cache: {enabled: true, redis: {url: 'redis://127.0.0.1:1'}}");
    for _ in 0..3 {
        assert!(get(&weir, &origin, "/10", "").body == expected("/10", ""));
    }
    assert_eq!((origin.requests().len(), number(&weir, "up")), (1, 0));
}

/// A server that has stopped holds up three searches, each for no longer than it may; after that, nobody.
#[test]
fn a_server_that_does_not_answer_costs_little_time() {
    let (redis, origin) = (Redis::start(), origin());
    let weir = Weir::explicit(&format!(
        "cache: {{enabled: true, redis: {{url: '{}', timeout: 100ms, connect_timeout: 200ms}}}}",
        redis.url()
    ));
    found(&weir);
    redis.signal(Signal::SIGSTOP);
    let began = Instant::now();
    for number in 0..100 {
        let path = format!("/1000/{number}");
        assert!(get(&weir, &origin, &path, "").body == expected(&path, ""), "{path}");
    }
    // A hundred times its limit would be that.
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    eventually("it noticed", || (number(&weir, "up") == 0).then_some(()));
    redis.signal(Signal::SIGCONT);
    found(&weir);
    let path = "/1000/again";
    get(&weir, &origin, path, "");
    eventually("something stored", || (redis.says(&["EXISTS", &key(&origin, path)])[0] == "1").then_some(()));
}

/// The key of a path in Redis.
fn key(origin: &Origin, path: &str) -> String {
    format!("weir:http://{}{path}", origin.address)
}

#[test]
fn garbage_is_a_miss_and_is_removed() {
    let (redis, origin) = (Redis::start(), origin());
    let writer = redis.weir("");
    let path = "/1000/x";
    get(&writer, &origin, path, "");
    stored(&writer, 1);
    let key = key(&origin, path);
    let field =
        redis.says(&["HKEYS", &key]).into_iter().find(|field| field.starts_with('v')).expect("a variant");
    // redis-cli prints the two lines of the name as two.
    let field = format!(
        "{field}\n{}",
        redis.says(&["HKEYS", &key]).into_iter().find(|line| line.len() == 16).expect("a hash")
    );
    for (what, command) in [
        ("another type", vec!["SET", &key, "garbage"]),
        ("a list", vec!["RPUSH", &key, "garbage"]),
        ("rubbish", vec!["HSET", &key, &field, "garbage"]),
        ("nothing", vec!["HSET", &key, &field, ""]),
        ("a version of the future", vec!["HSET", &key, &field, "\u{7}weircach"]),
    ] {
        redis.says(&["DEL", &key]);
        redis.says(&command);
        let weir = redis.weir("");
        let answer = get(&weir, &origin, path, "");
        assert!(answer.body == expected(path, ""), "{what}");
        assert!(
            answer.field("cache-status").is_some_and(|status| status.contains("miss")),
            "{what}: {}",
            answer.head
        );
        // It makes room for what is right.
        stored(&weir, 1);
        let reader = redis.weir("");
        assert!(cached(&reader, &origin, path) == Some(expected(path, "")), "{what}");
        assert_eq!((number(&weir, "damaged_total"), number(&weir, "up")), (1, 1), "{what}");
    }
    // Somebody has put the response to another request in this one's place.
    get(&writer, &origin, "/1000/other", "");
    stored(&writer, 2);
    redis.says(&["COPY", &format!("weir:http://{}/1000/other", origin.address), &key, "REPLACE"]);
    let weir = redis.weir("");
    assert!(get(&weir, &origin, path, "").body == expected(path, ""));
}

/// What it holds vanishes, and it is full, while requests are under way.
#[test]
fn whatever_becomes_of_what_it_holds_answers_are_right() {
    let (redis, origin) = (Redis::start(), origin());
    let weirs = [redis.weir(""), redis.weir(", compression: zstd")];
    let stop = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while stop.load(Ordering::SeqCst) < weirs.len() {
                redis.says(&["FLUSHALL"]);
                redis.says(&["CONFIG", "SET", "maxmemory", "1mb"]);
                redis.says(&["CONFIG", "SET", "maxmemory", "0"]);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        for weir in &weirs {
            let (origin, stop) = (&origin, &stop);
            scope.spawn(move || {
                let done = Done(stop);
                for round in 0..300 {
                    let path = format!("/{}/{}", 10_000 * (round % 7), round % 40);
                    assert!(get(weir, origin, &path, "").body == expected(&path, ""), "{path}");
                    if round % 10 == 0 {
                        ask(weir, origin, "DELETE", &path, "");
                    }
                }
                drop(done);
            });
        }
    });
    assert!(weirs.iter().all(|weir| number(weir, "damaged_total") == 0));
}

/// Counts up, whether its thread ends well or not.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Memory, disk and Redis: what is found in one is in those above it from then on.
#[test]
fn what_comes_from_below_rises() {
    let (redis, origin) = (Redis::start(), origin());
    let folder = Arc::new(tempfile::TempDir::new().expect("a folder"));
    let first = redis.weir("");
    get(&first, &origin, "/1000", "");
    stored(&first, 1);
    let start_with_disk = || {
        let weir = Weir::explicit(&format!(
            "cache: {{enabled: true, disk: {{path: '{}'}}, redis: {{url: '{}', timeout: 2s}}}}",
            folder.path().display(),
            redis.url()
        ));
        found(&weir);
        eventually("the disk read in", || (weir.metric("cache_store_up{store=\"disk\"}") == 1).then_some(()));
        weir
    };
    let second = start_with_disk();
    assert!(cached(&second, &origin, "/1000").is_some());
    eventually("it on disk", || (second.metric("cache_store_keys{store=\"disk\"}") == 1).then_some(()));
    drop(second);
    let third = start_with_disk();
    assert!(cached(&third, &origin, "/1000") == Some(expected("/1000", "")));
    assert_eq!(
        (number(&third, "hits_total"), third.metric("cache_store_hits_total{store=\"disk\"}")),
        (0, 1)
    );
    assert_eq!(scripts::stdout(&mut third.command(&["cache", "purge", "*"])), "1 removed");
    assert_eq!(cached(&third, &origin, "/1000"), None);
    assert_eq!(origin.requests().len(), 1);
}
