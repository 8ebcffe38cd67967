//! Groups of backends: who of their members gets a request, as clients and servers see it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

use weir_tests::http::{self, Answer};
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{Weir, connect, eventually};

/// Servers that say who they are.
fn origins(names: &[&str]) -> Vec<Origin> {
    let answer = |name: &&str| format!("HTTP/1.1 200 OK\r\nX-Is: {name}\r\nContent-Length: 0\r\n\r\n");
    names.iter().map(|name| Origin::fixed(&answer(name))).collect()
}

/// A weir with all of them in a group called shop, with these settings more.
fn group(origins: &[Origin], settings: &str) -> String {
    let mut text =
        format!("routing:\n  default_backend: shop\n  backends:\n  - name: shop\n{settings}    members:\n");
    for (number, origin) in origins.iter().enumerate() {
        let _ = writeln!(text, "    - {{url: 'http://{}', name: m{number}}}", origin.address);
    }
    text
}

#[track_caller]
fn ask(weir: &Weir, fields: &str) -> Answer {
    let request = format!("GET /a HTTP/1.1\r\nHost: shop.example\r\n{fields}Connection: close\r\n\r\n");
    http::send(weir.proxy, request.as_bytes()).expect("an answer")
}

/// How often each has answered, of so many requests.
fn counts(weir: &Weir, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let answer = ask(weir, "");
        assert_eq!(answer.status, 200, "{}", answer.head);
        *counts.entry(answer.field("x-is").expect("a name").to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn in_turn_by_weight_and_the_log_says_who() {
    let origins = origins(&["a", "b", "c"]);
    let weir = Weir::explicit(&group(&origins, ""));
    assert_eq!(counts(&weir, 30), [("a".into(), 10), ("b".into(), 10), ("c".into(), 10)].into());
    let flows = weir.flows(30);
    for flow in &flows {
        let member = ["a", "b", "c"]
            .iter()
            .zip(&origins)
            .position(|(_, origin)| flow["upstream"].as_str() == Some(&origin.address.to_string()));
        assert_eq!(flow["member"], format!("m{}", member.expect("one of them")), "{flow}");
        assert_eq!((&flow["backend"], &flow["tries"]), (&"shop".into(), &1.into()), "{flow}");
    }
    assert!(weir.log().contains(" backend=shop member=m0 tries=1 "), "{}", weir.log());
    weir.reload(
        &group(&origins, "").replace("name: m1}", "name: m1, weight: 4}").replace("m2}", "m2, drain: true}"),
    );
    assert_eq!(counts(&weir, 50), [("a".into(), 10), ("b".into(), 40)].into());
}

#[test]
fn the_same_member_for_the_same_key() {
    let origins = origins(&["a", "b", "c", "d"]);
    let weir = Weir::explicit(&group(&origins, "    balance: hash\n    hash_by: 'header:X-User'\n"));
    let who =
        |user: usize| ask(&weir, &format!("X-User: {user}\r\n")).field("x-is").expect("a name").to_owned();
    let before: Vec<_> = (0..40).map(who).collect();
    assert_eq!((0..40).map(who).collect::<Vec<_>>(), before);
    assert!(["a", "b", "c", "d"].iter().all(|name| before.iter().any(|who| who == name)), "{before:?}");
    // One goes: its own keys move, and no other.
    weir.reload(
        &group(&origins, "    balance: hash\n    hash_by: 'header:X-User'\n")
            .replace("m2}", "m2, drain: true}"),
    );
    for (user, before) in before.iter().enumerate() {
        let now = who(user);
        assert!(now != "c" && (before == "c" || *before == now), "{user}: {before} and then {now}");
    }
}

#[test]
fn a_cookie_keeps_a_client_where_it_was() {
    let origins = origins(&["a", "b", "c"]);
    // The cookie is for one client: what is stored is without it.
    let cached = "cache: {enabled: true}\n";
    let weir = Weir::explicit(&format!("{cached}{}", group(&origins, "    sticky_cookie: at\n")));
    let first = ask(&weir, "");
    let cookie = first.field("set-cookie").expect("a cookie");
    assert!(cookie.starts_with("at=") && cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    let sent = format!("Cookie: other=1; {}\r\n", cookie.split(';').next().unwrap_or_default());
    for _ in 0..9 {
        let again = ask(&weir, &sent);
        assert_eq!(again.field("x-is"), first.field("x-is"));
        assert_eq!(again.field("set-cookie"), None, "it has it already");
    }
    // Somebody else's word is none.
    let told = ask(&weir, "Cookie: at=ffffffffffffffff\r\n");
    assert!(told.field("set-cookie").is_some(), "{}", told.head);
    let number = origins.iter().position(|origin| origin.requests().len() >= 10).expect("one has most");
    weir.reload(&format!(
        "{cached}{}",
        group(&origins, "    sticky_cookie: at\n")
            .replace(&format!("m{number}}}"), &format!("m{number}, drain: true}}"))
    ));
    let moved = ask(&weir, &sent);
    assert_ne!(moved.field("x-is"), first.field("x-is"), "it is being drained");
    assert!(moved.field("set-cookie").is_some(), "{}", moved.head);
}

/// A server that answers when it is told to, and counts whom it has.
#[test]
fn one_at_a_time_and_a_queue_with_an_end() {
    let slow = http::server("127.0.0.1", |mut stream| {
        let mut heads = 0;
        while !http::read_head(&mut stream).is_empty() && heads < 1 {
            heads += 1;
            std::thread::sleep(std::time::Duration::from_millis(300));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    let weir = Weir::explicit(&format!(
        "routing: {{default_backend: shop, backends: [{{name: shop, max_requests: 1, queue: 1, queue_timeout: 1min, \
         members: [{{url: 'http://{}'}}]}}]}}",
        *slow
    ));
    let begin = || {
        let mut stream = connect(weir.proxy);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("weir reads");
        stream
    };
    let mut waiting: Vec<_> = (0..6).map(|_| begin()).collect();
    let statuses: Vec<_> =
        waiting.iter_mut().map(|stream| read_answer(stream, "GET").expect("an answer").status).collect();
    let ok = statuses.iter().filter(|status| **status == 200).count();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    // One is served and one waits; a third has a chance only if it comes late.
    assert!((2..6).contains(&ok), "{statuses:?}");
    assert_eq!(ask(&weir, "").status, 200, "the queue is empty again");
}

#[test]
fn a_tunnel_counts_as_a_request_for_as_long_as_it_lasts() {
    let upgraded = http::server("127.0.0.1", |mut stream| {
        http::read_head(&mut stream);
        let _ = stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() {
            let _ = stream.write_all(&byte);
        }
    });
    let weir = Weir::explicit(&format!(
        "routing: {{default_backend: shop, backends: [{{name: shop, max_requests: 1, queue: 0, \
         members: [{{url: 'http://{}'}}]}}]}}",
        *upgraded
    ));
    let upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let mut tunnel = connect(weir.proxy);
    tunnel.write_all(upgrade).expect("weir reads");
    assert!(http::read_head(&mut tunnel).starts_with("HTTP/1.1 101 "));
    assert_eq!(ask(&weir, "").status, 503);
    drop(tunnel);
    eventually("its place is free", || {
        let mut tunnel = connect(weir.proxy);
        tunnel.write_all(upgrade).expect("weir reads");
        http::read_head(&mut tunnel).starts_with("HTTP/1.1 101 ").then_some(())
    });
}

#[test]
fn ten_thousand_rules_and_one_that_matches_first() {
    let origins = origins(&["a", "b"]);
    let mut text = String::from("routing:\n  rules:\n");
    for number in 0..10_000 {
        let _ = writeln!(
            text,
            "  - {{match: {{host: h{number}.example, path: /p{number}/*}}, forward: {{target: 'http://127.0.0.1:{}'}}}}",
            1 + number % 60_000
        );
    }
    let _ = write!(
        text,
        "  - {{match: {{host: '*.example', path_regex: '/p[0-9]+/x', methods: [GET], headers: ['X-To: a']}}, \
         forward: {{target: 'http://{}'}}}}\n  - {{match: {{path: /p9999/*}}, forward: {{target: 'http://{}'}}}}\n",
        origins[0].address, origins[1].address
    );
    let weir = Weir::explicit(&text);
    let ask = |host: &str, path: &str, fields: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n");
        let answer = http::send(weir.proxy, request.as_bytes()).expect("an answer");
        (answer.status, answer.field("x-is").map(str::to_owned))
    };
    assert_eq!(ask("q.example", "/p9999/x", "X-To: a\r\n"), (200, Some("a".into())));
    assert_eq!(ask("q.example", "/p9999/x", "X-To: b\r\n"), (200, Some("b".into())));
    assert_eq!(ask("q.example", "/p1/x", ""), (404, None));
    assert_eq!(ask("h9999.example", "/p9999/x", "X-To: a\r\n").0, 502, "nobody listens there");
    let explained =
        weir.command(&["explain", "--gateway", "http://q.example/p7/x", "--header", "X-To: a"]).output();
    let explained = String::from_utf8_lossy(&explained.expect("weir runs").stdout).into_owned();
    assert!(
        explained.contains(
            "rule 10001 of routing.rules: host *.example, path_regex /p[0-9]+/x, methods GET, header x-to: a"
        ),
        "{explained}"
    );
}
