//! What goes wrong with a running weir: what becomes of connections, and that the status says so, and when it is over.

#[expect(dead_code, reason = "not all of it is needed here")]
#[path = "../../proxy-userspace/tests/redirect/foreign.rs"]
mod foreign;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use foreign::{Does, Foreign, Mode};
use nix::sys::signal::Signal;
use serde_json::Value;
use weir_tests::prompt::Prompt;
use weir_tests::weir::{Weir, eventually};
use weir_tests::{leaks, netns, scripts, who};

/// Waits until the status has that state of capture; gives its problems in one text.
#[track_caller]
fn until(weir: &Weir, state: &str) -> String {
    let begun = Instant::now();
    let problems = eventually(&format!("the state is {state}"), || {
        let capture = &weir.status()["capture"];
        (capture["state"] == state).then(|| capture["kernel"]["problems"].to_string())
    });
    println!("{state} after {:.2} s: {problems}", begun.elapsed().as_secs_f32());
    problems
}

#[test]
fn the_attach_cgroup_is_removed_and_made_again() {
    netns::enter();
    let server = who::server(netns::V4);
    let weir = Weir::capturing("");
    let cgroup = weir.cgroup().to_owned();
    std::fs::remove_dir(&cgroup).expect("nobody is in it");
    let problems = until(&weir, "degraded");
    assert!(problems.contains("was removed"), "{problems}");
    std::fs::create_dir(&cgroup).expect("a cgroup");
    until(&weir, "on");
    assert_eq!(Prompt::start(&weir, *server).ask(), "captured");
}

#[test]
fn the_map_of_connections_is_full() {
    netns::enter();
    let server = who::server(netns::V4);
    // No fewer can be asked for.
    let room = 64;
    for (fail, beyond) in [("open", "direct"), ("closed", "ECONNREFUSED")] {
        let weir = Weir::capturing(&format!("capture: {{max_connections: {room}, fail: {fail}}}"));
        let script = format!(
            "import client, sys\n\
             held = [client.connect('{0}', {1}) for _ in range({room})]\n\
             print('full', flush=True); sys.stdin.readline()\n\
             print(client.attempt('{0}', {1}), flush=True); sys.stdin.readline()\n\
             held.clear(); print('free', flush=True); sys.stdin.readline()\n\
             print(client.attempt('{0}', {1}), flush=True)",
            server.ip(),
            server.port()
        );
        let mut command = weir.exec(&scripts::python(&script));
        let command = scripts::import(&mut command).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = command.spawn().expect("weir starts");
        let mut answers = BufReader::new(client.stdout.take().expect("a pipe")).lines();
        let mut next = || answers.next().expect("it goes on").expect("a line");
        let mut go_on = || client.stdin.as_mut().expect("a pipe").write_all(b"\n").expect("it reads");
        assert_eq!(next(), "full");
        let problems = until(&weir, "degraded");
        assert!(problems.contains("the map ORIGINALS is full (64 entries)"), "{problems}");
        go_on();
        assert_eq!(next(), beyond, "{fail}");
        go_on();
        assert_eq!(next(), "free");
        until(&weir, "on");
        go_on();
        assert_eq!(next(), "captured");
        assert!(client.wait().expect("a child of ours").success());
        leaks::check_none(&weir, usize::MAX);
    }
}

#[test]
fn somebody_elses_program_refuses() {
    netns::enter();
    let server = who::server(netns::V4);
    let mut weir = Weir::capturing("");
    let mut prompt = Prompt::start(&weir, *server);
    let refuses = Foreign::attach(weir.cgroup(), Does::Refuse, Mode::Multi).expect("weir tolerates it");
    assert_eq!(prompt.ask(), "EPERM");
    let status = scripts::stdout(&mut weir.command(&["status"]));
    assert!(status.contains("runs after weir's: it may refuse"), "{status}");
    assert!(status.contains("capture      on"), "{status}");
    drop(refuses);
    assert_eq!(prompt.ask(), "captured");
    assert!(weir.status()["capture"]["kernel"]["others"].as_array().is_some_and(Vec::is_empty));
    leaks::check_none(&weir, usize::MAX);

    // Below weir's cgroup it runs before weir's program. Only what it does tells of it.
    let below = weir.cgroup().join("weir/exec-0");
    let refuses = Foreign::attach(&below, Does::Refuse, Mode::Multi).expect("weir tolerates it");
    assert_eq!(prompt.ask(), "EPERM");
    let status = scripts::stdout(&mut weir.command(&["status"]));
    assert!(status.contains("other programs             have refused 1 "), "{status}");
    drop((refuses, prompt));
    weir.signal(Signal::SIGTERM);
    assert_eq!(weir.wait(), Some(0));
}

/// `bpftool KIND show id ID`.
fn exists(kind: &str, id: &Value) -> bool {
    let mut bpftool = Command::new("bpftool");
    bpftool
        .args([kind, "show", "id", &id.to_string()])
        .output()
        .expect("bpftool is installed")
        .status
        .success()
}

#[test]
fn a_weir_that_ends_in_whatever_way_leaves_no_program_and_no_map() {
    netns::enter();
    for (signal, overlay) in
        [(Signal::SIGTERM, "capture: {fail: closed}"), (Signal::SIGKILL, ""), (Signal::SIGTERM, "")]
    {
        let mut weir = Weir::capturing(overlay);
        let hooks = weir.status()["capture"]["kernel"]["hooks"].clone();
        let programs: Vec<Value> =
            hooks.as_array().into_iter().flatten().map(|hook| hook["program_id"].clone()).collect();
        assert!(!programs.is_empty() && programs.iter().all(|id| exists("prog", id)), "{programs:?}");
        let maps: Vec<Value> = programs
            .iter()
            .flat_map(|id| {
                let mut bpftool = Command::new("bpftool");
                let told = scripts::stdout(bpftool.args(["-j", "prog", "show", "id", &id.to_string()]));
                let told: Value = serde_json::from_str(&told).expect("JSON");
                told["map_ids"].as_array().cloned().unwrap_or_default()
            })
            .collect();
        assert!(maps.len() > programs.len(), "{maps:?}");
        weir.signal(signal);
        weir.wait();
        eventually("no program of it is there", || {
            programs.iter().all(|id| !exists("prog", id)).then_some(())
        });
        // The kernel frees maps after their programs.
        eventually("no map of it is there", || maps.iter().all(|id| !exists("map", id)).then_some(()));
    }
}
