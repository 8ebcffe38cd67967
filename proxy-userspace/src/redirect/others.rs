//! Other people's programs that run on the same connections as weir's: those attached to the attach cgroup and to
//! cgroups above it, in the order in which the kernel runs them. What they do, nobody but their owner can say.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::os::fd::AsFd as _;

use serde::Serialize;

use super::hooks::{HOOKS, Hook};
use super::{Redirect, sys};

/// One of them, on one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherProgram {
    /// As `bpftool cgroup show` calls the hook.
    pub hook: &'static str,
    /// As `bpftool prog` shows it.
    pub id: u32,
    /// Empty without CAP_SYS_ADMIN, or where its owner gave it none.
    pub name: String,
    /// Whether the kernel runs it before weir's.
    pub before: bool,
    /// Whether it is attached to a cgroup above weir's.
    pub above: bool,
}

impl Redirect {
    /// On all hooks. Cheap where there are none.
    pub(super) fn other_programs(&self) -> Vec<OtherProgram> {
        let mut others: Vec<OtherProgram> = HOOKS.iter().flat_map(|hook| self.others_of(hook)).collect();
        if others.is_empty() {
            return others;
        }
        let loaded = aya::programs::loaded_programs().flatten();
        let names: HashMap<u32, String> = loaded
            .map(|program| (program.id(), program.name_as_str().unwrap_or_default().to_owned()))
            .collect();
        for other in &mut others {
            other.name = names.get(&other.id).cloned().unwrap_or_default();
        }
        others
    }

    fn others_of(&self, hook: &Hook) -> Vec<OtherProgram> {
        let state = self.hook_state(hook);
        // In the order in which they run: those of the cgroup itself, then those of the ones above.
        let Ok(effective) = sys::effective_programs(self.cgroup.dir.as_fd(), hook.attach_type) else {
            return Vec::new();
        };
        let ours = effective.iter().position(|id| *id == state.program_id);
        let others = effective.iter().enumerate().filter(|(_, id)| **id != state.program_id);
        let other = |(at, id): (usize, &u32)| OtherProgram {
            hook: hook.name,
            id: *id,
            name: String::new(),
            before: ours.is_some_and(|ours| at < ours),
            above: !state.foreign.contains(id),
        };
        others.map(other).collect()
    }
}
