//! What `weir status` says of a weir that is killed, stopped, stuck, or in another's company: soon, and no longer than it
//! is so. `truth.rs` has what goes wrong with what it attached.

#[expect(dead_code, reason = "not all of it is needed here")]
#[path = "../../proxy-userspace/tests/redirect/foreign.rs"]
mod foreign;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use foreign::{Does, Foreign, Mode};
use nix::sys::signal::Signal;
use weir_tests::prompt::Prompt;
use weir_tests::weir::{Weir, eventually, new_cgroup};
use weir_tests::{leaks, netns, scripts, who};

/// The exit code of commands to which no weir answers.
const NO_ANSWER: i32 = 3;

fn status(weir: &Weir) -> Output {
    weir.command(&["status"]).output().expect("weir runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until the status has that state of capture, and tells how long it took; gives its problems in one text.
#[track_caller]
fn until(weir: &Weir, state: &str, what: &str) -> String {
    let begun = Instant::now();
    let problems = eventually(&format!("the state is {state}: {what}"), || {
        let capture = &weir.status()["capture"];
        (capture["state"] == state).then(|| capture["kernel"]["problems"].to_string())
    });
    println!("{what}: {state} after {:.2} s", begun.elapsed().as_secs_f32());
    problems
}

/// What bpftool finds attached to a cgroup.
fn attached(cgroup: &Path) -> String {
    scripts::stdout(Command::new("bpftool").args(["cgroup", "show"]).arg(cgroup))
}

#[test]
fn killed() {
    netns::enter();
    let server = who::server(netns::V4);
    let mut weir = Weir::capturing("");
    let mut program = Prompt::start(&weir, *server);
    assert_eq!(program.ask(), "captured");
    weir.signal(Signal::SIGKILL);
    weir.wait();
    let begun = Instant::now();
    let told = status(&weir);
    println!("killed: told after {:.2} s", begun.elapsed().as_secs_f32());
    assert_eq!(told.status.code(), Some(NO_ANSWER));
    assert!(errors(&told).contains("no weir answers"), "{}", errors(&told));
    program.ask_until("direct");
    assert_eq!(attached(weir.cgroup()), "");
}

#[test]
fn stopped() {
    netns::enter();
    let server = who::server(netns::V4);
    let weir = Weir::capturing("");
    let mut program = Prompt::start(&weir, *server);
    assert_eq!(program.ask(), "captured");
    weir.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    let told = status(&weir);
    println!("stopped: told after {:.2} s", begun.elapsed().as_secs_f32());
    assert_eq!(told.status.code(), Some(NO_ANSWER));
    let said = errors(&told);
    assert!(said.contains(&format!("(process {}) is stopped", weir.pid())), "{said}");
    // Those that came before the kernel knew are served when it goes on.
    let waiting = weir.exec(&["true"]).output().expect("weir runs");
    assert_eq!(waiting.status.code(), Some(NO_ANSWER), "{waiting:?}");
    weir.signal(Signal::SIGCONT);
    until(&weir, "on", "goes on");
    program.ask_until("captured");
    leaks::check_none(&weir, usize::MAX);
}

/// One thread of several stands still, as in a deadlock: here a tracer holds it.
#[test]
fn stuck() {
    const HOLD: &str = "import ctypes, glob, sys\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        tasks = [task.rsplit('/', 1)[1] for task in glob.glob(f'/proc/{sys.argv[1]}/task/*')\n\
        \x20        if open(f'{task}/comm').read().startswith(sys.argv[2])]\n\
        SEIZE, INTERRUPT = 0x4206, 0x4207\n\
        assert libc.ptrace(SEIZE, int(tasks[0]), 0, 0) == 0, ctypes.get_errno()\n\
        assert libc.ptrace(INTERRUPT, int(tasks[0]), 0, 0) == 0, ctypes.get_errno()\n\
        print('held', flush=True)\n\
        sys.stdin.read()";
    netns::enter();
    let server = who::server(netns::V4);
    for (thread, fail, then) in [("weir-worker", "open", "direct"), ("weir-dns", "closed", "ECONNREFUSED")] {
        let weir = Weir::capturing(&format!("capture: {{fail: {fail}}}"));
        let mut program = Prompt::start(&weir, *server);
        assert_eq!(program.ask(), "captured");
        let mut tracer = Command::new("python3")
            .args(["-c", HOLD, &weir.pid().to_string(), thread])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed");
        let mut line = String::new();
        let output = tracer.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "held\n", "{thread}");
        let problems = until(&weir, "degraded", "a stuck thread");
        assert!(problems.contains("has shown no life for"), "{problems}");
        assert_eq!(program.ask(), then, "{thread}");
        // The kernel lets go of what a tracer holds when that ends.
        tracer.kill().and_then(|()| tracer.wait()).expect("a child of ours");
        until(&weir, "on", "it goes on");
        program.ask_until("captured");
    }
}

#[test]
fn a_second_one_changes_nothing() {
    netns::enter();
    let server = who::server(netns::V4);
    let weir = Weir::capturing("");
    let mut program = Prompt::start(&weir, *server);
    let before = attached(weir.cgroup());
    let mut second =
        Weir::explicit(&format!("capture: {{mode: auto, cgroup: '{}'}}", weir.cgroup().display()));
    let its = &second.status()["capture"];
    let reason = its["reason"].as_str().unwrap_or_default();
    assert_eq!(its["state"], "unavailable");
    assert!(reason.contains(&format!("(pid {})", weir.pid())), "{reason}");
    assert_eq!((program.ask().as_str(), attached(weir.cgroup())), ("captured", before.clone()));
    until(&weir, "on", "beside a second one");
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait(), Some(0));
    assert_eq!((program.ask().as_str(), attached(weir.cgroup())), ("captured", before));
}

/// Somebody else's program on the same hook, there before weir: in the same cgroup or above, in every mode.
#[test]
fn beside_programs_of_others() {
    netns::enter();
    let server = who::server(netns::V4);
    let others = |weir: &Weir| weir.status()["capture"]["kernel"]["others"].as_array().map_or(0, Vec::len);
    for (mode, is_above, told) in [
        (Mode::None, false, None),
        (Mode::Override, false, None),
        (Mode::Multi, false, Some(1)),
        (Mode::None, true, None),
        // The kernel does not run it below any more.
        (Mode::Override, true, Some(0)),
        (Mode::Multi, true, Some(1)),
    ] {
        let case = format!("{mode:?}, above: {is_above}");
        let parent = new_cgroup();
        let own = parent.join("own");
        std::fs::create_dir(&own).expect("a cgroup");
        let place = if is_above { &parent } else { &own };
        let foreign = Foreign::attach(place, Does::Pass, mode).expect("nobody else is there");
        let overlay = format!("capture: {{mode: auto, cgroup: '{}'}}", own.display());
        let mut weir = Weir::capturing_in(parent, &overlay);
        let capture = &weir.status()["capture"];
        match told {
            Some(told) => {
                assert_eq!((&capture["state"], others(&weir)), (&"on".into(), told), "{case}: {capture:#}");
                assert_eq!(Prompt::start(&weir, *server).ask(), "captured", "{case}");
                drop(foreign);
                assert_eq!(others(&weir), 0, "{case}");
                assert!(Foreign::attach(&own, Does::Pass, Mode::None).is_err(), "{case}: weir is there");
                assert_eq!(weir.status()["capture"]["state"], "on", "{case}");
            }
            None => {
                let reason = capture["reason"].as_str().unwrap_or_default();
                assert_eq!(capture["state"], "unavailable", "{case}: {capture:#}");
                assert!(reason.contains("exclusive"), "{case}: {reason}");
                drop(foreign);
            }
        }
        weir.signal(Signal::SIGTERM);
        assert_eq!(weir.wait(), Some(0), "{case}");
        assert_eq!(attached(&own), "", "{case}");
    }
}
