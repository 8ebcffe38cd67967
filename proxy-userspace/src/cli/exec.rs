//! `weir exec -- CMD`: moves into a cgroup that weir captures, and becomes CMD.

use std::ffi::{CString, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use hyper::Method;
use nix::unistd::{User, initgroups, setgid, setuid};

use super::{Admin, FAILED, Failed, MISUSED, client};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Writes the id of the program's cgroup to this file: `weir flows --cgroup` takes it.
    #[arg(long, value_name = "FILE")]
    cgroup_file: Option<PathBuf>,
    /// Runs the program as this user, with the user's groups.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What a shell says of a program that it can't run, or can't find.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

pub(super) fn run(arguments: &Arguments, admin: &Admin) -> Result<(), Failed> {
    let made = client::ask(admin, &Method::POST, "/capture/exec")?;
    let (Some(cgroup), Some(id)) = (made["cgroup"].as_str(), made["id"].as_u64()) else {
        return Err(Failed::new(FAILED, format!("strange answer: {made}")));
    };
    if let Some(file) = &arguments.cgroup_file {
        std::fs::write(file, format!("{id}\n"))
            .map_err(|error| Failed::new(FAILED, format!("can't write {}: {error}", file.display())))?;
    }
    enter(Path::new(cgroup))?;
    if let Some(user) = &arguments.user {
        become_user(user)?;
    }
    become_program(&arguments.command)
}

/// 0 stands for the writer itself (cgroup-v2.rst, "Processes").
fn enter(cgroup: &Path) -> Result<(), Failed> {
    std::fs::write(cgroup.join("cgroup.procs"), "0").map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "; try it with sudo",
            _ => "",
        };
        Failed::new(FAILED, format!("can't enter the cgroup {}: {error}{hint}", cgroup.display()))
    })
}

fn become_user(name: &str) -> Result<(), Failed> {
    let failed = |error: nix::Error| Failed::new(FAILED, format!("can't become the user {name}: {error}"));
    let user = User::from_name(name).map_err(failed)?;
    let user = user.ok_or_else(|| Failed::new(MISUSED, format!("there is no user {name}")))?;
    let name = CString::new(name).map_err(|_| Failed::new(MISUSED, "a user's name has no NUL in it"))?;
    // In this order: without being root the groups can't be set any more.
    initgroups(&name, user.gid)
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid))
        .map_err(failed)
}

/// Returns only if that failed: then the program never ran.
fn become_program(command: &[OsString]) -> Result<(), Failed> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failed::new(FAILED, "there is no program to run"));
    };
    let error = Command::new(program).args(arguments).exec();
    let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
    Err(Failed::new(code, format!("can't run {}: {error}", program.to_string_lossy())))
}
