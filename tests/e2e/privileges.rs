//! `server.user`: weir holds what it needs and nothing else, and all that takes privilege goes on working.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use weir_tests::certificates::Authority;
use weir_tests::dns::{Asked, Server, address, answers};
use weir_tests::load::{Load, Way};
use weir_tests::netns::{self, Other};
use weir_tests::prompt::Prompt;
use weir_tests::weir::{Weir, binary, eventually, new_cgroup, runs};
use weir_tests::{leaks, scripts, who};

/// Of the user `nobody`.
const NOBODY: u32 = 65_534;

/// Bits of linux/capability.h: what weir holds, and what its assistant does.
const WEIR: u64 = 1 << 39 | 1 << 12 | 1 << 38 | 1 << 13 | 1 << 10;
const ASSISTANT: u64 = 1 << 21 | 1 << 19 | 1 << 13 | 1 << 1 | 1;

/// A field of a status file of /proc.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim_start_matches(':').trim().to_owned()
}

fn capabilities(status: &str, set: &str) -> u64 {
    u64::from_str_radix(&field(status, set), 16).expect("a number")
}

/// The status of each thread.
fn threads(pid: Pid) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok()).collect()
}

/// Fails unless no thread of weir may do more than it needs to.
#[track_caller]
fn check_threads(weir: &Weir) {
    let threads = threads(weir.pid());
    assert!(threads.len() > 2, "{threads:?}");
    for status in &threads {
        let name = field(status, "Name");
        assert_eq!(field(status, "Uid"), ["65534"; 4].join("\t"), "{name}");
        assert_eq!(field(status, "Gid"), ["65534"; 4].join("\t"), "{name}");
        for set in ["CapEff", "CapPrm", "CapAmb"] {
            assert_eq!(capabilities(status, set) & !WEIR, 0, "{name}: {set}");
        }
        assert_eq!(capabilities(status, "CapAmb"), 0, "{name}: what it runs gets none");
        if name.starts_with("weir-worker") {
            assert_eq!(capabilities(status, "CapEff"), WEIR, "{name}");
            assert_eq!(capabilities(status, "CapBnd"), WEIR, "{name}");
            assert_eq!(field(status, "NoNewPrivs"), "1", "{name}");
        }
    }
}

fn assistant(weir: &Weir) -> Pid {
    let pid = weir.status()["assistant"].as_i64().expect("an assistant");
    Pid::from_raw(i32::try_from(pid).expect("a pid"))
}

#[test]
fn what_it_holds_is_what_it_needs() {
    netns::enter();
    let mut weir = Weir::capturing("server: {user: nobody}");
    check_threads(&weir);
    let assistant = assistant(&weir);
    let status = fs::read_to_string(format!("/proc/{assistant}/status")).expect("it runs");
    assert_eq!((capabilities(&status, "CapEff"), capabilities(&status, "CapBnd")), (ASSISTANT, ASSISTANT));
    assert_eq!(field(&status, "Threads"), "1");
    let told =
        String::from_utf8(weir.command(&["status"]).output().expect("weir runs").stdout).expect("text");
    assert!(told.contains("65534 with CAP_BPF CAP_NET_ADMIN"), "{told}");
    for name in ["state", "state/state.json", "state/admin.sock"] {
        assert_eq!(fs::metadata(weir.folder().join(name)).expect("it is there").uid(), NOBODY, "{name}");
    }
    weir.signal(Signal::SIGTERM);
    assert_eq!(weir.wait(), Some(0), "{}", weir.log());
    eventually("the assistant has ended", || (!runs(assistant)).then_some(()));
    assert!(!weir.folder().join("state/admin.sock").exists());
    assert!(!weir.cgroup().join("weir").exists());
}

#[test]
fn everything_that_takes_privilege_works() {
    netns::enter();
    let server = who::server(netns::V4);
    let zone = |_: &Asked| answers(&[address("www.example", 60, netns::V4)]);
    let _dns = Server::start(netns::V6_OTHER, zone);
    let other = Other::new(&["198.18.7.1/32"]);
    let there = other.run(|| who::server("198.18.7.1"));
    let weir = Weir::capturing("{server: {user: nobody}, capture: {fail: closed}}");
    let mut program = Prompt::start(&weir, *server);
    assert_eq!(program.ask(), "captured");
    // In a namespace that only the assistant can enter, of a program of root's.
    let mut program_there = other.run(|| Prompt::start(&weir, *there));
    assert_eq!(program_there.ask(), "captured");
    assert_eq!(weir.status()["capture"]["namespaces"].as_array().map(Vec::len), Some(1));
    let ask = |server: &str| {
        let script = format!("import resolve; print(resolve.ask('{server}', 'www.example'))");
        scripts::stdout(&mut weir.exec(&scripts::python(&script)))
    };
    assert!(ask("fd00:18::2").contains("#53 0 - "));
    assert_eq!(ask(netns::V4_OTHER), "ECONNREFUSED", "nobody listens there, and that is said by ICMP");
    // Somebody detaches a program; the whole attach cgroup goes and comes.
    detach(&weir);
    eventually("attached again", || weir.log().contains("they are attached again").then_some(()));
    assert_eq!((program.ask(), program_there.ask()), ("captured".to_owned(), "captured".to_owned()));
    // Rules are read again.
    let overlay = weir.folder().join("overlay.yaml");
    let rules = format!("[{{name: no, destinations: ['{}/32'], action: deny}}]", netns::V4);
    let text = format!("{{server: {{user: nobody}}, capture: {{fail: closed, rules: {rules}}}}}");
    fs::write(&overlay, text).expect("a file");
    weir.signal(Signal::SIGHUP);
    program.ask_until("ECONNREFUSED");
    assert_eq!(program_there.ask(), "captured");
    drop((program, program_there));
    eventually("the namespace is left", || {
        (weir.status()["capture"]["namespaces"].as_array().map(Vec::len) == Some(0)).then_some(())
    });
    // Its death refuses: the holder is that user's, too.
    fs::write(&overlay, "{server: {user: nobody}, capture: {fail: closed}}").expect("a file");
    weir.signal(Signal::SIGHUP);
    let mut program = Prompt::start(&weir, *server);
    program.ask_until("captured");
    weir.signal(Signal::SIGKILL);
    program.ask_until("ECONNREFUSED");
}

/// Takes a program of weir's from its hook.
fn detach(weir: &Weir) {
    let status = weir.status();
    let hooks = status["capture"]["kernel"]["hooks"].as_array().expect("hooks").clone();
    let program = hooks.iter().find(|hook| hook["name"] == "cgroup_inet4_connect").expect("the hook");
    let links =
        Command::new("bpftool").args(["--json", "link", "show"]).output().expect("bpftool is installed");
    let links: serde_json::Value = serde_json::from_slice(&links.stdout).expect("JSON");
    let link = links.as_array().and_then(|links| {
        links.iter().find(|link| link["prog_id"] == program["program_id"]).map(|link| link["id"].to_string())
    });
    let status = Command::new("bpftool").args(["link", "detach", "id", &link.expect("its link")]).status();
    assert!(status.expect("bpftool is installed").success());
}

#[test]
fn it_is_upgraded_in_that_mode() {
    netns::enter();
    let load = Load::on(netns::V4);
    let server = who::server(netns::V4);
    let other = Other::new(&["198.18.7.1/32"]);
    let there = other.run(|| who::server("198.18.7.1"));
    let mut weir = Weir::capturing("{server: {user: nobody}, logging: {access: false}}");
    // Where that user may run it: cargo's folder may be root's alone.
    let program = weir.folder().join("weir");
    let copied = Command::new("cp").arg(binary()).arg(&program).status();
    assert!(copied.expect("cp").success());
    let first_assistant = assistant(&weir);
    let mut programs = [Prompt::start(&weir, *server), other.run(|| Prompt::start(&weir, *there))];
    let requests = [Way::Captured, Way::Explicit].map(|way| load.short(&weir, way));
    let mut earlier = Vec::new();
    for _ in 0..2 {
        earlier.push(weir.upgrade(&["--binary", &program.display().to_string()]));
        check_threads(&weir);
        assert_eq!(assistant(&weir), first_assistant, "it goes over");
        for program in &mut programs {
            assert_eq!(program.ask(), "captured");
        }
    }
    for requests in requests {
        let told = requests.end();
        assert_eq!((&told["failed"], &told["direct"]), (&serde_json::json!([]), &0.into()), "{told}");
    }
    for earlier in earlier {
        eventually("the earlier weir has ended", || (!runs(earlier)).then_some(()));
    }
    // A new namespace, after the one who started the assistant has ended.
    let another = Other::new(&["198.18.7.2/32"]);
    let far = another.run(|| who::server("198.18.7.2"));
    assert_eq!(another.run(|| Prompt::start(&weir, *far)).ask(), "captured");
    // Whoever kills it: what was entered goes on, and so does weir, from one to the next.
    kill(first_assistant, Signal::SIGKILL).expect("it runs");
    eventually("it has ended", || (!runs(first_assistant)).then_some(()));
    let told = weir.command(&["upgrade"]).output().expect("weir runs");
    assert!(String::from_utf8_lossy(&told.stderr).contains("assistant is gone"), "{told:?}");
    let [mut at_home, mut there] = programs;
    assert_eq!((at_home.ask(), there.ask()), ("captured".to_owned(), "captured".to_owned()));
    drop(there);
    eventually("the namespace is left", || {
        (weir.status()["capture"]["namespaces"].as_array().map(Vec::len) == Some(0)).then_some(())
    });
    for _ in 0..2 {
        assert_eq!(at_home.ask(), "captured");
        assert_eq!(Prompt::start(&weir, *server).ask(), "captured");
        weir.upgrade(&["--binary", &program.display().to_string()]);
    }
    drop(at_home);
    leaks::check_none(&weir, usize::MAX);
}

#[test]
fn keys_may_be_roots_alone() {
    let authority = Authority::new();
    let issued = authority.issue("weir", "IP:127.0.0.1");
    fs::set_permissions(&issued.key, fs::Permissions::from_mode(0o600)).expect("its mode");
    let tls = format!(
        "{{enabled: true, cert: '{}', key: '{}'}}",
        issued.certificate.display(),
        issued.key.display()
    );
    let weir = Weir::explicit(&format!("server: {{user: nobody, tls: {tls}}}"));
    let origin = weir_tests::origin::Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let ask = || {
        let mut command = Command::new("curl");
        let proxy = format!("https://{}", weir.proxy);
        command.args(["-sS", "--noproxy", "", "-x", &proxy, "--proxy-cacert"]).arg(authority.certificate());
        scripts::stdout(command.arg(format!("http://{}/", origin.address)))
    };
    assert_eq!(ask(), "ok");
    weir.signal(Signal::SIGHUP);
    eventually("read again", || weir.log().contains("was read again").then_some(()));
    assert_eq!(ask(), "ok");
}

#[test]
fn an_ordinary_user_with_the_two_capabilities_can_capture() {
    netns::enter();
    let cgroup = new_cgroup();
    chown(&cgroup, Some(NOBODY), Some(NOBODY)).expect("root may");
    let folder = TempDir::new().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let program = folder.path().join("weir");
    assert!(Command::new("cp").arg(binary()).arg(&program).status().expect("cp").success());
    let state = folder.path().join("state");
    fs::create_dir(&state).and_then(|()| chown(&state, Some(NOBODY), Some(NOBODY))).expect("root may");
    let start = |given: &str, mode: &str| {
        let log = fs::File::create(folder.path().join("log")).expect("a file");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.args(["--inh-caps", given, "--ambient-caps", given]).arg(&program).arg("serve");
        for setting in settings(&cgroup, &state, mode) {
            command.args(["--set", &setting]);
        }
        let (output, errors) = (log.try_clone().expect("a file"), log);
        command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().expect("setpriv is installed")
    };
    let log = || fs::read_to_string(folder.path().join("log")).expect("a log");

    let mut lacking = start("+bpf", "required");
    assert_eq!(lacking.wait().expect("a child").code(), Some(1));
    assert!(log().contains("CAP_NET_ADMIN is missing"), "{}", log());

    let mut weir = start("+bpf,+net_admin", "required");
    let pid = Pid::from_raw(i32::try_from(weir.id()).expect("a pid"));
    let socket = state.join("admin.sock");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(arguments).env("WEIR_ADMIN", &socket);
        scripts::import(&mut command).output().expect("weir runs")
    };
    eventually("it serves", || run(&["status"]).status.success().then_some(()));
    let server = who::server(netns::V4);
    let script = format!("import client; print(client.attempt('{}', {}))", server.ip(), server.port());
    let attempt = || {
        let output = run(&["exec", "--", "python3", "-c", &script]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}\n{}", log());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(attempt(), "captured");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert_eq!(
        (field(&status, "CapEff"), field(&status, "CapAmb")),
        ("0000008000001000".into(), "0".repeat(16))
    );
    // It passes them on to the next one.
    let upgraded = run(&["upgrade"]);
    assert!(upgraded.status.success(), "{}\n{}", String::from_utf8_lossy(&upgraded.stderr), log());
    assert_eq!(attempt(), "captured");
    let state_file = fs::read_to_string(state.join("state.json")).expect("a state file");
    let state_file: serde_json::Value = serde_json::from_str(&state_file).expect("JSON");
    let next = Pid::from_raw(i32::try_from(state_file["pid"].as_i64().expect("a pid")).expect("a pid"));
    kill(next, Signal::SIGTERM).expect("it runs");
    eventually("it has ended", || (!runs(next)).then_some(()));
    weir.wait().expect("a child");
    let _ = (fs::remove_dir(cgroup.join("weir")), fs::remove_dir(&cgroup));
}

fn settings(cgroup: &Path, state: &Path, mode: &str) -> Vec<String> {
    vec![
        format!("capture.mode={mode}"),
        format!("capture.cgroup={}", cgroup.display()),
        "server.port=0".into(),
        "admin.port=0".into(),
        format!("admin.state_dir={}", state.display()),
    ]
}

#[test]
fn a_user_that_weir_cannot_become_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let check = |arguments: &[&str], user: &str, expected: &str| {
        let state: PathBuf = folder.path().join("state");
        let mut command = Command::new(arguments[0]);
        command.args(&arguments[1..]).arg("serve");
        let user = format!("server.user={user}");
        for setting in settings(Path::new("/nowhere"), &state, "off").iter().chain([&user]) {
            command.args(["--set", setting]);
        }
        let output = command.output().expect("weir runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && error.contains(expected), "{expected}: {error}");
    };
    let weir = binary().display().to_string();
    check(&[&weir], "nobody-of-this-name", "useradd --system");
    check(&[&weir], "root", "is root");
    fs::create_dir(folder.path().join("state")).expect("a folder");
    fs::write(folder.path().join("state/letter"), "").expect("a file");
    check(&[&weir], "nobody", "other things are in it");
}
