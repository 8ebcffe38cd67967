//! podman of a test's own, with its API service: its network namespace, its folder, its cgroup; gone when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::engine::{IMAGE, image, remove_v1_cgroups, unmount_below};
use crate::netns::Other;
use crate::scripts::stdout;
use crate::weir::eventually;

/// podman and its containers, which share a network namespace of the test's: `--network host`.
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
        std::fs::create_dir(folder.path().join("hooks")).expect("a folder");
        let name = cgroup.file_name().and_then(|name| name.to_str()).expect("a cgroup of a test");
        let netns = Other::new(addresses);
        let socket = format!("unix://{}", folder.path().join("podman.sock").display());
        let mut command = podman(folder.path(), &["system", "service", "--time=0", &socket]);
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
        self.netns.run(|| stdout(&mut podman(self.folder.path(), arguments)))
    }

    /// Runs a program in a new container: what it printed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str], program: &[&str]) -> String {
        // Less than podman's defaults, which not every machine lets it set.
        let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--pids-limit=0"];
        let place = ["--network=host", "--cgroup-parent", &self.cgroup];
        self.podman(&[&["run", "--rm"], &limits[..], &place, arguments, &[IMAGE], program].concat())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let remove = || podman(self.folder.path(), &["rm", "--all", "--force", "--time", "0"]).output();
        let _ = self.netns.run(remove);
        let _ = self.service.kill();
        let _ = self.service.wait();
        unmount_below(self.folder.path());
        remove_v1_cgroups(&self.cgroup);
    }
}

fn podman(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("podman");
    for (option, name) in
        [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp"), ("--hooks-dir", "hooks")]
    {
        command.arg(option).arg(folder.join(name));
    }
    command.args(["--cgroup-manager=cgroupfs", "--runtime=runc", "--storage-driver=vfs"]).args(arguments);
    command
}
