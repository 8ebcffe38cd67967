//! A Redis server on a port of its own; ended when dropped.

use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::weir::{eventually, free_port};

pub struct Redis {
    child: Child,
    folder: TempDir,
    pub port: u16,
}

impl Redis {
    /// One that keeps nothing on disk.
    pub fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// One with these options.
    pub fn start_with(options: &[&str]) -> Self {
        let (folder, port) = (TempDir::new().expect("a temporary folder"), free_port());
        let child = spawn(&folder, port, options);
        let redis = Self { child, folder, port };
        redis.wait_until_ready();
        redis
    }

    /// Starts it again on the same port, as it was killed.
    pub fn start_again(&mut self, options: &[&str]) {
        self.child = spawn(&self.folder, self.port, options);
        self.wait_until_ready();
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("redis-server is running");
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("a child of ours");
    }

    /// What `redis-cli` says to a command, line by line.
    #[track_caller]
    pub fn says(&self, command: &[&str]) -> Vec<String> {
        let output = self.cli(command).output().expect("redis-cli is installed: run `cargo xtask test`");
        assert!(output.status.success(), "{command:?}: {output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    fn cli(&self, command: &[&str]) -> Command {
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &self.port.to_string()]).args(command).stdin(Stdio::null());
        cli
    }

    fn wait_until_ready(&self) {
        eventually("a Redis that answers", || {
            let output =
                self.cli(&["PING"]).output().expect("redis-cli is installed: run `cargo xtask test`");
            output.stdout.starts_with(b"PONG").then_some(())
        });
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }
}

fn spawn(folder: &TempDir, port: u16, options: &[&str]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.args(["--dir", folder.path().to_str().expect("a path")]).args(options);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.spawn().expect("redis-server is installed: run `cargo xtask test`")
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = kill(self.pid(), Signal::SIGCONT);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
