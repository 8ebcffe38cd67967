//! Targets that are no cgroups: whatever a user runs, whatever executes a file; and network namespaces of which nobody
//! told weir.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use weir_tests::netns::{self, Other};
use weir_tests::weir::{Weir, eventually};
use weir_tests::{leaks, scripts, who};

/// Users that need not exist: numbers are all that the kernel knows of them.
const ALICE: &str = "54321";
const BOB: &str = "54322";

/// A copy of Python in the weir's folder: another file than the one of the host.
fn own_python(weir: &Weir) -> String {
    let real = std::fs::canonicalize("/usr/bin/python3").expect("python3 is installed");
    let copy = weir.folder().join("own-python");
    std::fs::copy(real, &copy).expect("a file in a temporary folder");
    std::fs::set_permissions(weir.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("ours");
    copy.display().to_string()
}

/// A client of a [`who`] server, in the attach cgroup and in none that is selected, as that user.
fn attempt_as(weir: &Weir, uid: &str, python: &str, server: std::net::SocketAddr) -> String {
    let script = format!(
        "import os, sys, ctypes; os.setgroups([]); os.setgid({uid}); os.setuid({uid})\n\
         sys.dont_write_bytecode = True; sys.path.insert(0, '{}')\n\
         import client; print(client.attempt('{}', {}))",
        Path::new(&scripts::path("")).display(),
        server.ip(),
        server.port()
    );
    scripts::stdout(&mut in_attach_cgroup(weir, python, &script))
}

fn in_attach_cgroup(weir: &Weir, python: &str, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$ > \"$1/cgroup.procs\" && exec \"$2\" -c \"$3\"", "sh"]);
    command.arg(weir.cgroup()).args([python, script]);
    command
}

#[track_caller]
fn capture(weir: &Weir, arguments: &[&str]) -> String {
    scripts::stdout(&mut weir.command(&[&["capture"], arguments].concat()))
}

#[test]
fn whatever_a_user_runs_and_whatever_executes_a_file() {
    netns::enter();
    let server = who::server(netns::V4);
    let weir = Weir::capturing("");
    let (python, own) = ("/usr/bin/python3", own_python(&weir));
    let attempt = |uid: &str, python: &str| attempt_as(&weir, uid, python, *server);
    assert_eq!(attempt(ALICE, python), "direct");

    let told = capture(&weir, &["add", &format!("uid:{ALICE}")]);
    assert!(told.contains("wherever it runs"), "{told}");
    assert_eq!(attempt(ALICE, python), "captured");
    assert_eq!(attempt(BOB, python), "direct");
    let process = &weir.flows(1)[0]["process"];
    assert_eq!(process["uid"].to_string(), ALICE, "{process}");

    capture(&weir, &["add", &format!("exe:{own}")]);
    assert_eq!(attempt(BOB, &own), "captured");
    assert_eq!(attempt(BOB, python), "direct", "the same program in another file");
    assert_eq!(leaks::entries(&weir.status(), "SELECTED"), 2);

    // Another file in its place, as a package's new version is.
    std::fs::rename(&own, weir.folder().join("old")).expect("ours");
    own_python(&weir);
    eventually("the new file is captured", || (attempt(BOB, &own) == "captured").then_some(()));

    capture(&weir, &["remove", &format!("uid:{ALICE}")]);
    assert_eq!(attempt(ALICE, python), "direct");
    capture(&weir, &["remove", &format!("exe:{own}")]);
    assert_eq!(attempt(BOB, &own), "direct");
    assert_eq!(leaks::entries(&weir.status(), "SELECTED"), 0);

    for (target, problem) in [("user:no-such-user", "no such user"), ("exe:/no/such/file", "no such file")] {
        let told = capture(&weir, &["add", target]);
        assert!(told.contains("NOT CAPTURED") && told.contains(problem), "{told}");
    }
    for wrong in ["uid:alice", "exe:curl", "pid:1"] {
        let output = weir.command(&["capture", "add", wrong]).output().expect("weir runs");
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
    leaks::check_none(&weir, usize::MAX);
}

#[test]
fn explain_and_rules_know_them_and_the_configuration_may_name_them() {
    netns::enter();
    let server = who::server(netns::V4);
    let overlay = format!(
        "capture: {{targets: ['uid:{ALICE}', 'user:root'], rules: [
            {{name: closed, selected: true, ports: [9], action: deny}}]}}\n"
    );
    let weir = Weir::capturing(&overlay);
    assert_eq!(attempt_as(&weir, ALICE, "/usr/bin/python3", *server), "captured");
    let mut idle =
        in_attach_cgroup(&weir, "/usr/bin/python3", "import time; print('in', flush=True); time.sleep(60)");
    let mut idle = idle.stdout(Stdio::piped()).spawn().expect("sh runs");
    let mut told = idle.stdout.take().expect("a pipe");
    let mut line = [0; 2];
    std::io::Read::read_exact(&mut told, &mut line).expect("it is there");
    let pid = idle.id().to_string();
    for (destination, expected) in [
        ("203.0.113.1:80", "redirect: no rule matches, and its user is selected"),
        ("203.0.113.1:9", "deny: rule `closed`"),
    ] {
        let told = scripts::stdout(&mut weir.command(&["explain", "--pid", &pid, destination]));
        assert!(told.contains(expected), "{told}");
    }
    idle.kill().and_then(|()| idle.wait()).expect("a child of ours");
}

/// The namespaces, other than its own, in which a weir listens.
fn entered(weir: &Weir) -> usize {
    weir.status()["capture"]["namespaces"].as_array().map_or(0, Vec::len)
}

/// A rule is not bound to a network namespace. The first connection in one that weir does not know is the fail mode's;
/// by it weir learns of the namespace.
#[test]
fn what_rules_and_users_redirect_in_another_namespace_is_captured_there() {
    for (overlay, first) in [
        ("capture: {rules: [{name: all, action: redirect}]}", "direct"),
        ("capture: {fail: closed, rules: [{name: all, action: redirect}]}", "ECONNREFUSED"),
        ("capture: {targets: ['user:root']}", "direct"),
    ] {
        netns::enter();
        let weir = Weir::capturing(overlay);
        capture_elsewhere(&weir, first, overlay);
        // What is made on first use is made.
        let files = weir.open_files();
        capture_elsewhere(&weir, first, overlay);
        leaks::check_none(&weir, files);
    }
}

/// Lets a program connect in a namespace that weir does not know, until it is captured, and end.
fn capture_elsewhere(weir: &Weir, first: &str, overlay: &str) {
    let other = Other::new(&["198.18.7.1/32"]);
    let server = other.run(|| who::server("198.18.7.1"));
    let script = format!(
        "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, '{}')\n\
         import client\n\
         for line in sys.stdin: print(client.attempt('{}', {}), flush=True)",
        Path::new(&scripts::path("")).display(),
        server.ip(),
        server.port()
    );
    let mut command = in_attach_cgroup(weir, "/usr/bin/python3", &script);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = other.run(|| command.spawn()).expect("sh runs");
    let mut answers = std::io::BufReader::new(client.stdout.take().expect("a pipe"));
    let mut ask = || {
        use std::io::{BufRead as _, Write as _};
        client.stdin.as_mut().expect("a pipe").write_all(b"\n").expect("it reads");
        let mut line = String::new();
        answers.read_line(&mut line).expect("it answers");
        line.trim_end().to_owned()
    };
    assert_eq!(ask(), first, "{overlay}");
    eventually("weir listens there", || (ask() == "captured").then_some(()));
    assert_eq!(entered(weir), 1);
    assert_eq!(weir.status()["capture"]["kernel"]["problems"], Value::Array(Vec::new()));
    drop(client.stdin.take());
    client.wait().expect("a child of ours");
    eventually("weir leaves", || (entered(weir) == 0).then_some(()));
}
