//! `security.rate_limiting`: what a client gets that asks too often, and that others do not.

use std::io::Write as _;
use std::net::TcpStream;

use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{Weir, connect, eventually};

/// So slow that nothing comes back while a test runs: 1 a second, 5 at one time.
const SLOW: &str = "security: {rate_limiting: {enabled: true, requests_per_second: 1, burst: 5}}\n";

fn origin() -> Origin {
    Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

fn get(stream: &mut TcpStream, url: &str, fields: &str) -> weir_tests::http::Answer {
    write!(stream, "GET {url} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").expect("weir reads");
    read_answer(stream, "GET").expect("an answer")
}

#[test]
fn a_client_that_asks_too_often_is_told_when_to_come_back() {
    let (weir, origin) = (Weir::explicit(SLOW), origin());
    let url = format!("http://{}/", origin.address);
    let mut stream = connect(weir.proxy);
    let answers: Vec<_> = (0..30).map(|_| get(&mut stream, &url, "")).collect();
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    // One more for each second that this has taken.
    assert!(
        (5..15).contains(&served) && served + refused.len() == 30,
        "{served} served, {} refused",
        refused.len()
    );
    let last = refused.last().expect("some");
    assert_eq!(last.field("retry-after"), Some("1"), "{}", last.text());
    assert_eq!(last.field("ratelimit-policy"), Some("\"requests\";q=1;w=1"));
    assert_eq!(last.field("ratelimit"), Some("\"requests\";r=0;t=1"));
    assert!(last.text().contains("security.rate_limiting"), "{}", last.text());
    assert_eq!(weir.metric("denied_by_limits_total"), refused.len() as u64);
    assert_eq!(origin.requests().len(), served);
    // It is a limit, not an end.
    eventually("to be served again", || (get(&mut stream, &url, "").status == 200).then_some(()));
}

#[test]
fn tunnels_count_and_by_all_connections_together() {
    let (weir, origin) = (Weir::explicit(SLOW), origin());
    let connect_to = |_| {
        let mut stream = connect(weir.proxy);
        write!(stream, "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.address).expect("weir reads");
        let head = weir_tests::http::read_head(&mut stream);
        head.split(' ').nth(1).map(str::to_owned).unwrap_or_default()
    };
    let statuses: Vec<String> = (0..30).map(connect_to).collect();
    let served = statuses.iter().filter(|status| *status == "200").count();
    assert!((5..15).contains(&served), "{statuses:?}");
    assert!(statuses.iter().all(|status| status == "200" || status == "429"), "{statuses:?}");
}

#[test]
fn a_context_has_its_own_limit() {
    let origin = origin();
    let weir = Weir::explicit(
        "security: {auth: {mode: optional}, rate_limiting: {enabled: true, requests_per_second: 1, burst: 5}}\n",
    );
    let url = format!("http://{}/", origin.address);
    let made = weir
        .command(&["context", "create", "--json", "--requests-per-second", "1000", "--burst", "1000"])
        .output()
        .expect("weir runs");
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    let user = format!("{}:{}", text("username"), text("password"));
    let fifty = format!("{url}[1-50]");
    let output = weir
        .curl(&["-m", "60", "-U", &user, "-w", "%{http_code} ", "-o", "/dev/null", &fifty])
        .output()
        .expect("curl runs");
    let statuses = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(statuses.matches("200").count(), 50, "{statuses}");
    // Others have theirs, untouched by that.
    let mut stream = connect(weir.proxy);
    assert_eq!(get(&mut stream, &url, "").status, 200);
    let zero =
        weir.command(&["context", "create", "--requests-per-second", "0"]).output().expect("weir runs");
    assert!(!zero.status.success());
}

#[test]
fn it_is_set_by_the_environment_too() {
    let output = std::process::Command::new(weir_tests::weir::binary())
        .args(["config", "check", "--set", "logging.level=info"])
        .env("RATE_LIMIT_ENABLED", "perhaps")
        .env("RATE_LIMIT_RPS", "0")
        .output()
        .expect("weir runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("RATE_LIMIT_ENABLED: security.rate_limiting.enabled: `perhaps`"), "{errors}");
    assert!(errors.contains("RATE_LIMIT_RPS: security.rate_limiting.requests_per_second: `0`"), "{errors}");
}
