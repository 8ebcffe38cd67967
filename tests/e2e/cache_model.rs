//! Random histories of requests and responses, each answer judged by a model of RFC 9111: no byte that is stale, or
//! somebody else's, is given out unless the RFC allows it.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use weir_tests::cache_model::{self, Conditions, History, Plan, Said, Wish};
use weir_tests::origin::{Origin, Request, read_answer};
use weir_tests::pattern::Pattern;
use weir_tests::weir::{Weir, connect};

const HISTORIES: usize = 10_000;
const CLIENTS: usize = 4;

/// Of one history.
const REQUESTS: usize = 8;

/// The state of one history, for its client and its origin: what is asked, and how the origin will answer that.
#[derive(Default)]
struct Stage {
    history: History,
    asked: Vec<(Wish, Plan)>,
}

type Stages = Arc<Mutex<HashMap<usize, Stage>>>;

#[test]
fn no_byte_that_is_stale_or_foreign() {
    let weir = Weir::explicit("cache: {enabled: true}\nserver: {workers: 2}\nlogging: {access: false}");
    let stages = Stages::default();
    let on_stage = Arc::clone(&stages);
    let origin = Origin::start(move |request: &Request| play(&on_stage, request));
    let (next, reused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = connect(weir.proxy);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= HISTORIES {
                        return;
                    }
                    reused.fetch_add(run(seed, &mut client, &origin, &stages), Ordering::Relaxed);
                }
            });
        }
    });
    // Without that, nothing would have been judged.
    let share = reused.into_inner() as f64 / (HISTORIES * REQUESTS) as f64;
    assert!(share > 0.1, "{share:.3} of the answers came from store");
}

impl fmt::Display for Stage {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (wish, plan) in &self.asked {
            let said = self.history.said.iter().filter(|(id, _)| *id == wish.id).map(|(_, said)| said);
            writeln!(text, "{wish:?}\n    {plan:?}\n    origin: {:?}", said.collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// Runs one history. How many of its answers came from store.
fn run(seed: usize, client: &mut TcpStream, origin: &Origin, stages: &Stages) -> usize {
    let mut random = Pattern::new(seed as u64);
    lock(stages).insert(seed, Stage::default());
    let mut reused = 0;
    for id in 0..REQUESTS {
        let known = lock(stages)[&seed].history.made.len();
        let (wish, mut plan) = (wish(&mut random, seed, id, known), plan(&mut random));
        if wish.method == "HEAD" {
            // A representation of its own: nothing in it may look like another's (RFC 9111 §4.3.5).
            plan = Plan { etag: Some(""), last_modified: false, ..plan };
        }
        if let Some(stage) = lock(stages).get_mut(&seed) {
            stage.asked.push((wish.clone(), plan));
        }
        client.write_all(ask(&wish, seed, origin).as_bytes()).expect("weir takes it");
        let answer = read_answer(client, wish.method).expect("an answer");
        if answer.field("connection") == Some("close") {
            *client = connect(client.peer_addr().expect("a connected socket"));
        }
        let guard = lock(stages);
        match guard[&seed].history.judge(&wish, &answer) {
            Ok(from_store) => reused += usize::from(from_store),
            Err(why) => {
                panic!(
                    "history {seed}, request {id}: {why}\n{}\n{}\n{}",
                    answer.head,
                    answer.text(),
                    guard[&seed]
                )
            }
        }
    }
    lock(stages).remove(&seed);
    reused
}

/// The origin's answer to a request of some history.
fn play(stages: &Stages, request: &Request) -> Vec<u8> {
    let number = |name: &str| request.field(name).and_then(|text| text.parse::<usize>().ok());
    let (seed, id) = number("x-history").zip(number("x-request")).expect("both fields");
    let mut stages = lock(stages);
    // A validation in the background may come after its history.
    let Some(stage) = stages.get_mut(&seed) else { return Vec::new() };
    let (wish, plan) = stage.asked[id].clone();
    let field = |name: &str| request.field(name);
    let conditions = Conditions { if_none_match: field("if-none-match"), if_range: field("if-range") };
    let said = stage.history.answer(&wish, conditions, plan);
    // weir asks for what it lacks, which may be more or less than its client wants; RFC 9110 §13.1.5: all of what is new.
    let is_condition_of_range = conditions.if_range.is_some() && conditions.if_none_match.is_none();
    let range = field("range").filter(|_| !is_condition_of_range || matches!(said, Said::Continued(_)));
    cache_model::response(said, &stage.history, &wish, range)
}

fn lock(stages: &Stages) -> std::sync::MutexGuard<'_, HashMap<usize, Stage>> {
    stages.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ask(wish: &Wish, seed: usize, origin: &Origin) -> String {
    let mut head = format!(
        "{} http://{}{} HTTP/1.1\r\nHost: x\r\nX-History: {seed}\r\nX-Request: {}\r\n",
        wish.method, origin.address, wish.path, wish.id
    );
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    };
    add("Accept", wish.accept);
    add("X-Language", wish.language);
    add("Authorization", if wish.authorized { "Basic eDp5" } else { "" });
    add("Cache-Control", wish.cache_control);
    add("Range", wish.range.unwrap_or_default());
    add("If-None-Match", wish.if_none_match.as_deref().unwrap_or_default());
    add("Content-Length", if matches!(wish.method, "POST" | "PUT") { "0" } else { "" });
    head + "\r\n"
}

fn one<T: Copy>(random: &mut Pattern, of: &[T]) -> T {
    of[random.number(of.len() as u64) as usize]
}

fn wish(random: &mut Pattern, seed: usize, id: usize, known: usize) -> Wish {
    let of_ten = |random: &mut Pattern| random.number(10);
    let method = one(random, &["GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "other"]);
    let method = if method == "other" { one(random, &["POST", "PUT", "DELETE", "OPTIONS"]) } else { method };
    let path = format!("/{seed}/{}", one(random, &["a", "a", "b?c"]));
    let cache_control = match of_ten(random) {
        0 => one(
            random,
            &["no-cache", "no-store", "max-age=0", "max-age=60", "min-fresh=60", "only-if-cached"],
        ),
        1 => one(random, &["max-stale", "max-stale=10", "max-stale=600", "max-age=600, max-stale=600"]),
        _ => "",
    };
    let plain = of_ten(random) < 8 || method == "OPTIONS";
    Wish {
        id,
        method,
        path,
        accept: one(random, &["", "a", "b"]),
        language: one(random, &["", "", "x"]),
        authorized: of_ten(random) == 0,
        cache_control,
        range: (!plain && of_ten(random) < 5).then(|| one(random, &["bytes=0-4", "bytes=5-", "bytes=-3"])),
        if_none_match: (!plain && known > 0 && of_ten(random) < 5).then(|| {
            let kind = one(random, &["", "W/"]);
            cache_model::etag(kind, random.number(known as u64) as usize)
        }),
    }
}

fn plan(random: &mut Pattern) -> Plan {
    let cache_control = one(
        random,
        &[
            "",
            "",
            "max-age=100",
            "max-age=100",
            "max-age=1000",
            "max-age=0",
            "max-age=100, must-revalidate",
            "max-age=100, proxy-revalidate",
            "s-maxage=100, max-age=0",
            "max-age=100, s-maxage=0",
            "no-cache",
            "no-cache, max-age=100",
            "no-store",
            "no-store, max-age=100",
            "must-understand, no-store, max-age=100",
            "private, max-age=100",
            "public",
            "public, max-age=100",
            "max-age=0, stale-while-revalidate=1000",
            "max-age=100, stale-while-revalidate=1000",
            "max-age=0, stale-if-error=1000",
            "max-age=100, immutable",
        ],
    );
    Plan {
        status: one(random, &[200, 200, 200, 200, 200, 200, 200, 200, 204, 301, 302, 404, 500, 503]),
        cache_control,
        age: one(random, &[0, 0, 0, 50, 500]),
        made: one(random, &[0, 0, 0, 50, 500]),
        expires: one(random, &[None, None, None, Some(0), Some(100), Some(1000)]),
        last_modified: one(random, &[false, false, true]),
        vary: one(random, &["", "", "", "Accept", "Accept, X-Language", "*"]),
        etag: one(random, &[None, Some(""), Some(""), Some("W/")]),
        honours: random.number(4) > 0,
        breaks: random.number(20) == 0,
        authorized: false,
    }
}
