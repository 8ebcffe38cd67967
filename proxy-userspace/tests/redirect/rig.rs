//! A network namespace, a cgroup with a captured and an uncaptured child, a direct server, and a stand-in for the
//! proxy that answers each connection with what the kernel half said about it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use weir::config;
use weir::redirect::{Captured, Listeners, Mount, OriginalDestinations, Redirect};

/// Addresses that are not loopback by number, though on `lo` of the test's own namespace (RFC 2544, RFC 3849).
pub(crate) const DESTINATION_V4: &str = "198.18.0.1";
pub(crate) const DESTINATION_V6: &str = "2001:db8::1";
/// Where the direct servers listen, on all addresses.
pub(crate) const DIRECT_PORT: u16 = 8080;

/// Accept queue of the stand-in proxy: a client whose connection it doesn't hold waits for a retransmission.
const PROXY_BACKLOG: i32 = 1024;

/// What every client script begins with.
const PRELUDE: &str = "
import socket, sys, os, select, struct, ctypes, subprocess, errno, time
def read(s):
    s.settimeout(10)
    data = b''
    while True:
        piece = s.recv(4096)
        if not piece: return data.decode()
        data += piece
def ask(host, port, family=socket.AF_INET, source=None):
    s = socket.socket(family, socket.SOCK_STREAM)
    if source: s.bind((source, 0))
    s.connect((host, port))
    return read(s)
def attempt(host, port):
    try: return ask(host, port)
    except OSError as e: return errno.errorcode[e.errno]
";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A cgroup of this test's own: the attach cgroup with two children.
pub(crate) struct Groups {
    pub(crate) attach: PathBuf,
}

impl Groups {
    fn make() -> Self {
        let mount = Mount::find().expect("a cgroup2 mount");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let attach = mount.point.join(format!("weir-test-{}-{number}", std::process::id()));
        let groups = Self { attach };
        for path in [groups.attach.clone(), groups.captured(), groups.outside()] {
            fs::create_dir(&path).expect("root may make cgroups");
        }
        groups
    }

    pub(crate) fn captured(&self) -> PathBuf {
        self.attach.join("captured")
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.attach.join("outside")
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for path in [self.captured().join("nested"), self.captured(), self.outside(), self.attach.clone()] {
            let deadline = Instant::now() + Duration::from_secs(5);
            // Busy until the last process in it is reaped.
            while fs::remove_dir(&path).is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy)
                && Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

pub(crate) struct Rig {
    pub(crate) groups: Groups,
    proxy_v4: TcpListener,
    proxy_v6: TcpListener,
}

impl Rig {
    /// Puts this thread, and what it starts, into a network namespace of its own.
    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make network namespaces");
        ip(&["link", "set", "lo", "up"]);
        ip(&["address", "add", &format!("{DESTINATION_V4}/32"), "dev", "lo"]);
        ip(&["address", "add", &format!("{DESTINATION_V6}/128"), "dev", "lo", "nodad"]);
        serve_direct(TcpListener::bind((Ipv6Addr::UNSPECIFIED, DIRECT_PORT)).expect("a dual-stack listener"));
        let rig = Self {
            groups: Groups::make(),
            proxy_v4: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener on 127.0.0.1"),
            proxy_v6: TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a listener on ::1"),
        };
        for listener in [&rig.proxy_v4, &rig.proxy_v6] {
            resize_queue(listener, PROXY_BACKLOG);
        }
        rig
    }

    pub(crate) fn config(&self) -> config::Capture {
        // Long: these tests must not depend on how fast the machine is.
        let heartbeat_timeout = Duration::from_secs(60);
        config::Capture {
            cgroup: Some(self.groups.attach.clone()),
            heartbeat_timeout,
            ..config::Capture::default()
        }
    }

    pub(crate) fn listeners(&self) -> Listeners {
        let (SocketAddr::V4(v4), SocketAddr::V6(v6)) =
            (self.proxy_v4.local_addr().unwrap(), self.proxy_v6.local_addr().unwrap())
        else {
            unreachable!("one listener of each family");
        };
        Listeners { v4: Some(v4), v6: Some(v6), ..Listeners::default() }
    }

    /// The kernel half, attached to the test's cgroup; its child `captured` is selected.
    pub(crate) fn redirect(&self, config: &config::Capture) -> Redirect {
        let redirect =
            Redirect::start(config, &self.listeners()).expect("root, and a build with the kernel half");
        redirect.capture_cgroup(&self.groups.captured()).expect("a cgroup can be selected");
        redirect
    }

    /// The stand-in proxy at work.
    pub(crate) fn proxy(&self, redirect: &Redirect) -> Proxy {
        let log = Arc::new(Mutex::new(Vec::new()));
        for listener in [&self.proxy_v4, &self.proxy_v6] {
            let listener = listener.try_clone().expect("a listener can be duplicated");
            let (originals, log) = (redirect.original_destinations(), Arc::clone(&log));
            std::thread::spawn(move || answer(&listener, &originals, &log));
        }
        Proxy { log }
    }

    pub(crate) fn proxy_listener_v4(&self) -> &TcpListener {
        &self.proxy_v4
    }

    /// Runs a Python script in the captured cgroup; gives what it printed.
    pub(crate) fn captured(&self, script: &str) -> String {
        finish(start(&self.groups.captured(), script))
    }

    /// The same in the cgroup that isn't selected.
    pub(crate) fn outside(&self, script: &str) -> String {
        finish(start(&self.groups.outside(), script))
    }
}

/// What the stand-in proxy was asked; None: a lost original destination.
pub(crate) struct Proxy {
    log: Arc<Mutex<Vec<Option<Captured>>>>,
}

impl Proxy {
    pub(crate) fn seen(&self) -> Vec<Option<Captured>> {
        self.log.lock().unwrap().clone()
    }
}

fn answer(listener: &TcpListener, originals: &OriginalDestinations, log: &Mutex<Vec<Option<Captured>>>) {
    while let Ok((mut stream, peer)) = listener.accept() {
        let captured = claim(originals, peer, listener).expect("the maps can be asked");
        let text =
            captured.as_ref().map_or_else(|| "LOST".to_owned(), |captured| captured.original.to_string());
        log.lock().unwrap().push(captured);
        // The client may have gone.
        let _ = stream.write_all(text.as_bytes());
    }
}

/// Takes the record of a connection that this listener has accepted.
pub(crate) fn claim(
    originals: &OriginalDestinations,
    peer: SocketAddr,
    listener: &TcpListener,
) -> std::io::Result<Option<Captured>> {
    originals.claim(peer, listener.local_addr()?.port())
}

/// Answers "direct" to whoever reaches the real destination.
fn serve_direct(listener: TcpListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"direct");
        }
    });
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {args:?}: {status}");
}

/// Starts a Python script in a cgroup: it is there before its first instruction.
/// Runs it in a cgroup, and comes back when it is there.
pub(crate) fn start(cgroup: &Path, script: &str) -> Child {
    let mut child = Command::new("sh")
        .args(["-c", "echo $$ > \"$1/cgroup.procs\" && shift && exec \"$@\"", "sh"])
        .arg(cgroup)
        .args(["python3", "-c", &format!("{PRELUDE}{script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sh and python3 are installed");
    let own = format!("/proc/{}/cgroup", child.id());
    let name = cgroup.file_name().and_then(|name| name.to_str()).expect("a cgroup has a name");
    let is_there = || fs::read_to_string(&own).is_ok_and(|path| path.trim_end().ends_with(name));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_there() && child.try_wait().is_ok_and(|ended| ended.is_none()) {
        assert!(Instant::now() < deadline, "{} isn't in {}", child.id(), cgroup.display());
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

pub(crate) fn finish(child: Child) -> String {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("a child can be waited for");
    assert!(status.success(), "the client failed ({status}): {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).trim_end().to_owned()
}

/// Entries of a map, once they are what is expected or a second has passed: a socket's end isn't its process's.
pub(crate) fn entries(redirect: &Redirect, map: &str, expected: u32) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        let state = redirect.state();
        let entries = state.maps.iter().find(|state| state.name == map).expect("a map of that name").entries;
        if entries == expected || Instant::now() > deadline {
            return entries;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// listen() again, with another length of the accept queue.
pub(crate) fn resize_queue(listener: &TcpListener, length: i32) {
    nix::sys::socket::listen(listener, nix::sys::socket::Backlog::new(length).unwrap()).unwrap();
}

/// Everything an accepted connection carries until its end.
pub(crate) fn drain(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.read_to_end(&mut bytes).expect("an orderly end");
    bytes
}
