//! `weir supervise`: the parent of a command, and of whatever that starts. weir starts one for each command, and ends the
//! command by ending it.
//!
//! What a command starts stays below its supervisor, also what leaves its process group and its session: orphans become
//! the supervisor's children (PR_SET_CHILD_SUBREAPER in prctl(2)). All of them end with the command, on SIGTERM, and when
//! weir dies. The command has no terminal, and can gain no privileges.

use std::fs;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid, getppid, setsid};

/// The exit codes of shells for what can't be run, and for what is not there.
const CAN_NOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs a program to its end, as another user where one is given, and ends as it has ended.
///
/// # Errors
/// What the kernel says; the program was not started.
pub fn run(program: &Path, arguments: &[String], user: Option<(u32, u32)>) -> io::Result<ExitCode> {
    let weir = getppid();
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    if getppid() != weir {
        return Err(io::Error::other("weir has ended"));
    }
    setsid()?;
    prctl::set_child_subreaper(true)?;
    prctl::set_no_new_privs()?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some((user, group)) = user {
        // The standard library drops this process's supplementary groups as well.
        command.uid(user).gid(group);
    }
    match command.spawn() {
        Ok(child) => attend(child, &signals),
        Err(error) => {
            eprintln!("weir: {} can't be started: {error}", program.display());
            let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CAN_NOT_RUN };
            Ok(ExitCode::from(code))
        }
    }
}

fn attend(mut child: Child, signals: &SigSet) -> io::Result<ExitCode> {
    loop {
        let signal = signals.wait()?;
        if signal != Signal::SIGCHLD {
            end_all();
            return Ok(ExitCode::FAILURE);
        }
        // Orphans that have ended are reaped with all others: there is no hurry.
        if let Some(status) = child.try_wait()? {
            end_all();
            return Ok(end_as(status));
        }
    }
}

/// Kills all that is below this process: the children of those that end become its own.
fn end_all() {
    loop {
        for child in children() {
            // It may have ended by itself.
            let _ = kill(child, Signal::SIGKILL);
        }
        match waitpid(None, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

fn children() -> Vec<Pid> {
    let own = getpid();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent(*pid) == Some(own)).map(Pid::from_raw).collect()
}

/// The fourth field of /proc/PID/stat; the second may hold anything but ends with the last parenthesis (proc(5)).
fn parent(pid: i32) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

/// The end that weir is to see: the same exit code, or the same signal.
fn end_as(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        // Its core is of no use to anybody.
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        let _ = signal_hook::low_level::emulate_default_handler(signal);
        return ExitCode::FAILURE;
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
