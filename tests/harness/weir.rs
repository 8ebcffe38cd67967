//! A running weir with ports, folder and cgroup of its own; gone when dropped.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::cgroups::remove_cgroups;
pub use crate::cgroups::{cgroup2_mount, new_cgroup};
use crate::{http, successor};

/// A weir process.
pub struct Weir {
    child: Child,
    folder: TempDir,
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    cgroup: Option<PathBuf>,
    /// Those that have taken over, the one that serves now at the end.
    successors: Vec<Pid>,
}

/// How long anything that should happen soon may take before a test fails.
pub const SOON: Duration = Duration::from_secs(10);

/// Lines of a weir's log that a failed test shows.
const LOG_SHOWN: usize = 40;

impl Weir {
    /// An explicit proxy that may connect to loopback. `overlay` is more configuration, in YAML.
    pub fn explicit(overlay: &str) -> Self {
        Self::start("capture: {mode: off}", overlay, None)
    }

    /// As [`Weir::explicit`], with these variables.
    pub fn explicit_with(overlay: &str, environment: &[(&'static str, String)]) -> Self {
        Self::start_with("capture: {mode: off}", overlay, None, environment)
    }

    /// A weir that captures, in a cgroup of its own making.
    pub fn capturing(overlay: &str) -> Self {
        Self::capturing_in(new_cgroup(), overlay)
    }

    /// As [`Weir::capturing`], in a cgroup of [`new_cgroup`] that somebody else needs to know as well.
    pub fn capturing_in(cgroup: PathBuf, overlay: &str) -> Self {
        let capture = format!("capture: {{mode: required, cgroup: '{}'}}", cgroup.display());
        Self::start(&capture, overlay, Some(cgroup))
    }

    fn start(capture: &str, overlay: &str, cgroup: Option<PathBuf>) -> Self {
        Self::start_with(capture, overlay, cgroup, &[])
    }

    fn start_with(
        capture: &str,
        overlay: &str,
        cgroup: Option<PathBuf>,
        environment: &[(&'static str, String)],
    ) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        // Also for a weir that becomes another user.
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), everybody).expect("its mode");
        let (port, admin) = (free_port(), free_port());
        let base = folder.path().join("base.yaml");
        let state = folder.path().join("state");
        let text = format!(
            "server: {{port: {port}, port_range: {port}-{port}}}\n\
             system_proxy: {{backends: [], state_dir: '{}'}}\n\
             security: {{acl: {{destinations: {{loopback: allow}}}}}}\n\
             admin: {{port: {admin}, state_dir: '{}', reload_on_change: false}}\n{capture}\n",
            folder.path().join("lasting").display(),
            state.display()
        );
        std::fs::write(&base, text).expect("a file in a temporary folder");
        let extra = folder.path().join("overlay.yaml");
        std::fs::write(&extra, overlay).expect("a file in a temporary folder");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log file");
        let child = Command::new(binary())
            .arg("serve")
            .args([OsStr::new("--config"), base.as_os_str(), OsStr::new("--config"), extra.as_os_str()])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("weir starts");
        let localhost = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (proxy, admin) = (localhost(port), localhost(admin));
        let mut weir = Self { child, folder, proxy, admin, cgroup, successors: Vec::new() };
        weir.wait_until_ready();
        weir
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + SOON;
        loop {
            if http::get(self.admin, "/health/readiness").is_ok_and(|answer| answer.status == 200) {
                return;
            }
            let ended = self.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "weir ended with {ended:?}:\n{}", self.log());
            assert!(Instant::now() < deadline, "weir is not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it wrote to standard output and standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A folder that lives as long as this weir.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The cgroup that the programs are attached to.
    pub fn cgroup(&self) -> &Path {
        self.cgroup.as_deref().expect("this weir captures")
    }

    pub fn pid(&self) -> Pid {
        self.successors.last().copied().unwrap_or_else(|| self.first_pid())
    }

    fn first_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Has another weir take over, and is that one from then on; gives the earlier one's process.
    #[track_caller]
    pub fn upgrade(&mut self, arguments: &[&str]) -> Pid {
        let output = self.command(&[&["upgrade"], arguments].concat()).output().expect("weir runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}\n{}", self.log());
        self.note_successor()
    }

    /// Takes note of a weir that has taken over; gives the earlier one's process.
    pub fn note_successor(&mut self) -> Pid {
        let earlier = self.pid();
        let path = self.folder.path().join("state/state.json");
        let pid = eventually("a state file of another weir", || {
            let text = std::fs::read_to_string(&path).ok()?;
            let pid = serde_json::from_str::<Value>(&text).ok()?["pid"].as_i64()?;
            let pid = Pid::from_raw(i32::try_from(pid).ok()?);
            (pid != earlier).then_some(pid)
        });
        self.successors.push(pid);
        earlier
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("weir is running");
    }

    /// Starts it once more, after it has ended, as it was started before.
    pub fn start_again(&mut self, environment: &[(&'static str, String)]) {
        let file = |name: &str| self.folder.path().join(name);
        let log = std::fs::File::options().append(true).open(file("log")).expect("a log file");
        self.child = Command::new(binary())
            .args(["serve", "--config"])
            .arg(file("base.yaml"))
            .arg("--config")
            .arg(file("overlay.yaml"))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("weir starts");
        self.successors.clear();
        self.wait_until_ready();
    }

    /// Waits for its end; the exit code, if it has one.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("a child of ours").code()
    }

    /// `weir COMMAND ...`, talking to this weir.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env("WEIR_ADMIN", self.folder.path().join("state/admin.sock"));
        command
    }

    /// `weir exec -- PROGRAM ...`
    pub fn exec(&self, program: &[&str]) -> Command {
        self.command(&[&["exec", "--"], program].concat())
    }

    /// `curl` through this weir, whatever proxy settings this process has inherited.
    pub fn curl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "--noproxy", "", "-x", &format!("http://{}", self.proxy)]).args(arguments);
        command
    }

    /// The client's end of a tunnel to `server`, made with CONNECT.
    #[track_caller]
    pub fn tunnel(&self, server: SocketAddr) -> TcpStream {
        let mut client = connect(self.proxy);
        write!(client, "CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n")
            .expect("weir takes the request");
        let head = http::read_head(&mut client);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        client
    }

    /// Both ends of a tunnel to a new server: the client's, the server's.
    #[track_caller]
    pub fn tunnel_ends(&self) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let client = self.tunnel(listener.local_addr().expect("a bound socket"));
        let (server, _) = listener.accept().expect("weir has connected");
        (client, patient(server))
    }

    /// `weir upgrade` to a weir to which something happens on the way: see `e2e/scripts/succeed.py`. Another process writes
    /// the program: one that this process starts meanwhile would have it open, and it could not be run.
    pub fn upgrade_with(&self, moment: &str) -> Output {
        let program = self.folder.path().join("successor");
        let (script, weir) = (crate::scripts::path("succeed.py"), binary());
        let text = format!("exec python3 '{script}' '{moment}' '{}' \"$@\"", weir.display());
        let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let status = Command::new("sh").args(["-c", write, "sh"]).arg(&program).arg(&text).status();
        assert!(status.expect("a shell").success());
        let mut command = self.command(&["upgrade", "--binary", &program.display().to_string()]);
        command.output().expect("weir runs")
    }

    pub fn status(&self) -> Value {
        http::get(self.admin, "/proxy/status").expect("the admin API answers").json()
    }

    /// All flows, once there are at least `count` of them: they are recorded in batches.
    pub fn flows(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} flows"), || {
            let output = self.command(&["flows", "--json"]).output().expect("weir flows runs");
            let text = String::from_utf8_lossy(&output.stdout);
            let flows: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).expect("a flow")).collect();
            (flows.len() >= count).then_some(flows)
        })
    }

    /// The access log so far, with `logging.format: json`.
    pub fn access_log(&self) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line.get("front").is_some()).collect()
    }

    /// The value of a metric, without the prefix `weir_`.
    pub fn metric(&self, name: &str) -> u64 {
        let text = http::get(self.admin, "/metrics").expect("the admin API answers").text();
        let line =
            text.lines().find_map(|line| line.strip_prefix(&format!("weir_{name} ")).map(str::to_owned));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name} in:\n{text}"))
    }

    /// Descriptors that the process has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("weir is running").count()
    }

    /// Its resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("weir is running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let first = lines.len().saturating_sub(LOG_SHOWN);
            eprintln!("--- weir's log, its last lines:\n{}", lines[first..].join("\n"));
        }
        // It may have ended on its own.
        let _ = kill(self.first_pid(), Signal::SIGCONT);
        let unnoted = successor::unnoted(self.folder.path(), &self.successors);
        for successor in self.successors.iter().chain(&unnoted) {
            let _ = kill(*successor, Signal::SIGKILL);
            // Nobody of ours can wait for it.
            let deadline = Instant::now() + SOON;
            while runs(*successor) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        end_holders(&self.folder.path().join("state"));
        if let Some(cgroup) = &self.cgroup {
            remove_cgroups(cgroup);
        }
    }
}

/// Whether a process runs; one that nobody has waited for does not.
pub fn runs(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

/// Ends what a killed weir with `fail: closed` has left, as the weir that takes over does.
fn end_holders(state_dir: &Path) {
    for entry in std::fs::read_dir(state_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("hold-")
            && let Ok(mut holder) = UnixStream::connect(entry.path())
        {
            // It may end meanwhile on its own.
            let _ = holder.set_read_timeout(Some(SOON));
            let _ = holder.write_all(b"e").and_then(|()| holder.read_to_end(&mut Vec::new()));
        }
    }
}

/// The binary under test: `WEIR_BIN`, or what cargo has built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    let binary = folder.join("weir");
    assert!(binary.exists(), "{} is missing: run `cargo build`, or `cargo xtask test`", binary.display());
    binary
}

/// A port of loopback that was free just now. Not from the range out of which the kernel serves connect(): a
/// client's socket could take it before its owner does.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at the same time begin far from each other.
    let start = std::process::id().wrapping_mul(997);
    let mut candidates = (0..COUNT).map(|_| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)));
    let free = candidates.find_map(|candidate| {
        let port = u16::try_from(FIRST + candidate % COUNT).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(port)
    });
    free.expect("a free port")
}

/// Calls `look` until it finds something; fails after [`SOON`].
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {} s: {what}", SOON.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A connection on which nothing hangs for longer than [`SOON`].
pub fn connect(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect_timeout(&address, SOON).expect("a connection"))
}

/// As [`connect`], for a connection that there is already.
pub fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(SOON)).expect("a socket option");
    stream.set_write_timeout(Some(SOON)).expect("a socket option");
    stream
}

/// Closes a socket with RST.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket option");
    drop(stream);
}

/// Fails unless the connection ends with RST; an orderly end would pass for a complete stream.
#[track_caller]
pub fn assert_reset(mut stream: &TcpStream) {
    let error = io::copy(&mut stream, &mut io::sink()).expect_err("a reset, not a clean end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}
