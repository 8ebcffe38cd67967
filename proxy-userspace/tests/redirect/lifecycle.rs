//! Start and end: one weir a cgroup, clear refusals, and nothing left behind, however it ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weir::config::Capture;
use weir::redirect::support::{Verdict, probe};
use weir::redirect::{ExecCgroup, Redirect, RedirectError};

use super::foreign::Foreign;
use super::rig::{Rig, start};

/// Where no weir has left anything.
const NO_STATE: &str = "/nonexistent";

fn refusal(rig: &Rig, config: &Capture) -> RedirectError {
    match Redirect::start(config, &rig.listeners()) {
        Ok(_) => panic!("it must not start"),
        Err(error) => error,
    }
}

#[test]
fn dropping_it_detaches() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    let _proxy = rig.proxy(&redirect);
    assert!(redirect.state().is_whole(), "{:?}", redirect.state());
    assert_eq!(rig.captured("print(ask('198.18.0.1', 8080))"), "198.18.0.1:8080");
    drop(redirect);
    assert_eq!(rig.captured("print(ask('198.18.0.1', 8080))"), "direct");
}

#[test]
fn a_second_weir_on_the_same_cgroup_is_refused() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    let error = refusal(&rig, &rig.config());
    assert!(matches!(error, RedirectError::AlreadyRunning { holder: Some(_), .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
    assert!(text.contains(&rig.groups.attach.display().to_string()), "{text}");
    drop(redirect);
    rig.redirect(&rig.config());
}

#[test]
fn a_foreign_exclusive_program_is_named() {
    let rig = Rig::new();
    for (place, config) in [
        (rig.groups.attach.clone(), rig.config()),
        // It rules the tree below it, too.
        (rig.groups.attach.clone(), Capture { cgroup: Some(rig.groups.captured()), ..rig.config() }),
    ] {
        let foreign = Foreign::exclusive(&place);
        let error = refusal(&rig, &config);
        assert!(
            matches!(&error, RedirectError::ForeignProgram { cgroup, .. } if *cgroup == place),
            "{error}"
        );
        let text = error.to_string();
        assert!(text.contains("cgroup_inet4_connect"), "{text}");
        assert!(text.contains(&format!("bpftool cgroup show {}", place.display())), "{text}");
        assert!(
            probe(&config, Path::new(NO_STATE))
                .iter()
                .any(|check| check.verdict == Verdict::Bad && check.detail == text)
        );
        drop(foreign);
        drop(Redirect::start(&config, &rig.listeners()).expect("nothing is in the way any more"));
    }
}

#[test]
fn a_wrong_cgroup_is_refused() {
    let rig = Rig::new();
    let with = |path: &str| Capture { cgroup: Some(path.into()), ..rig.config() };
    let error = refusal(&rig, &with("/nonexistent"));
    assert!(matches!(error, RedirectError::Cgroup { .. }), "{error}");
    let error = refusal(&rig, &with("/proc"));
    assert!(matches!(error, RedirectError::NotCgroup2 { .. }), "{error}");
}

#[test]
fn an_exec_cgroup_tells_when_it_is_empty() {
    let rig = Rig::new();
    let own = ExecCgroup::create(&rig.groups.attach).unwrap();
    let second = ExecCgroup::create(&rig.groups.attach).unwrap();
    assert_ne!(own.id(), second.id());
    second.remove().unwrap();
    assert!(!own.is_populated().unwrap());
    let mut child = start(own.path(), "print('ready', flush=True); sys.stdin.read()");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(own.is_populated().unwrap());
    assert!(!own.wait_until_empty(Duration::from_millis(20)).unwrap());
    let existing = ExecCgroup::existing(&rig.groups.attach).unwrap();
    assert_eq!(existing.iter().map(ExecCgroup::id).collect::<Vec<_>>(), [own.id()]);
    drop(child.stdin.take());
    assert!(own.wait_until_empty(Duration::from_secs(10)).unwrap());
    child.wait().unwrap();
    own.remove().unwrap();
    assert!(!rig.groups.attach.join("weir").exists());
}

const HOLDER: &str = env!("CARGO_BIN_EXE_redirect-holder");

/// The holder with no capabilities but these (setpriv's names, e.g. `+bpf`).
fn with_capabilities(capabilities: &str) -> Command {
    let mut command = Command::new("setpriv");
    // A root process gets on exec what the bounding set leaves.
    command.args(["--inh-caps=-all", &format!("--bounding-set=-all{capabilities}"), HOLDER]);
    command
}

#[test]
fn two_capabilities_suffice() {
    let rig = Rig::new();
    let _holder = Holder::start_by(with_capabilities(",+bpf,+net_admin"), &rig);
    assert_eq!(Client::start(&rig.groups.captured()).ask(), "captured");
}

#[test]
fn a_missing_privilege_is_named() {
    let rig = Rig::new();
    for (capabilities, missing) in [
        ("", "CAP_BPF and CAP_NET_ADMIN are missing"),
        (",+bpf", "CAP_NET_ADMIN is missing"),
        (",+net_admin", "CAP_BPF is missing"),
    ] {
        let mut command = with_capabilities(capabilities);
        let output = command.args([&rig.groups.attach, &rig.groups.captured()]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(missing) && text.contains("setcap"), "{text}");
    }
}

#[test]
fn a_pid_namespace_is_refused() {
    let rig = Rig::new();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", HOLDER]).args([&rig.groups.attach, &rig.groups.captured()]);
    let text = String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned();
    assert!(text.contains("pid namespace"), "{text}");
}

/// A weir in a process of its own, to be killed and stopped.
struct Holder {
    process: Child,
}

impl Holder {
    fn start(rig: &Rig) -> Self {
        Self::start_by(Command::new(HOLDER), rig)
    }

    fn start_by(mut command: Command, rig: &Rig) -> Self {
        command.args([&rig.groups.attach, &rig.groups.captured()]);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { process }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Killed by the test already, perhaps.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client that connects once for each line it is sent: no start-up time in between.
struct Client {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    fn start(cgroup: &Path) -> Self {
        let script = "for line in sys.stdin: print(attempt('198.18.0.1', 8080), flush=True)";
        let mut process = start(cgroup, script);
        let (ask, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, ask, answers: BufReader::new(answers) }
    }

    fn ask(&mut self) -> String {
        self.ask.write_all(b"\n").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_killed_weir_leaves_nothing_attached() {
    let rig = Rig::new();
    let mut holder = Holder::start(&rig);
    let mut client = Client::start(&rig.groups.captured());
    assert_eq!(client.ask(), "captured");
    holder.signal(Signal::SIGKILL);
    holder.process.wait().unwrap();
    assert_eq!(client.ask(), "direct");
    // The lock went, too.
    drop(rig.redirect(&rig.config()));
}

#[test]
fn a_stopped_weir_is_bypassed_until_it_goes_on() {
    let rig = Rig::new();
    let holder = Holder::start(&rig);
    let mut client = Client::start(&rig.groups.captured());
    assert_eq!(client.ask(), "captured");
    holder.signal(Signal::SIGSTOP);
    // A heartbeat is lost after 500 ms.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(client.ask(), "direct");
    holder.signal(Signal::SIGCONT);
    let deadline = Instant::now() + Duration::from_secs(5);
    while client.ask() != "captured" {
        assert!(Instant::now() < deadline, "not captured again");
    }
}

#[test]
fn the_probe_finds_this_machine_fit() {
    let rig = Rig::new();
    let checks = probe(&rig.config(), Path::new(NO_STATE));
    assert!(checks.iter().all(|check| check.verdict != Verdict::Bad), "{checks:#?}");
    let none = Capture { cgroup: Some(PathBuf::from("/nonexistent")), ..rig.config() };
    assert!(
        probe(&none, Path::new(NO_STATE))
            .iter()
            .any(|check| check.name == "cgroup" && check.verdict == Verdict::Bad)
    );
}
