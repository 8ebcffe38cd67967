//! Targets that are no cgroups: users and executables, as they are on this host now.

use std::collections::{HashMap, HashSet};

use nix::unistd::User;

use crate::config::Selector;
use crate::containers::CapturedProgram;
use crate::redirect::{Program, Redirect};

/// Users by name: asked for once, as that may take a directory service.
#[derive(Debug, Default)]
pub(super) struct Users(HashMap<String, Option<u32>>);

impl Users {
    /// Asks again for those that were not there.
    pub(super) fn ask_again(&mut self) {
        self.0.retain(|_, uid| uid.is_some());
    }

    fn uid(&mut self, name: &str) -> Option<u32> {
        let ask = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        *self.0.entry(name.to_owned()).or_insert_with(ask)
    }
}

/// Has the kernel half capture what the selectors name, and nothing else of this kind.
pub(super) fn apply(selectors: &[Selector], users: &mut Users, redirect: &Redirect) -> Vec<CapturedProgram> {
    let mut wanted = HashSet::new();
    let mut captured = Vec::new();
    for selector in selectors {
        let found = match selector {
            Selector::Uid(uid) => Ok(Program::user(*uid)),
            Selector::User(name) => {
                users.uid(name).map(Program::user).ok_or_else(|| "there is no such user".to_owned())
            }
            Selector::Executable(_) if !redirect.tells_executables() => Err(
                "what a process executes the kernel half can tell only with BTF (/sys/kernel/btf/vmlinux) and \
                 CAP_PERFMON"
                    .to_owned(),
            ),
            Selector::Executable(path) => {
                Program::executable(path).ok_or_else(|| "there is no such file".to_owned())
            }
            _ => continue,
        };
        wanted.extend(found.as_ref().ok());
        captured.push(CapturedProgram { selector: selector.clone(), problem: found.err() });
    }
    if let Err(error) = redirect.select_programs(&wanted) {
        for program in &mut captured {
            program.problem.get_or_insert_with(|| error.to_string());
        }
    }
    captured
}
