//! How to run a program as root: at once, or through sudo with this user's environment.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, stdin};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    Root,
    Sudo,
}

impl Privilege {
    /// Asks for sudo's password now, so that nothing waits for it in the middle of long work.
    ///
    /// # Errors
    /// Neither root nor sudo is to be had; `purpose` says what would have needed it.
    pub(crate) fn find(purpose: &str) -> Result<Self> {
        if setup::is_root()? {
            return Ok(Self::Root);
        }
        if !setup::works(Path::new("sudo")) {
            bail!("{purpose} needs root, and there is no sudo; run this as root, or install sudo");
        }
        let mut ask = Command::new("sudo");
        ask.arg("--validate");
        if !stdin().is_terminal() {
            // Nobody is there to type a password.
            ask.arg("--non-interactive");
        }
        println!("asking for sudo: {purpose}");
        match ask.status() {
            Ok(status) if status.success() => Ok(Self::Sudo),
            _ => bail!("{purpose} needs root, and sudo refuses; run this as root, or as a user with sudo"),
        }
    }

    /// What stands before a command line. sudo replaces PATH, whatever is preserved: put it back.
    pub(crate) fn prefix(self) -> Vec<OsString> {
        match self {
            Self::Root => Vec::new(),
            Self::Sudo => {
                let mut path = OsString::from("PATH=");
                path.push(std::env::var_os("PATH").unwrap_or_default());
                vec!["sudo".into(), "--preserve-env".into(), "env".into(), path]
            }
        }
    }

    /// Who called, where that is not root: programs that don't need root run as that user.
    pub(crate) fn ordinary_user(self) -> Result<Option<String>> {
        if self == Self::Root {
            return Ok(None);
        }
        let output = Command::new("id").arg("--user").arg("--name").output().context("can't run id")?;
        Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
    }

    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut line = self.prefix();
        line.push(program.as_ref().to_owned());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_keeps_the_path() {
        let command = Privilege::Sudo.command("weir");
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        assert_eq!(command.get_program(), "sudo");
        assert_eq!(args[..2], ["--preserve-env", "env"]);
        assert_eq!(args[2], format!("PATH={}", std::env::var("PATH").unwrap()));
        assert_eq!(args[3], "weir");
        assert_eq!(Privilege::Root.command("weir").get_program(), "weir");
    }
}
