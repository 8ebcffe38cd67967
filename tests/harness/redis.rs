//! A Redis server on a port of its own, ended when dropped; and weirs that store there.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::http::Answer;
use crate::origin::{Origin, read_answer};
use crate::weir::{Weir, connect, eventually, free_port};

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

    /// A weir that stores there, once it has found it. `more` is further configuration of that.
    pub fn weir(&self, more: &str) -> Weir {
        let weir = Weir::explicit(&format!(
            "cache: {{enabled: true, redis: {{url: '{}', timeout: 2s{more}}}}}\nserver: {{workers: 2}}",
            self.url()
        ));
        found(&weir);
        weir
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

/// What a weir says of its store in Redis.
pub fn number(weir: &Weir, name: &str) -> u64 {
    weir.metric(&format!("cache_store_{name}{{store=\"redis\"}}"))
}

/// Waits until a weir has found its Redis.
pub fn found(weir: &Weir) {
    eventually("Redis found", || (number(weir, "up") == 1).then_some(()));
}

/// Waits until a weir has stored so many responses there.
pub fn stored(weir: &Weir, count: u64) {
    eventually("everything stored", || (number(weir, "stores_total") >= count).then_some(()));
}

/// A request for `path` of an origin through a weir, on a connection of its own.
pub fn ask(weir: &Weir, origin: &Origin, method: &str, path: &str, fields: &str) -> Answer {
    let mut client = connect(weir.proxy);
    write!(client, "{method} http://{}{path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n", origin.address)
        .expect("weir takes it");
    read_answer(&mut client, method).expect("an answer")
}

/// What there is without asking the origin.
pub fn cached(weir: &Weir, origin: &Origin, path: &str) -> Option<Vec<u8>> {
    let answer = ask(weir, origin, "GET", path, "Cache-Control: only-if-cached\r\n");
    (answer.status == 200).then_some(answer.body)
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
