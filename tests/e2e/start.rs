//! What keeps weir from starting, or from capturing, is said clearly; and what still can work does.

#[expect(dead_code, reason = "one of its programs is enough here")]
#[path = "../../proxy-userspace/tests/redirect/foreign.rs"]
mod foreign;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use weir_tests::prompt::Prompt;
use weir_tests::weir::{Weir, binary, connect, eventually, free_port};
use weir_tests::{http, netns, who};

/// `weir serve` with settings, ended after a while; `before` are words before it.
fn serve(folder: &Path, before: &[&str], weir: &Path, settings: &[String]) -> Command {
    // Whoever weir runs as can put its state there.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("a folder of ours");
    let (port, admin) = (free_port(), free_port());
    let usual = [
        format!("server.port={port}"),
        format!("server.port_range={port}-{port}"),
        format!("admin.port={admin}"),
        format!("admin.state_dir={}", folder.join("state").display()),
    ];
    let mut command = Command::new("timeout");
    command.arg("20").args(before).arg(weir).arg("serve");
    command.args(usual.iter().chain(settings).flat_map(|setting| ["--set", setting]));
    command
}

/// What a `weir serve` says that must not start.
#[track_caller]
fn refusal(before: &[&str], weir: &Path, settings: &[String]) -> String {
    let folder = TempDir::new().expect("a temporary folder");
    let mut command = serve(folder.path(), before, weir, settings);
    let output = command.output().expect("coreutils are installed");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {}\n{text}", output.status);
    text
}

#[track_caller]
fn check_tells(text: &str, what: &[&str]) {
    for part in what {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
}

/// This weir does not capture and says why, but is an explicit proxy like any other.
#[track_caller]
fn check_explicit_works(proxy: SocketAddr, admin: SocketAddr, reason: &[&str]) {
    let server = http::server(netns::V4, |mut stream| {
        http::read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    });
    let request = format!("GET http://{server}/ HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    assert_eq!(http::send(proxy, request.as_bytes()).expect("an answer").text(), "hi");
    let capture = &http::get(admin, "/proxy/status").expect("an answer").json()["capture"];
    assert_eq!(capture["state"], "unavailable", "{capture:#}");
    check_tells(capture["reason"].as_str().expect("a reason"), reason);
}

/// `weir exec` refuses for the same reason, rather than run something that is not captured.
#[track_caller]
fn check_exec_refuses(weir: &Weir, reason: &[&str]) {
    let output = weir.exec(&["true"]).output().expect("weir starts");
    assert_eq!(output.status.code(), Some(1));
    check_tells(&String::from_utf8_lossy(&output.stderr), reason);
}

fn capture(mode: &str, cgroup: &Path) -> [String; 2] {
    [format!("capture.mode={mode}"), format!("capture.cgroup={}", cgroup.display())]
}

#[test]
fn a_second_weir_names_the_first() {
    netns::enter();
    let first = Weir::capturing("");
    let cgroup = first.cgroup().display().to_string();
    let reason = [cgroup.as_str(), &format!("(pid {})", first.pid())];
    check_tells(&refusal(&[], &binary(), &capture("required", first.cgroup())), &reason);
    let second = Weir::explicit(&format!("capture: {{mode: auto, cgroup: '{cgroup}'}}"));
    check_explicit_works(second.proxy, second.admin, &reason);
    check_exec_refuses(&second, &reason);
    // The first one has not noticed.
    first.wait_until_on();
    let server = who::server(netns::V4);
    assert_eq!(Prompt::start(&first, *server).ask(), "captured");
}

#[test]
fn a_foreign_exclusive_program_is_named() {
    netns::enter();
    // A cgroup of the harness's making.
    let mut owner = Weir::capturing("");
    owner.signal(Signal::SIGTERM);
    assert_eq!(owner.wait(), Some(0));
    let _foreign = foreign::Foreign::exclusive(owner.cgroup());
    let cgroup = owner.cgroup().display().to_string();
    let show = format!("bpftool cgroup show {cgroup}");
    let reason = [cgroup.as_str(), "exclusive", "cgroup_inet4_connect", &show];
    check_tells(&refusal(&[], &binary(), &capture("required", owner.cgroup())), &reason);
    let explicit = Weir::explicit(&format!("capture: {{mode: auto, cgroup: '{cgroup}'}}"));
    check_explicit_works(explicit.proxy, explicit.admin, &reason);
    check_exec_refuses(&explicit, &reason);
    let doctor = explicit.command(&["doctor", "--set", &format!("capture.cgroup={cgroup}")]).output();
    check_tells(&String::from_utf8_lossy(&doctor.expect("weir starts").stdout), &reason);
}

const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// weir where anybody may run it.
fn for_everybody() -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a temporary folder");
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), open.clone()).expect("a folder of ours");
    let weir = folder.path().join("weir");
    fs::copy(binary(), &weir).and_then(|_| fs::set_permissions(&weir, open)).expect("a copy of weir");
    (folder, weir)
}

#[test]
fn without_privilege_only_the_explicit_proxy_works() {
    netns::enter();
    let (_folder, program) = for_everybody();
    let reason = ["CAP_BPF", "CAP_NET_ADMIN", "root"];
    check_tells(&refusal(&AS_NOBODY, &program, &["capture.mode=required".to_owned()]), &reason);
    let folder = TempDir::new().expect("a temporary folder");
    let mut weir = serve(folder.path(), &AS_NOBODY, &program, &["capture.mode=auto".to_owned()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("coreutils are installed");
    let state = eventually("a state file", || {
        serde_json::from_slice::<Value>(&fs::read(folder.path().join("state/state.json")).ok()?).ok()
    });
    let address = |key: &str| state[key].as_str().and_then(|text| text.parse().ok()).expect("an address");
    check_explicit_works(address("proxy"), address("admin"), &reason);
    let pid = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("weir runs");
    assert!(weir.wait().expect("a child of ours").success());
}

/// Ports below those that the kernel hands out.
const PORTS: [u16; 3] = [22180, 22181, 22182];

fn range() -> [String; 2] {
    [format!("server.port={}", PORTS[0]), format!("server.port_range={}-{}", PORTS[0], PORTS[2])]
}

#[test]
fn a_busy_proxy_port_is_passed_over() {
    netns::enter();
    let mut busy = vec![TcpListener::bind(("127.0.0.1", PORTS[0])).expect("a free port")];
    let overlay = format!("server: {{port: {}, port_range: {}-{}}}", PORTS[0], PORTS[0], PORTS[2]);
    let weir = Weir::explicit(&overlay);
    assert_eq!(weir.status()["port"], PORTS[1]);
    drop(connect(([127, 0, 0, 1], PORTS[1]).into()));
    drop(weir);
    busy.extend(PORTS[1..].iter().map(|&port| TcpListener::bind(("127.0.0.1", port)).expect("a free port")));
    let text = refusal(&[], &binary(), &range());
    check_tells(&text, &["127.0.0.1", "22180-22182", "server.port"]);
}

#[test]
fn a_busy_admin_port_is_named() {
    netns::enter();
    let busy = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = busy.local_addr().expect("a bound socket");
    let text = refusal(&[], &binary(), &[format!("admin.port={}", address.port())]);
    check_tells(&text, &[&address.to_string(), "admin.port"]);
}

/// At a limit of 1 there is neither a file nor a process that is given it.
#[test]
fn no_core_file_is_left() {
    let weir = Weir::explicit("");
    let limits = fs::read_to_string(format!("/proc/{}/limits", weir.pid())).expect("weir is running");
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    let soft = line.trim_start_matches("Max core file size").split_whitespace().next();
    assert!(matches!(soft, Some("0" | "1")), "{line}");
}
