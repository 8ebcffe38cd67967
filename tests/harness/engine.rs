//! A docker engine of a test's own: its network namespace, its folder, its socket, its cgroup; gone when dropped.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::netns::Other;
use crate::scripts::stdout;
use crate::weir::eventually;

/// An image with busybox in it, and a place for the host's `/usr`.
pub const IMAGE: &str = "weir-test:1";

/// Makes the host's own curl and Python usable in a container of [`IMAGE`].
pub const WITH_USR: &str = "--volume=/usr:/usr:ro";

/// A server for containers: tells each client under which address it sees it.
pub const WHO: &str = "import http.server as h, socket\n\
                      class S(h.ThreadingHTTPServer): address_family = socket.AF_INET6\n\
                      class H(h.BaseHTTPRequestHandler):\n\
                      \x20def do_GET(self):\n\
                      \x20 told = self.client_address[0].removeprefix('::ffff:').encode()\n\
                      \x20 self.send_response(200); self.send_header('Content-Length', str(len(told)))\n\
                      \x20 self.end_headers(); self.wfile.write(told)\n\
                      \x20def log_message(self, *_): pass\n\
                      S(('::', 80), H).serve_forever()";

/// The engine and its containers.
pub struct Docker {
    child: Child,
    folder: TempDir,
    /// What its bridges are made in, and what `--network host` means to it.
    pub netns: Other,
    cgroup: String,
}

impl Docker {
    /// Starts one whose containers live below that cgroup.
    pub fn start(cgroup: &Path) -> Self {
        Self::start_with(cgroup, &[])
    }

    /// As [`Docker::start`], with more arguments for the engine.
    pub fn start_with(cgroup: &Path, arguments: &[&str]) -> Self {
        // Not in a folder that is mounted from elsewhere: its file system must bear overlays.
        let folder = TempDir::new_in("/var/tmp").expect("a temporary folder");
        let name = cgroup.file_name().and_then(|name| name.to_str()).expect("a cgroup of a test");
        let cgroup = format!("/{name}");
        let netns = Other::new(&[]);
        let child = spawn(folder.path(), &netns, &cgroup, arguments);
        let docker = Self { child, folder, netns, cgroup };
        docker.wait_until_ready();
        docker.docker(&["import", &image(docker.folder.path()), IMAGE]);
        docker
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// The engine's own configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("daemon.json")
    }

    /// Waits until the engine has taken up another default runtime.
    #[track_caller]
    pub fn wait_for_runtime(&self, name: &str) {
        eventually(&format!("the runtime is {name}"), || {
            (self.docker(&["info", "--format", "{{.DefaultRuntime}}"]) == name).then_some(())
        });
    }

    /// The configuration that makes a weir look here.
    pub fn setting(&self) -> String {
        format!("engine_sockets: ['{}']", self.socket().display())
    }

    /// `docker ...`
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command.env("DOCKER_CONFIG", self.folder.path()).arg("--host");
        command.arg(format!("unix://{}", self.socket().display())).args(arguments);
        command
    }

    /// `docker ...`, which must succeed: what it printed.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> String {
        stdout(&mut self.command(arguments))
    }

    /// A server in a container: it tells each client under which address it sees it. Gives the container's address.
    pub fn who(&self, name: &str, arguments: &[&str]) -> String {
        let run = [&["run", "--detach", "--init", "--name", name, WITH_USR][..], arguments].concat();
        self.docker(&[&run[..], &[IMAGE, "/usr/bin/python3", "-c", WHO]].concat());
        eventually("the server listens", || {
            let probe = self.command(&["exec", name, "wget", "-qO-", "http://127.0.0.1/"]).output();
            probe.is_ok_and(|probe| probe.status.success()).then_some(())
        });
        self.address(name)
    }

    /// A container's first IPv4 address.
    pub fn address(&self, name: &str) -> String {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        let addresses = self.docker(&["inspect", "--format", format, name]);
        addresses.split(' ').next().unwrap_or_default().to_owned()
    }

    /// Starts a container that does nothing until it is told to.
    pub fn idle(&self, name: &str, arguments: &[&str]) {
        let run = ["run", "--detach", "--init", "--name", name, WITH_USR];
        self.docker(&[&run[..], arguments, &[IMAGE, "sleep", "1000"]].concat());
    }

    /// Ends the engine in order; with `--live-restore` its containers stay.
    pub fn stop_engine(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        // It may have ended on its own.
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.child.wait();
    }

    /// Starts it again where it was.
    pub fn start_engine(&mut self, arguments: &[&str]) {
        self.child = spawn(self.folder.path(), &self.netns, &self.cgroup, arguments);
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        eventually("docker answers", || {
            let probe = self.command(&["version"]).output().expect("docker.io is installed");
            probe.status.success().then_some(())
        });
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let errors: Vec<&str> = log.lines().filter(|line| line.contains("level=error")).collect();
            eprintln!("--- docker's errors:\n{}", errors.join("\n"));
        }
        let all = self.command(&["ps", "--all", "--quiet"]).output();
        let all = all.map(|all| String::from_utf8_lossy(&all.stdout).into_owned()).unwrap_or_default();
        let ids: Vec<&str> = all.lines().collect();
        if !ids.is_empty() {
            let _ = self.command(&[&["rm", "--force"], &ids[..]].concat()).output();
        }
        self.stop_engine();
        unmount_below(self.folder.path());
        remove_v1_cgroups(&self.cgroup);
    }
}

/// Makes the archive of [`IMAGE`] in a folder.
pub(crate) fn image(folder: &Path) -> String {
    let root = folder.join("image");
    for name in ["bin", "etc", "tmp", "usr", "root"] {
        std::fs::create_dir_all(root.join(name)).expect("a folder");
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for program in ["sh", "wget", "nslookup", "sleep", "cat", "ip", "true"] {
        symlink("busybox", root.join("bin").join(program)).expect("a link");
    }
    for name in ["lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).expect("a link");
    }
    let tar = folder.join("image.tar").display().to_string();
    stdout(Command::new("tar").arg("-C").arg(&root).args(["-cf", &tar, "."]));
    tar
}

fn spawn(folder: &Path, netns: &Other, cgroup: &str, arguments: &[&str]) -> Child {
    let log = std::fs::File::create(folder.join("log")).expect("a log file");
    let path = |name: &str| folder.join(name).display().to_string();
    let mut command = Command::new("dockerd");
    command
        .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
        .args(["--host", &format!("unix://{}", path("docker.sock")), "--config-file", &path("daemon.json")])
        .args(["--cgroup-parent", cgroup, "--exec-opt", "native.cgroupdriver=cgroupfs"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log file"))
        .stderr(log);
    if !folder.join("daemon.json").exists() {
        std::fs::write(folder.join("daemon.json"), "{}").expect("a file in a temporary folder");
    }
    netns.run(|| command.spawn()).expect("docker.io is installed")
}

/// Namespaces and file systems that the engine has left mounted in its folder.
pub(crate) fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut points: Vec<&str> = points.filter(|point| Path::new(point).starts_with(folder)).collect();
    // The innermost first.
    points.sort_by_key(|point| std::cmp::Reverse(point.len()));
    for point in points {
        let _ = Command::new("umount").args(["--lazy", point]).output();
    }
}

/// On a host with both versions the engine has made its cgroup in each hierarchy.
pub(crate) fn remove_v1_cgroups(cgroup: &str) {
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        // Version 2's is the test's own.
        if hierarchy.file_name() != "unified" {
            let _ = std::fs::remove_dir(hierarchy.path().join(cgroup.trim_start_matches('/')));
        }
    }
}
