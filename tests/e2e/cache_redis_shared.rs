//! Weirs that share a Redis: what one removes, and how they speak with it.

use std::path::Path;

use weir_tests::certificates::Authority;
use weir_tests::origin::Origin;
use weir_tests::redis::{Redis, ask, cached, found, number, stored};
use weir_tests::scripts;
use weir_tests::weir::{Weir, eventually, free_port};

const PATH: &str = "/10/x";

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
    found(&weir);
    ask(&weir, &origin, "GET", PATH, "");
    stored(&weir, 1);
    let other = start(&authority.certificate());
    eventually("an answer from there", || cached(&other, &origin, PATH));
    listening(&redis, "2");
    let distrusts = start(&stranger.certificate());
    ask(&distrusts, &origin, "GET", PATH, "");
    eventually("it to be tried", || distrusts.log().contains("can't connect to Redis").then_some(()));
    assert_eq!((number(&distrusts, "up"), number(&distrusts, "stores_total")), (0, 0));
    assert_eq!(redis.says(&["DBSIZE"]), ["1"]);
}

/// What one weir removes, others that share the server do not keep for themselves.
#[test]
fn what_one_weir_removes_others_forget() {
    let (redis, origin) = (Redis::start(), origin());
    let (first, second) = (redis.weir(""), redis.weir(""));
    let other = redis.weir(", prefix: 'other:'");
    listening(&redis, "2");
    let purge =
        |arguments: &[&str]| scripts::stdout(&mut first.command(&[&["cache", "purge"], arguments].concat()));
    type Remove<'a> = (&'a str, &'a dyn Fn());
    let ways: [Remove<'_>; 5] = [
        ("an unsafe method", &|| drop(ask(&first, &origin, "DELETE", PATH, ""))),
        ("a tag", &|| drop(purge(&["--tag", "s10"]))),
        ("a URL", &|| drop(purge(&["*/10/x"]))),
        ("a host", &|| drop(purge(&["127.0.0.1"]))),
        ("everything", &|| drop(purge(&["*"]))),
    ];
    ask(&other, &origin, "GET", PATH, "");
    for (number, (way, remove)) in ways.into_iter().enumerate() {
        ask(&first, &origin, "GET", PATH, "");
        stored(&first, number as u64 + 1);
        assert!(cached(&second, &origin, PATH).is_some(), "{way}");
        remove();
        eventually(way, || cached(&second, &origin, PATH).is_none().then_some(()));
    }
    assert!(cached(&other, &origin, PATH).is_some(), "that is none of theirs");
}
