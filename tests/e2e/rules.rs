//! `capture.rules` with real programs: a whole cgroup captured without `weir exec`, and rules that are read again.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use weir_tests::http::{self, Answer};
use weir_tests::netns;
use weir_tests::weir::{Weir, eventually};

/// curl in a cgroup that nothing has selected: its output, or its exit code.
fn curl_in(cgroup: &Path, url: &str) -> Result<String, i32> {
    let script = "echo $$ > \"$1/cgroup.procs\" && exec curl -sS --noproxy '*' --max-time 10 \"$2\"";
    let output =
        Command::new("sh").args(["-c", script, "sh"]).arg(cgroup).arg(url).output().expect("sh runs");
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        code => Err(code.expect("an exit code")),
    }
}

/// curl's exit code for "could not connect".
const COULD_NOT_CONNECT: i32 = 7;

fn rewrite(weir: &Weir, rules: &str) {
    std::fs::write(weir.folder().join("overlay.yaml"), rules).expect("a file in a temporary folder");
}

fn metrics(weir: &Weir) -> String {
    let answer: Answer = http::get(weir.admin, "/metrics").expect("the admin API answers");
    answer.text()
}

#[test]
fn a_whole_cgroup_is_captured_by_a_rule_and_rules_are_read_again() {
    netns::enter();
    let server = http::server(netns::V4, origin_answer);
    let (host, port) = (server.ip(), server.port());
    let url = format!("http://{host}:{port}/");
    let mapped = format!("http://[::ffff:{host}]:{port}/");
    let weir = Weir::capturing("capture: {rules: [{name: everything, action: redirect}]}\n");
    let cgroup = weir.cgroup();

    assert_eq!(curl_in(cgroup, &url), Ok("hello".to_owned()));
    assert_eq!(weir.flows(1)[0]["original_destination"], server.to_string());
    assert!(
        metrics(&weir).contains("weir_capture_rule_hits_total{rule=\"everything\",action=\"redirect\"} 1"),
        "{}",
        metrics(&weir)
    );

    // A user of `weir exec`, too, is refused at once, whichever way the address is written.
    rewrite(&weir, &format!("capture: {{rules: [{{name: no-{port}, ports: [{port}], action: deny}}]}}\n"));
    let reload = weir.command(&["capture", "reload"]).output().expect("weir runs");
    assert_eq!(String::from_utf8_lossy(&reload.stdout), "1 rules in force\n");
    for url in [&url, &mapped] {
        assert_eq!(curl_in(cgroup, url), Err(COULD_NOT_CONNECT));
        let status = weir.exec(&["curl", "-sS", "--noproxy", "*", url]).status().expect("weir runs");
        assert_eq!(status.code(), Some(COULD_NOT_CONNECT), "{url}");
    }
    assert_eq!(weir.status()["capture"]["kernel"]["rules"][0]["hits"], 4);

    // A wrong file changes nothing, and says why.
    rewrite(&weir, "capture: {rules: [{name: x, portz: [1], action: deny}]}\n");
    let reload = weir.command(&["capture", "reload"]).output().expect("weir runs");
    let errors = String::from_utf8_lossy(&reload.stderr);
    assert_eq!(reload.status.code(), Some(1));
    assert!(
        errors.contains("overlay.yaml:1:29: capture.rules.portz: unknown key (did you mean `ports`?)"),
        "{errors}"
    );
    assert_eq!(curl_in(cgroup, &url), Err(COULD_NOT_CONNECT));
    rewrite(&weir, "capture: {rules: [{destination_files: [/nonexistent], action: deny}]}\n");
    let reload = weir.command(&["capture", "reload"]).output().expect("weir runs");
    let errors = String::from_utf8_lossy(&reload.stderr);
    assert!(errors.contains("the destinations in /nonexistent can't be read"), "{errors}");
    assert_eq!(curl_in(cgroup, &url), Err(COULD_NOT_CONNECT));

    // SIGHUP does the same as `weir capture reload`.
    rewrite(&weir, "\n");
    weir.signal(Signal::SIGHUP);
    let direct = eventually("the rules to be gone", || curl_in(cgroup, &url).ok());
    assert_eq!(direct, "hello");
    assert_eq!(weir.status()["capture"]["kernel"]["rules"].as_array().map(Vec::len), Some(0));
}

fn origin_answer(mut stream: std::net::TcpStream) {
    use std::io::Write as _;
    // The client may have gone.
    if weir_tests::origin::read_request(&mut stream).is_ok() {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    }
}

#[test]
fn explain_names_the_rule() {
    netns::enter();
    let weir = Weir::capturing(
        "capture: {rules: [{name: mail, ports: [25, 465-587], action: deny}, {name: lan, destinations: [10.0.0.0/8], action: redirect}]}\n",
    );
    // In this test's network namespace, as its weir is.
    let mut child = Command::new("sleep").arg("60").spawn().expect("sleep starts");
    let pid = child.id().to_string();
    for (destination, expected) in [
        ("203.0.113.1:25", "deny: rule `mail` is the first that matches"),
        ("10.1.2.3:80", "redirect: rule `lan` is the first that matches"),
        ("203.0.113.1:80", "direct: no rule matches, and neither its cgroup"),
    ] {
        let output = weir.command(&["explain", "--pid", &pid, destination]).output().expect("weir runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{destination}: {text}");
    }
    child.kill().and_then(|()| child.wait()).expect("a child of ours");
}

#[test]
fn a_rule_that_cannot_hold_stops_the_start() {
    netns::enter();
    let overlay = "capture: {mode: auto, rules: [{users: [no-such-user], action: deny}]}\n";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("weir.yaml");
    std::fs::write(
        &config,
        format!(
            "server: {{port: 0}}\nadmin: {{port: 0, state_dir: '{}'}}\n{overlay}",
            folder.path().display()
        ),
    )
    .expect("a file in a temporary folder");
    let output = Command::new("timeout")
        .arg("20")
        .arg(weir_tests::weir::binary())
        .arg("serve")
        .arg("--config")
        .arg(&config)
        .output();
    let output = output.expect("weir starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("rule `rule-1`: there is no user no-such-user"), "{errors}");
}
