//! `capture.fail: closed` beyond weir's death: what was captured is refused until a weir starts again or the holder
//! is ended; and no holder is left where none should be.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};
use weir_tests::prompt::Prompt;
use weir_tests::weir::{Weir, binary, eventually, free_port, runs};
use weir_tests::{netns, scripts, who};

const CLOSED: &str = "capture: {fail: closed}";

/// The process that `weir status` names as the holder.
fn holder(weir: &Weir) -> Pid {
    let pid = eventually("a holder", || weir.status()["capture"]["kernel"]["holder"]["pid"].as_i64());
    Pid::from_raw(i32::try_from(pid).expect("a pid"))
}

/// A line of /proc/PID/status, without its name.
fn status_of(pid: Pid, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.expect("a line of that name").trim_start_matches(':').trim().to_owned()
}

/// How many programs a cgroup has on its connect4 hook.
fn attached(cgroup: &Path) -> usize {
    let mut command = Command::new("bpftool");
    let shown = scripts::stdout(command.args(["cgroup", "show"]).arg(cgroup));
    shown.lines().filter(|line| line.contains("connect4")).count()
}

/// Another weir on the cgroup of the first.
fn again(first: &Weir, state: &Path, fail: &str) -> Weir {
    let cgroup = first.cgroup().display();
    Weir::explicit(&format!(
        "{{capture: {{mode: required, cgroup: '{cgroup}', fail: {fail}}}, admin: {{state_dir: '{}'}}}}",
        state.display()
    ))
}

fn state(weir: &Weir) -> PathBuf {
    weir.folder().join("state")
}

/// What `weir` prints, on both streams.
fn said(arguments: &[&str]) -> String {
    let output = Command::new(binary()).args(arguments).output().expect("weir runs");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// What `weir doctor` says of a cgroup.
fn doctor(weir: &Weir) -> String {
    let cgroup = format!("capture.cgroup={}", weir.cgroup().display());
    let state = format!("admin.state_dir={}", state(weir).display());
    said(&["doctor", "--set", &cgroup, "--set", &state])
}

fn killed(weir: &mut Weir) {
    weir.signal(Signal::SIGKILL);
    weir.wait();
}

#[track_caller]
fn refused_until_a_weir_starts(errno: &str, name: &str, next: &str) {
    let server = who::server(netns::V4);
    let mut weir = Weir::capturing(&format!("capture: {{fail: closed, errno: {errno}}}"));
    let mut prompt = Prompt::start(&weir, *server);
    assert_eq!(prompt.ask(), "captured");
    let left = holder(&weir);
    assert!(!doctor(&weir).contains("died"), "{}", doctor(&weir));

    killed(&mut weir);
    for _ in 0..20 {
        assert_eq!(prompt.ask(), name);
    }
    TcpStream::connect(*server).expect("others are not affected");
    assert!(runs(left));
    let hint = format!("`kill {left}`");
    assert!(doctor(&weir).contains(&hint), "{}", doctor(&weir));
    let socket = state(&weir).join("admin.sock").display().to_string();
    let status = said(&["--admin", &socket, "status"]);
    assert!(status.contains("weir serve") && status.contains(&hint), "{status}");
    assert_eq!(prompt.ask(), name, "looking changes nothing");

    let second = std::thread::scope(|scope| {
        let seen = scope.spawn(|| {
            let mut seen = vec![name.to_owned()];
            while seen.last().is_some_and(|last| last == name) {
                seen.push(prompt.ask());
            }
            seen.pop()
        });
        let second = again(&weir, &state(&weir), next);
        assert_eq!(
            seen.join().expect("it ends").as_deref(),
            Some("captured"),
            "nothing goes direct in between"
        );
        second
    });
    assert_eq!(prompt.ask(), "captured");
    assert!(!runs(left));
    assert_eq!(attached(weir.cgroup()), 1);
    let holder = &second.status()["capture"]["kernel"]["holder"];
    assert_eq!(holder.is_null(), next == "open", "{holder}");
}

#[test]
fn a_dead_weir_refuses_until_the_next_one_captures() {
    netns::enter();
    refused_until_a_weir_starts("refused", "ECONNREFUSED", "closed");
    refused_until_a_weir_starts("host_unreachable", "EHOSTUNREACH", "open");
}

#[test]
fn no_connection_goes_direct_while_weir_dies() {
    /// Milliseconds in which a killed process may still be on its way out, on a busy machine.
    const AT_ONCE: f64 = 300.0;
    netns::enter();
    let server = who::server(netns::V4);
    let weir = Weir::capturing("{capture: {fail: closed}, logging: {access: false}}");
    let script = scripts::path("signal_under_load.py");
    let (host, port, pid) = (server.ip().to_string(), server.port().to_string(), weir.pid().to_string());
    let printed = scripts::stdout(&mut weir.exec(&["python3", &script, &host, &port, &pid, "KILL"]));
    let attempts: Vec<(f64, &str)> = printed
        .lines()
        .map(|line| {
            let (start, rest) = line.split_once(' ').expect("three fields");
            (start.parse().expect("a number"), rest.split_once(' ').expect("three fields").1)
        })
        .collect();
    assert!(attempts.iter().filter(|attempt| attempt.1 == "captured").count() > 100, "{printed}");
    assert!(attempts.iter().all(|attempt| attempt.1 != "direct"), "{printed}");
    let late: Vec<_> = attempts.iter().filter(|attempt| attempt.0 > AT_ONCE).collect();
    assert!(late.len() > 100, "{printed}");
    assert!(late.iter().all(|attempt| attempt.1 == "ECONNREFUSED"), "{late:?}");
}

#[test]
fn an_orderly_stop_releases_what_was_captured() {
    netns::enter();
    let mut weir = Weir::capturing(CLOSED);
    let server = who::server(netns::V4);
    let mut prompt = Prompt::start(&weir, *server);
    assert_eq!(prompt.ask(), "captured");
    let left = holder(&weir);
    weir.signal(Signal::SIGTERM);
    assert_eq!(weir.wait(), Some(0), "{}", weir.log());
    assert_eq!(prompt.ask(), "direct");
    assert!(!runs(left));
    assert_eq!(attached(weir.cgroup()), 0);
    let files: Vec<_> = fs::read_dir(state(&weir)).expect("the folder").flatten().collect();
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn the_end_of_the_holder_is_noticed_and_changes_nothing_before_weir_dies() {
    netns::enter();
    let mut weir = Weir::capturing(CLOSED);
    let server = who::server(netns::V4);
    let mut prompt = Prompt::start(&weir, *server);
    kill(holder(&weir), Signal::SIGKILL).expect("it runs");
    eventually("status tells", || {
        (weir.status()["capture"]["kernel"]["holder"]["running"] == false).then_some(())
    });
    eventually("the log tells", || weir.log().contains("`weir hold` has ended").then_some(()));
    let text = weir.command(&["status"]).output().expect("weir status runs").stdout;
    assert!(String::from_utf8_lossy(&text).contains("NOT RUNNING"));
    assert_eq!(prompt.ask(), "captured");
    killed(&mut weir);
    assert_eq!(prompt.ask(), "direct");
    // The file that it listened on is no hindrance.
    drop(again(&weir, &state(&weir), "closed"));
}

#[test]
fn fail_open_starts_no_holder() {
    netns::enter();
    let mut weir = Weir::capturing("");
    let server = who::server(netns::V4);
    let mut prompt = Prompt::start(&weir, *server);
    assert_eq!(prompt.ask(), "captured");
    assert!(weir.status()["capture"]["kernel"]["holder"].is_null());
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", weir.pid())).expect("weir runs");
    assert_eq!(children, "");
    killed(&mut weir);
    assert_eq!(prompt.ask(), "direct");
    assert_eq!(attached(weir.cgroup()), 0);
}

#[test]
fn the_holder_has_the_links_and_little_else() {
    netns::enter();
    let weir = Weir::capturing(CLOSED);
    let pid = holder(&weir);
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let mut files: Vec<String> = files
        .map(|entry| fs::read_link(entry.path()).expect("a descriptor").display().to_string())
        .map(|file| file.split(":[").next().unwrap_or_default().to_owned())
        .collect();
    files.sort();
    // One for each hook.
    const LINKS: usize = 10;
    // Output; twice the pair's end, and the socket it listens on.
    let others = ["/dev/null", "/dev/null", "socket", "socket", "socket"];
    assert_eq!(files.iter().filter(|file| *file == "anon_inode:bpf_link").count(), LINKS, "{files:?}");
    assert_eq!(files.iter().filter(|file| others.contains(&file.as_str())).count(), 5, "{files:?}");
    assert_eq!(files.len(), LINKS + 5, "{files:?}");
    assert_eq!(getsid(Some(pid)), Ok(pid), "a session of its own");
    assert_eq!(status_of(pid, "Threads"), "1");
    let anonymous: u32 = status_of(pid, "RssAnon").trim_end_matches(" kB").parse().expect("a number of KiB");
    // Most of it is what relocation writes of the binary, which is large without optimisation.
    assert!(anonymous < 4096, "{anonymous} KiB of its own");
}

/// A `weir serve` that must refuse to start: what it says.
fn refusal(first: &Weir) -> String {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let (port, admin) = (free_port(), free_port());
    let settings = [
        format!("server.port={port}"),
        format!("server.port_range={port}-{port}"),
        format!("admin.port={admin}"),
        format!("admin.state_dir={}", folder.path().display()),
        "capture.mode=required".to_owned(),
        format!("capture.cgroup={}", first.cgroup().display()),
    ];
    let mut command = Command::new("timeout");
    command.arg("20").arg(binary()).arg("serve");
    let output = command.args(settings.iter().flat_map(|setting| ["--set", setting])).output();
    let output = output.expect("coreutils are installed");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_weir_that_can_not_reach_the_holder_does_not_start_and_kill_ends_it() {
    netns::enter();
    let server = who::server(netns::V4);
    let mut weir = Weir::capturing(CLOSED);
    let mut prompt = Prompt::start(&weir, *server);
    assert_eq!(prompt.ask(), "captured");
    let left = holder(&weir);
    killed(&mut weir);
    // It looks in another folder.
    let text = refusal(&weir);
    assert!(text.contains("admin.state_dir") && text.contains("weir hold"), "{text}");
    assert_eq!(prompt.ask(), "ECONNREFUSED");
    assert_eq!(attached(weir.cgroup()), 1);
    kill(left, Signal::SIGTERM).expect("it runs");
    prompt.ask_until("direct");
    assert_eq!(attached(weir.cgroup()), 0);
}
