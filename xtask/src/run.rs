//! `cargo xtask run`: weir from this source, started, with a word on what to try; or around one command.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::privilege::Privilege;
use crate::{build_ebpf, cargo, setup, target_dir, workspace};

/// Where config/proxy.yaml puts the admin API.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 22140);
/// What root is for.
const PURPOSE: &str = "weir's kernel half";
/// A local answer takes milliseconds; a stranger on the port may never give one.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const START_LIMIT: Duration = Duration::from_secs(30);
/// Above the drain time that is set for weir here.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run this command captured, show its flows, stop weir, and exit with the command's code.
    #[arg(last = true)]
    command: Vec<String>,
}

/// The exit code is that of the command, or weir's own.
pub(crate) fn run(options: &Options) -> Result<u8> {
    let running = answers();
    if running && options.command.is_empty() {
        println!("weir runs already: its admin API answers on {ADMIN}");
        hints();
        return Ok(0);
    }
    let weir = build()?;
    match options.command.as_slice() {
        [] => serve(&weir),
        command if running => {
            println!("weir runs already, and is used: its admin API answers on {ADMIN}");
            captured(&weir, command)
        }
        command => {
            // Ctrl-C is for the command; what was started here still has to be stopped. See `signal_hook::flag`:
            // a signal that sets a flag no longer ends this process.
            for signal in [SIGINT, SIGTERM] {
                signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
            }
            let server = Server::start(&weir)?;
            let code = captured(&weir, command)?;
            match server.stop() {
                Err(error) if code == 0 => Err(error),
                Err(error) => {
                    // The command's own failure is what the caller asked for.
                    eprintln!("{error:#}");
                    Ok(code)
                }
                Ok(()) => Ok(code),
            }
        }
    }
}

fn build() -> Result<PathBuf> {
    let toolchain = setup::setup()?;
    build_ebpf::build(&toolchain, &build_ebpf::Options { release: true })?;
    let build = ["--locked", "--release", "--package", "proxy-userspace", "--bin", "weir"];
    setup::run(cargo("build").args(build))?;
    Ok(workspace().join(target_dir()).join("release/weir"))
}

fn serve_command(weir: &Path, privilege: Privilege) -> Command {
    let mut command = privilege.command(weir);
    command.arg("serve").arg("--config").arg(workspace().join("config/proxy.yaml"));
    command
}

/// Becomes weir: its signals, its output and its exit code are those of this command.
fn serve(weir: &Path) -> Result<u8> {
    let mut command = serve_command(weir, Privilege::find(PURPOSE)?);
    println!("starting weir; Ctrl-C stops it");
    hints();
    Err(command.exec()).with_context(|| format!("can't start {}", weir.display()))
}

fn hints() {
    println!(
        "\n  curl -x http://127.0.0.1:22180 https://example.com/     through the explicit proxy\n  \
         cargo xtask run -- curl https://example.com/            captured, nothing configured\n  \
         curl http://{ADMIN}/proxy/status               what weir does and what the kernel has\n"
    );
}

fn captured(weir: &Path, command: &[String]) -> Result<u8> {
    let privilege = Privilege::find(PURPOSE)?;
    let mut exec = privilege.command(weir);
    exec.arg("exec");
    if let Some(user) = privilege.ordinary_user()? {
        exec.args(["--user", &user]);
    }
    let status = exec.arg("--").args(command).status().context("can't start weir exec")?;
    println!("\nflows:");
    setup::run(privilege.command(weir).arg("flows"))?;
    Ok(exit_code(status))
}

/// As a shell tells it: 128 and the signal's number for a command that a signal ended.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The weir started here; stopped when dropped, whatever happened in between.
struct Server {
    child: Child,
    privilege: Privilege,
}

impl Server {
    fn start(weir: &Path) -> Result<Self> {
        // Its own process group: the terminal's Ctrl-C goes to the command, and weir outlives it.
        let privilege = Privilege::find(PURPOSE)?;
        let mut command = serve_command(weir, privilege);
        command.args(["--set", "server.timeouts.drain=1s"]).process_group(0);
        let child = command.spawn().with_context(|| format!("can't start {}", weir.display()))?;
        let mut server = Self { child, privilege };
        let started = Instant::now();
        while !answers() {
            if let Some(status) = server.child.try_wait()? {
                bail!("weir ended before it was ready ({status}); its own message is above");
            }
            if started.elapsed() > START_LIMIT {
                bail!("weir is not ready after {} s; its log is above", START_LIMIT.as_secs());
            }
            sleep(POLL);
        }
        Ok(server)
    }

    fn stop(mut self) -> Result<()> {
        self.signal("TERM")?;
        let status = self.wait(STOP_LIMIT)?.context("weir did not stop when asked; it is killed")?;
        if !status.success() {
            bail!("weir ended badly: {status}");
        }
        Ok(())
    }

    fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            match self.child.try_wait()? {
                None if started.elapsed() < limit => sleep(POLL),
                status => return Ok(status),
            }
        }
    }

    /// sudo hands signals on to what it runs; only root may signal sudo. The shell's own kill: a small system has no
    /// other.
    fn signal(&self, signal: &str) -> Result<()> {
        let mut kill = self.privilege.command("sh");
        setup::run(kill.args(["-c", &format!("kill -{signal} {}", self.child.id())]))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let asked = self.signal("TERM").and_then(|()| self.wait(STOP_LIMIT));
        if !matches!(asked, Ok(Some(_))) {
            eprintln!("weir (process {}) does not stop; it is killed", self.child.id());
            // Reported above; nothing else can be done about it here.
            let _ = self.signal("KILL");
        }
    }
}

fn answers() -> bool {
    ready(ADMIN).unwrap_or(false)
}

fn ready(admin: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&admin, PROBE_TIMEOUT)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    write!(stream, "GET /health/readiness HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut status)?;
    Ok(&status == b"HTTP/1.1 200")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn readiness_is_what_the_answer_says() {
        for (answer, expected) in
            [("HTTP/1.1 200 OK\r\n\r\n", true), ("HTTP/1.1 503 Not ready\r\n\r\n", false)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                assert!(request.starts_with(b"GET /health/readiness HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(ready(address).unwrap(), expected);
            server.join().unwrap();
        }
    }

    #[test]
    fn nobody_listening_is_not_ready() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(ready(address).is_err());
    }

    #[test]
    fn exit_codes_are_a_shells() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(15)), 143);
    }
}
