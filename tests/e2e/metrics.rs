//! Metrics, and what is shipped to look at them: checked by Prometheus' own tool, and against a running weir.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use weir_tests::http;
use weir_tests::origin::Origin;
use weir_tests::weir::{Weir, eventually, free_port};

/// Members have metrics of their own.
const GROUP: &str = "routing: {backends: [{name: shop, members: [{url: 'http://[::1]:1'}]}]}";

fn shipped(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/deploy").join(path)
}

fn metrics(weir: &Weir) -> String {
    http::get(weir.admin, "/metrics").expect("the admin API answers").text()
}

/// The names in a text, of series: `weir_...`.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_name(c)).filter(|word| word.starts_with("weir_")).map(str::to_owned).collect()
}

#[test]
fn promtool_finds_nothing_wrong() {
    let output = Command::new("promtool")
        .args(["check", "rules", "--lint=all"])
        .arg(shipped("prometheus/weir.rules.yaml"))
        .output()
        .expect("promtool, of Debian's package prometheus");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("SUCCESS: 9 rules found"), "{output:?}");
    let weir = Weir::explicit(&format!("cache: {{enabled: true}}\ncli: {{enabled: true}}\n{GROUP}"));
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    check.stdin.take().expect("a pipe").write_all(metrics(&weir).as_bytes()).expect("it reads");
    let output = check.wait_with_output().expect("a child of ours");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every metric that the dashboard and the alerts name is there, and every expression is one.
#[test]
fn what_is_shipped_names_what_there_is() {
    let weir = Weir::explicit(&format!("cache: {{enabled: true}}\n{GROUP}"));
    let present = names(&metrics(&weir));
    let rules = std::fs::read_to_string(shipped("prometheus/weir.rules.yaml")).expect("a file");
    let dashboard = std::fs::read_to_string(shipped("grafana/weir.json")).expect("a file");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let targets = dashboard["panels"].as_array().into_iter().flatten().flat_map(|panel| {
        panel["targets"].as_array().into_iter().flatten().filter_map(|target| target["expr"].as_str())
    });
    let expressions: Vec<String> =
        targets.map(|text| text.replace("$__rate_interval", "5m").replace("$instance", ".*")).collect();
    assert!(expressions.len() > 30, "{}", expressions.len());
    for name in names(&rules).union(&names(&expressions.join("\n"))) {
        assert!(present.contains(name), "{name} is no metric of weir's");
    }
    // As rules, they are parsed by Prometheus itself.
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(index, text)| serde_json::json!({ "record": format!("panel:{index}"), "expr": text }))
        .collect();
    let file = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let path = weir.folder().join("dashboard.rules.yaml");
    std::fs::write(&path, file.to_string()).expect("a file");
    let output = Command::new("promtool").args(["check", "rules"]).arg(&path).output().expect("promtool");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn they_have_a_port_of_their_own() {
    let port = free_port();
    let weir = Weir::explicit(&format!("metrics: {{enabled: true, port: {port}}}"));
    let own = SocketAddr::from(([127, 0, 0, 1], port));
    let answer = http::get(own, "/metrics").expect("an answer");
    assert_eq!((answer.status, names(&answer.text())), (200, names(&metrics(&weir))));
    assert_eq!(http::get(own, "/proxy/status").expect("an answer").status, 404);
    let foreign =
        http::send(own, b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(foreign.expect("an answer").status, 403);
}

#[test]
fn requests_are_counted_by_time_and_class() {
    let origin = Origin::fixed("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno");
    let weir = Weir::explicit("");
    let value = |line: &str| -> f64 {
        let text = metrics(&weir);
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("{line} in\n{text}"))
    };
    for _ in 0..5 {
        let url = format!("http://{}/", origin.address);
        assert!(weir.curl(&["-o", "/dev/null", &url]).status().expect("curl").success());
    }
    eventually("all are counted", || {
        (value("weir_http_request_duration_seconds_count") >= 5.0).then_some(())
    });
    assert!(value("weir_http_request_duration_seconds_sum") > 0.0);
    assert!((value("weir_http_request_duration_seconds_bucket{le=\"+Inf\"}") - 5.0).abs() < 0.1);
    assert!((value("weir_http_responses_total{class=\"4xx\"}") - 5.0).abs() < 0.1);
    assert!(value("weir_http_responses_total{class=\"2xx\"}").abs() < 0.1);
    // No client can make series: their number does not depend on what is asked for.
    let before = metrics(&weir).lines().count();
    for path in ["a", "b", "c"] {
        let url = format!("http://{}/{path}", origin.address);
        assert!(
            weir.curl(&["-X", &path.to_uppercase(), "-o", "/dev/null", &url])
                .status()
                .expect("curl")
                .success()
        );
    }
    assert_eq!(metrics(&weir).lines().count(), before);
}
