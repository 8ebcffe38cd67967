//! `weir exec`, and the commands that tell of what it captured.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use serde_json::Value;
use weir_tests::prompt::Prompt;
use weir_tests::weir::Weir;
use weir_tests::{netns, scripts, who};

#[test]
fn the_exit_code_is_the_programs_own() {
    netns::enter();
    let weir = Weir::capturing("");
    let check = |program: &[&str], code: Option<i32>, signal: Option<i32>, message: &str| {
        let output = weir.exec(program).output().expect("weir starts");
        assert_eq!((output.status.code(), output.status.signal()), (code, signal), "{program:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(message) && errors.is_empty() == message.is_empty(), "{program:?}: {errors}");
    };
    check(&["true"], Some(0), None, "");
    check(&["sh", "-c", "exit 7"], Some(7), None, "");
    check(&["sh", "-c", "kill -TERM $$"], None, Some(15), "");
    check(&["/etc/passwd"], Some(126), None, "can't run /etc/passwd");
    check(&["/"], Some(126), None, "can't run /");
    check(&["no-such-program-here"], Some(127), None, "can't run no-such-program-here");
}

#[test]
fn arguments_environment_and_streams_are_the_programs_own() {
    netns::enter();
    let weir = Weir::capturing("");
    let script = "printf '%s|' \"$@\" \"$WORD\" \"$PWD\"; echo problem >&2; wc -c";
    let mut command = weir.exec(&["sh", "-c", script, "name", "-v", "--", "two words", "--json", ""]);
    let mut child = command
        .env("WORD", "in the environment")
        .current_dir("/usr")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weir starts");
    let bytes = vec![b'x'; 3 << 20];
    child.stdin.take().expect("a pipe").write_all(&bytes).expect("the program reads");
    let output = child.wait_with_output().expect("a child of ours");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, "-v|--|two words|--json||in the environment|/usr|3145728\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "problem\n");
}

fn ask(server: SocketAddr) -> [String; 4] {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    ["python3".to_owned(), scripts::path("client.py"), host, port]
}

#[test]
fn flows_are_followed_live_and_told_apart_by_cgroup() {
    netns::enter();
    let server = who::server(netns::V4);
    let weir = Weir::capturing("");
    let mut follow =
        weir.command(&["flows", "--follow", "--json"]).stdout(Stdio::piped()).spawn().expect("weir starts");
    let mut lines = BufReader::new(follow.stdout.take().expect("a pipe")).lines();
    let program = ask(*server);
    for nth in 0..2 {
        let file = weir.folder().join(format!("cgroup-{nth}")).display().to_string();
        let words: Vec<&str> = program.iter().map(String::as_str).collect();
        scripts::stdout(&mut weir.command(&[&["exec", "--cgroup-file", &file, "--"], &words[..]].concat()));
        let line = lines.next().expect("a flow").expect("text");
        let flow: Value = serde_json::from_str(&line).expect("a line of JSON");
        assert_eq!(flow["original_destination"], server.to_string());
        let cgroup = std::fs::read_to_string(&file).expect("the id").trim().to_owned();
        assert_eq!(flow["process"]["cgroup"].to_string(), cgroup);
        let of_this_one = scripts::stdout(&mut weir.command(&["flows", "--json", "--cgroup", &cgroup]));
        assert_eq!(of_this_one.lines().count(), 1, "{of_this_one}");
        assert!(of_this_one.contains(&format!("\"id\":{}", flow["id"])), "{of_this_one}");
    }
    follow.kill().and_then(|()| follow.wait()).expect("a child of ours");
    let shown = scripts::stdout(&mut weir.command(&["flows"]));
    assert_eq!(shown.lines().count(), 2);
    assert!(shown.contains(&server.to_string()) && shown.contains("captured"), "{shown}");
}

#[test]
fn explain_tells_what_connect_would_do() {
    netns::enter();
    let server = who::server(netns::V4);
    let weir = Weir::capturing("");
    let mut prompt = Prompt::start(&weir, *server);
    assert_eq!(prompt.ask(), "captured");
    let mut outside = Command::new("sleep").arg("60").spawn().expect("coreutils are installed");
    let cgroup = weir.cgroup().join("weir/exec-").display().to_string();
    let questions = [
        (prompt.pid(), server.to_string(), "redirect", cgroup.as_str()),
        (prompt.pid(), "127.0.0.1:80".to_owned(), "direct", "loopback"),
        (outside.id(), server.to_string(), "direct", "capture.cgroup"),
    ];
    for (pid, destination, verdict, reason) in questions {
        let told = scripts::stdout(&mut weir.command(&["explain", "--pid", &pid.to_string(), &destination]));
        let connect = told.lines().find(|line| line.contains("connect()")).unwrap_or_default();
        assert!(connect.contains(verdict) && connect.contains(reason), "{pid} {destination}: {told}");
    }
    outside.kill().and_then(|()| outside.wait()).expect("a child of ours");
    let gone = weir.command(&["explain", "--pid", &outside.id().to_string(), &server.to_string()]).output();
    assert_eq!(gone.expect("weir starts").status.code(), Some(1));
}

#[test]
fn status_and_doctor_tell_of_the_kernel_half() {
    netns::enter();
    let weir = Weir::capturing("");
    let cgroup = weir.cgroup().display().to_string();
    weir.wait_until_on();
    let status = scripts::stdout(&mut weir.command(&["status"]));
    for line in ["capture      on", &cgroup, "ORIGINALS                  0 of ", "attached"] {
        assert!(status.contains(line), "`{line}` is missing in:\n{status}");
    }
    assert!(!status.contains("NOT ATTACHED"), "{status}");
    let setting = format!("capture.cgroup={cgroup}");
    let doctor = scripts::stdout(&mut weir.command(&["doctor", "--set", &setting]));
    assert!(doctor.ends_with("weir can capture on this host"), "{doctor}");
    assert!(!doctor.contains("BAD"), "{doctor}");
    let checks: Value =
        serde_json::from_str(&scripts::stdout(&mut weir.command(&["doctor", "--json"]))).expect("JSON");
    assert!(checks.as_array().is_some_and(|checks| checks.len() >= 5), "{checks:#}");
}
