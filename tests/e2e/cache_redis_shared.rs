//! Weirs that share a Redis: what one removes, and how they speak with it.

use std::io::Write;
use std::path::Path;

use weir_tests::certificates::Authority;
use weir_tests::http::Answer;
use weir_tests::origin::{Origin, read_answer};
use weir_tests::redis::Redis;
use weir_tests::scripts;
use weir_tests::weir::{Weir, connect, eventually, free_port};

/// A weir that stores in Redis. `more` is further configuration of that.
fn start(redis: &Redis, more: &str) -> Weir {
    let weir = Weir::explicit(&format!(
        "cache: {{enabled: true, redis: {{url: '{}', timeout: 2s{more}}}}}",
        redis.url()
    ));
    eventually("Redis found", || (number(&weir, "up") == 1).then_some(()));
    weir
}

fn number(weir: &Weir, name: &str) -> u64 {
    weir.metric(&format!("cache_store_{name}{{store=\"redis\"}}"))
}

fn stored(weir: &Weir, count: u64) {
    eventually("everything stored", || (number(weir, "stores_total") >= count).then_some(()));
}

fn ask(weir: &Weir, origin: &Origin, method: &str, fields: &str) -> Answer {
    let mut client = connect(weir.proxy);
    write!(client, "{method} http://{}/10/x HTTP/1.1\r\nHost: x\r\n{fields}\r\n", origin.address)
        .expect("weir takes it");
    read_answer(&mut client, method).expect("an answer")
}

/// What there is without asking the origin.
fn cached(weir: &Weir, origin: &Origin) -> Option<String> {
    let answer = ask(weir, origin, "GET", "Cache-Control: only-if-cached\r\n");
    (answer.status == 200).then(|| answer.text())
}

fn origin() -> Origin {
    Origin::fixed(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nSurrogate-Key: s10\r\nContent-Length: 5\r\n\r\nhello",
    )
}

/// Waits until so many weirs hear what others remove.
fn listening(redis: &Redis, count: &str) {
    eventually("them to listen", || {
        let says = redis.says(&["PUBSUB", "NUMSUB", "weir:removed"]);
        (says.last().map(String::as_str) == Some(count)).then_some(())
    });
}

/// Through TLS, and only to a server whose certificate is good.
#[test]
fn the_connection_can_be_encrypted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (port, certificate) = (free_port(), authority.issue("redis", "IP:127.0.0.1"));
    let path = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let (cert, key) = (path(&certificate.certificate), path(&certificate.key));
    let port_text = port.to_string();
    let options = ["--tls-port", &port_text, "--tls-auth-clients", "no", "--tls-cert-file", &cert];
    let ca = path(&authority.certificate());
    let more = ["--tls-key-file", &key, "--tls-ca-cert-file", &ca, "--save", ""];
    let redis = Redis::start_with(&[&options[..], &more].concat());
    let origin = origin();
    let start = |ca: &Path| {
        Weir::explicit(&format!(
            "cache: {{enabled: true, redis: {{url: 'rediss://127.0.0.1:{port}', timeout: 2s, ca: '{}'}}}}\n\
             logging: {{level: 'info,weir::cache=debug'}}",
            ca.display()
        ))
    };
    let weir = start(&authority.certificate());
    eventually("Redis found", || (number(&weir, "up") == 1).then_some(()));
    ask(&weir, &origin, "GET", "");
    stored(&weir, 1);
    let other = start(&authority.certificate());
    eventually("an answer from there", || cached(&other, &origin));
    listening(&redis, "2");
    let distrusts = start(&stranger.certificate());
    ask(&distrusts, &origin, "GET", "");
    eventually("it to be tried", || distrusts.log().contains("can't connect to Redis").then_some(()));
    assert_eq!((number(&distrusts, "up"), number(&distrusts, "stores_total")), (0, 0));
    assert_eq!(redis.says(&["DBSIZE"]), ["1"]);
}

/// What one weir removes, others that share the server do not keep for themselves.
#[test]
fn what_one_weir_removes_others_forget() {
    let (redis, origin) = (Redis::start(), origin());
    let (first, second) = (start(&redis, ""), start(&redis, ""));
    let other = start(&redis, ", prefix: 'other:'");
    listening(&redis, "2");
    let purge =
        |arguments: &[&str]| scripts::stdout(&mut first.command(&[&["cache", "purge"], arguments].concat()));
    type Remove<'a> = (&'a str, &'a dyn Fn());
    let ways: [Remove<'_>; 5] = [
        ("an unsafe method", &|| drop(ask(&first, &origin, "DELETE", ""))),
        ("a tag", &|| drop(purge(&["--tag", "s10"]))),
        ("a URL", &|| drop(purge(&["*/10/x"]))),
        ("a host", &|| drop(purge(&["127.0.0.1"]))),
        ("everything", &|| drop(purge(&["*"]))),
    ];
    ask(&other, &origin, "GET", "");
    for (number, (way, remove)) in ways.into_iter().enumerate() {
        ask(&first, &origin, "GET", "");
        stored(&first, number as u64 + 1);
        assert!(cached(&second, &origin).is_some(), "{way}");
        remove();
        eventually(way, || cached(&second, &origin).is_none().then_some(()));
    }
    assert!(cached(&other, &origin).is_some(), "that is none of theirs");
}
