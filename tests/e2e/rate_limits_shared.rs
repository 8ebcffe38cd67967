//! Limits that two weirs share through Redis, and what becomes of them while it is gone.

use std::time::Instant;

use nix::sys::signal::Signal;
use weir_tests::origin::Origin;
use weir_tests::redis::Redis;
use weir_tests::weir::{Weir, connect, eventually};

const BURST: u64 = 10;

fn weir(redis: &Redis) -> Weir {
    Weir::explicit(&format!(
        "security: {{rate_limiting: {{enabled: true, requests_per_second: 1, burst: {BURST}, \
         redis: {{url: 'redis://127.0.0.1:{}', timeout: 2s}}}}}}",
        redis.port
    ))
}

fn passes(weir: &Weir, origin: &Origin) -> bool {
    let mut client = connect(weir.proxy);
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address);
    std::io::Write::write_all(&mut client, request.as_bytes()).expect("weir takes it");
    match weir_tests::origin::read_answer(&mut client, "GET").expect("an answer").status {
        200 => true,
        429 => false,
        other => panic!("status {other}"),
    }
}

/// How many of forty pass, by turns, and the most that may by then.
fn of_forty(weirs: [&Weir; 2], origin: &Origin) -> (u64, u64) {
    let began = Instant::now();
    let passed = (0..40).filter(|turn| passes(weirs[turn % 2], origin)).count() as u64;
    (passed, began.elapsed().as_secs() + 1)
}

#[test]
fn what_one_has_let_pass_the_other_counts() {
    let mut redis = Redis::start();
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let (one, other) = (weir(&redis), weir(&redis));
    for weir in [&one, &other] {
        eventually("Redis found", || weir.log().contains("limits are shared through Redis").then_some(()));
    }
    let (passed, refilled) = of_forty([&one, &other], &origin);
    assert!((BURST..=BURST + refilled).contains(&passed), "{passed} of both");
    assert!(redis.says(&["KEYS", "*"]).iter().any(|key| key.contains("weir:limit:127.0.0.1")));
    redis.kill();
    for weir in [&one, &other] {
        // Its own bucket is full: nothing was taken from it.
        eventually("each for itself", || passes(weir, &origin).then_some(()));
        eventually("that is told", || weir.log().contains("this weir limits for itself").then_some(()));
    }
    let (passed, refilled) = of_forty([&one, &other], &origin);
    assert!((2 * (BURST - 3)..=2 * (BURST + refilled)).contains(&passed), "{passed} of each for itself");
    redis.start_again(&["--save", "", "--appendonly", "no"]);
    eventually("Redis found again", || {
        let found = |weir: &Weir| weir.log().matches("limits are shared through Redis").count() == 2;
        (found(&one) && found(&other)).then_some(())
    });
    let (passed, refilled) = of_forty([&one, &other], &origin);
    assert!((BURST..=BURST + refilled).contains(&passed), "{passed} of both again");
}

/// Whoever is stopped answers late, and nobody waits for it twice.
#[test]
fn a_redis_that_is_late_keeps_nobody_waiting() {
    let redis = Redis::start();
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let weir = Weir::explicit(&format!(
        "security: {{rate_limiting: {{enabled: true, requests_per_second: 1000, burst: 1000, \
         redis: {{url: 'redis://127.0.0.1:{}', timeout: 100ms}}}}}}",
        redis.port
    ));
    eventually("Redis found", || weir.log().contains("limits are shared through Redis").then_some(()));
    redis.signal(Signal::SIGSTOP);
    for _ in 0..50 {
        assert!(passes(&weir, &origin));
    }
    assert!(weir.log().contains("this weir limits for itself"));
}
