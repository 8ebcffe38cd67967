//! podman of a test's own, with its API service: its network namespace, its folder, its cgroup; gone when dropped. It and
//! its commands have a mount namespace of their own: where networks and their DNS server are noted is the same folder
//! for all of a host's podmans.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::engine::{IMAGE, WHO, WITH_USR, image, remove_v1_cgroups, unmount_below};
use crate::netns::Other;
use crate::scripts::stdout;
use crate::weir::eventually;

/// podman and its containers; `--network host` is a network namespace of the test's.
pub struct Podman {
    service: Child,
    folder: TempDir,
    pub netns: Other,
    cgroup: String,
}

impl Podman {
    /// Starts its service; containers live below that cgroup. `addresses` are those of its network namespace.
    pub fn start(cgroup: &Path, addresses: &[&str]) -> Self {
        let folder = TempDir::new_in("/var/tmp").expect("a temporary folder");
        for name in ["hooks", "networks"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        std::fs::create_dir_all(SHARED).expect("a folder of the system's");
        let name = cgroup.file_name().and_then(|name| name.to_str()).expect("a cgroup of a test");
        let netns = Other::new(addresses);
        let socket = format!("unix://{}", folder.path().join("podman.sock").display());
        let mut command = Command::new("unshare");
        let hidden = format!("mount -t tmpfs none {SHARED} && exec podman \"$@\"");
        command.args(["--mount", "--propagation=slave", "sh", "-c", &hidden, "sh"]);
        command.args(options(folder.path())).args(["system", "service", "--time=0", &socket]);
        let service = netns.run(|| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn());
        let service = service.expect("podman is installed");
        let podman = Self { service, folder, netns, cgroup: format!("/{name}") };
        eventually("podman serves", || podman.socket().exists().then_some(()));
        let tar = image(podman.folder.path());
        podman.podman(&["import", &tar, IMAGE]);
        podman
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("podman.sock")
    }

    /// Where it looks for hooks.
    pub fn hooks(&self) -> PathBuf {
        self.folder.path().join("hooks")
    }

    /// `podman ...`, which must succeed: what it printed.
    #[track_caller]
    pub fn podman(&self, arguments: &[&str]) -> String {
        self.netns.run(|| stdout(&mut self.command(arguments)))
    }

    /// `podman ...`, to be started in its network namespace.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.service.id())).arg("podman");
        command.args(options(self.folder.path())).args(arguments);
        command
    }

    /// Runs a program in a new container in its host's network: what it printed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str], program: &[&str]) -> String {
        let arguments = [&["--rm", "--network=host"], arguments].concat();
        self.podman(&self.arguments(&arguments, program))
    }

    /// The words after `podman` that run a program in a new container.
    pub fn arguments<'a>(&'a self, arguments: &[&'a str], program: &[&'a str]) -> Vec<&'a str> {
        // Less than podman's defaults, which not every machine lets it set.
        let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--pids-limit=0"];
        let place = ["--cgroup-parent", &self.cgroup];
        [&["run"], &limits[..], &place, arguments, &[IMAGE], program].concat()
    }

    /// Starts a container that does nothing until it is told to.
    #[track_caller]
    pub fn idle(&self, name: &str, arguments: &[&str]) {
        let arguments = [&["--detach", "--name", name, WITH_USR], arguments].concat();
        self.podman(&self.arguments(&arguments, &["sleep", "1000"]));
    }

    /// A server in a container: it tells each client under which address it sees it. Gives the container's address.
    #[track_caller]
    pub fn who(&self, name: &str, arguments: &[&str]) -> String {
        let arguments = [&["--detach", "--name", name, WITH_USR], arguments].concat();
        self.podman(&self.arguments(&arguments, &["/usr/bin/python3", "-c", WHO]));
        eventually("the server listens", || {
            let mut probe = self.command(&["exec", name, "wget", "-qO-", "http://127.0.0.1/"]);
            let probe = self.netns.run(|| probe.output());
            probe.is_ok_and(|probe| probe.status.success()).then_some(())
        });
        let format =
            "{{.NetworkSettings.IPAddress}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        let addresses = self.podman(&["inspect", "--format", format, name]);
        addresses.split_whitespace().next().unwrap_or_default().to_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let mut remove = self.command(&["rm", "--all", "--force", "--time", "0"]);
        let _ = self.netns.run(|| remove.output());
        let _ = self.service.kill();
        let _ = self.service.wait();
        unmount_below(self.folder.path());
        remove_v1_cgroups(&self.cgroup);
    }
}

/// Where it notes networks, whatever else it is told.
const SHARED: &str = "/run/containers/networks";

fn options(folder: &Path) -> Vec<String> {
    let folders = [
        ("--root", "root"),
        ("--runroot", "run"),
        ("--tmpdir", "tmp"),
        ("--hooks-dir", "hooks"),
        ("--network-config-dir", "networks"),
    ];
    let folders = folders
        .iter()
        .flat_map(|(option, name)| [(*option).to_owned(), folder.join(name).display().to_string()]);
    let rest =
        ["--cgroup-manager=cgroupfs", "--runtime=runc", "--storage-driver=vfs", "--network-backend=netavark"];
    folders.chain(rest.map(str::to_owned)).collect()
}
