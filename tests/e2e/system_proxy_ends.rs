//! The system's proxy over weir's life, with the real gsettings and dconf: whatever ends weir, what was there is given back.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use weir_tests::desktop::Desktop;
use weir_tests::weir::{SOON, Weir, eventually, runs};

const GNOME: &str = "system_proxy: {backends: [gnome]}";

fn configure(weir: &Weir) -> (u16, Value) {
    weir.api("POST", "/proxy/configure-system", Some(&json!({})))
}

#[track_caller]
fn names(desktop: &Desktop, weir: &Weir) {
    assert_eq!(desktop.proxy(), ("manual".to_owned(), "127.0.0.1".to_owned(), weir.proxy.port()));
}

/// The process that gives the settings back, if it runs. Children are those of the thread that has made them.
fn guardian_of(weir: &Weir) -> Option<Pid> {
    let threads = fs::read_dir(format!("/proc/{}/task", weir.pid())).ok()?.flatten();
    let children =
        threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let children: String = children.collect();
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let mut guardians = children.split_whitespace().filter(|pid| name(pid) == "weir-guard\n");
    guardians.find_map(|pid| pid.parse().ok().map(Pid::from_raw))
}

fn guardian(weir: &Weir) -> Pid {
    guardian_of(weir).expect("a guardian")
}

#[test]
fn whatever_ends_weir_it_is_given_back() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL, Signal::SIGABRT] {
        let desktop = Desktop::with_settings();
        let before = desktop.dump();
        let overlay = "system_proxy: {backends: [gnome], configure: on_start}";
        let mut weir = Weir::explicit_with(overlay, &desktop.environment());
        eventually("the system's proxy is weir", || (desktop.dump() != before).then_some(()));
        eventually("it is told", || (weir.status()["system_proxy"]["configured"] == true).then_some(()));
        names(&desktop, &weir);
        let guardian = guardian(&weir);
        weir.signal(signal);
        weir.wait();
        eventually("the settings are restored", || (desktop.dump() == before).then_some(()));
        eventually("the guardian ends", || (!runs(guardian)).then_some(()));
        assert!(!weir.folder().join("lasting/state.json").exists());
    }
}

#[test]
fn when_all_are_killed_the_next_start_gives_it_back() {
    let desktop = Desktop::with_settings();
    let environment = desktop.environment();
    let before = desktop.dump();
    let mut weir = Weir::explicit_with(GNOME, &environment);
    for by_command in [false, true] {
        assert_eq!(configure(&weir).0, 200);
        let guardian = guardian(&weir);
        // Stopped, it can do nothing in between.
        kill(guardian, Signal::SIGSTOP).expect("it runs");
        weir.signal(Signal::SIGKILL);
        weir.wait();
        kill(guardian, Signal::SIGKILL).expect("it runs");
        eventually("the guardian ends", || (!runs(guardian)).then_some(()));
        assert_ne!(desktop.dump(), before);
        if by_command {
            let restore = || {
                let lasting = format!("system_proxy.state_dir={}", weir.folder().join("lasting").display());
                let output =
                    weir.command(&["restore", "--json", "--set", &lasting]).output().expect("weir runs");
                assert!(output.status.success(), "{output:?}");
                serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["restored"] == true
            };
            assert!(restore() && !restore());
        } else {
            weir.start_again(&environment);
        }
        assert_eq!(desktop.dump(), before);
    }
}

#[test]
fn a_session_that_is_over_gets_its_settings_back_too() {
    let mut desktop = Desktop::with_settings();
    let before = desktop.dump();
    let mut weir = Weir::explicit_with(GNOME, &desktop.environment());
    assert_eq!(configure(&weir).0, 200);
    desktop.log_out();
    weir.signal(Signal::SIGTERM);
    assert_eq!(weir.wait(), Some(0));
    assert_eq!(desktop.dump(), before);
}

#[test]
fn a_killed_guardian_is_replaced() {
    let desktop = Desktop::with_settings();
    let before = desktop.dump();
    let mut weir = Weir::explicit_with(GNOME, &desktop.environment());
    assert_eq!(configure(&weir).0, 200);
    let first = guardian(&weir);
    kill(first, Signal::SIGKILL).expect("it runs");
    eventually("another guardian", || weir.log().contains("there is another one").then_some(()));
    assert_ne!(guardian(&weir), first);
    names(&desktop, &weir);
    weir.signal(Signal::SIGKILL);
    weir.wait();
    eventually("the settings are restored", || (desktop.dump() == before).then_some(()));
}

#[test]
fn another_weir_takes_it_over() {
    let desktop = Desktop::with_settings();
    let before = desktop.dump();
    let mut weir = Weir::explicit_with(GNOME, &desktop.environment());
    assert_eq!(configure(&weir).0, 200);
    let set = desktop.dump();
    // What the old one still has to do keeps it alive.
    let _tunnel = weir.tunnel_ends();
    let old = weir.upgrade(&[]);
    eventually("the new one knows", || (weir.status()["system_proxy"]["configured"] == true).then_some(()));
    assert_eq!(desktop.dump(), set);
    assert_eq!(configure(&weir).0, 409);
    kill(old, Signal::SIGKILL).expect("it finishes what it has");
    eventually("it has ended", || (!runs(old)).then_some(()));
    assert_eq!(weir.status()["system_proxy"]["configured"], true);
    assert_eq!(desktop.dump(), set);
    weir.signal(Signal::SIGKILL);
    eventually("the settings are restored", || (desktop.dump() == before).then_some(()));
}

/// Kills weir at random points of configure, unconfigure, start and stop. Afterwards the settings are what they were, and
/// at no time for longer than a second do they name a port at which nobody listens.
#[test]
fn killed_at_any_point_it_gives_everything_back() {
    let kills: u32 =
        std::env::var("WEIR_SYSTEM_PROXY_KILLS").ok().map_or(12, |kills| kills.parse().expect("a number"));
    let desktop = Desktop::with_settings();
    let environment_file = desktop.home().join("environment");
    fs::write(&environment_file, "A=b").expect("a file");
    let look = || (desktop.dump(), fs::read(&environment_file).expect("a file"));
    let before = look();
    let overlay = format!(
        "system_proxy: {{backends: [gnome, environment], environment_file: '{}'}}",
        environment_file.display()
    );
    let environment = desktop.environment();
    let mut weir = Weir::explicit_with(&overlay, &environment);
    let state = weir.folder().join("lasting/state.json");
    let (mut longest, mut by_start) = (Duration::ZERO, 0);
    let mut random = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    let mut next = |below: u64| {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for turn in 0..kills {
        let socket = weir.folder().join("state/admin.sock");
        let mut asking = Command::new("sh");
        asking.arg("-c").arg(
            "for path in configure-system unconfigure-system start stop start; do \
             curl -s -o /dev/null -X POST --unix-socket \"$0\" http://localhost/proxy/$path; done",
        );
        // A group of its own: a curl that outlives its shell would ask the weir that is started next.
        let mut asking = asking.arg(&socket).process_group(0).spawn().expect("a shell");
        std::thread::sleep(Duration::from_millis(next(700)));
        // Every fifth time with its guardian. There may be none yet, or none that is known here.
        let guardian = guardian_of(&weir);
        let with_guardian = guardian.filter(|_| next(5) == 0);
        if let Some(guardian) = with_guardian {
            let _ = kill(guardian, Signal::SIGSTOP);
        }
        let died = Instant::now();
        weir.signal(Signal::SIGKILL);
        weir.wait();
        let group = Pid::from_raw(i32::try_from(asking.id()).expect("a pid"));
        let _ = killpg(group, Signal::SIGKILL);
        let _ = asking.wait();
        eventually("nobody asks any more", || killpg(group, None).is_err().then_some(()));
        if let Some(guardian) = with_guardian {
            let _ = kill(guardian, Signal::SIGKILL);
            by_start += 1;
        }
        if let Some(guardian) = guardian {
            // The last moment at which something was not what it was before, as seen by looking all the time.
            let mut named = Duration::ZERO;
            while runs(guardian) && died.elapsed() < SOON {
                if look() != before {
                    named = died.elapsed();
                }
            }
            assert!(!runs(guardian));
            if with_guardian.is_none() {
                longest = longest.max(named);
                assert_eq!(look(), before, "turn {turn}");
                assert!(!state.exists(), "turn {turn}");
            }
        }
        weir.start_again(&environment);
        assert!(TcpStream::connect(weir.proxy).is_ok());
        // At once, but for a guardian that was not known.
        eventually("everything is given back", || (look() == before && !state.exists()).then_some(()));
    }
    println!(
        "{kills} kills, {by_start} with the guardian; settings named a dead weir for at most {longest:?}"
    );
    if kills > 100 {
        assert!(longest < Duration::from_secs(1), "{longest:?}");
    }
}
