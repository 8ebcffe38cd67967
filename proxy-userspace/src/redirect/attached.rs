//! What is really attached, what is wrong with it, and putting that right: the attach cgroup may be removed and made
//! again, and whoever has the privilege may detach our programs. Other people's programs are told of, never touched.
#![forbid(unsafe_code)]

use std::os::fd::AsFd as _;

use super::cgroup::{Cgroup, Mount};
use super::hooks::{self, HOOKS, Hook};
use super::{HookState, MapState, Redirect, RedirectError, hold, load, lock, sys};

impl Redirect {
    /// Whether every hook runs our program. Cheap: walks no map.
    pub fn is_attached(&self) -> bool {
        self.is_in_place() && HOOKS.iter().all(|hook| self.hook_state(hook).attached)
    }

    /// Attaches again what isn't attached any more, where it can be. To be called every now and then.
    ///
    /// # Errors
    /// Why it can't be: the attach cgroup is not there, or the kernel refuses.
    pub fn repair(&mut self) -> Result<Repaired, RedirectError> {
        let present = Cgroup::open(&self.cgroup.path)?;
        let missing: Vec<usize> = if present.id == self.cgroup.id {
            (0..HOOKS.len()).filter(|&index| !self.hook_state(&HOOKS[index]).attached).collect()
        } else {
            (0..HOOKS.len()).collect()
        };
        if missing.is_empty() {
            return Ok(Repaired::Nothing);
        }
        let moved = present.id != self.cgroup.id;
        if moved {
            self.lock = lock::InstanceLock::acquire(&present)?;
            self.cgroup = present;
        }
        let mount = Mount::find()?;
        for index in missing {
            let hook = &HOOKS[index];
            let program = self.ebpf.program(hook.program).ok_or(RedirectError::Mismatch(hook.program))?;
            let link = hooks::attach(hook, program, &self.cgroup.dir);
            let link = link.map_err(|source| load::attach_error(&mount, &self.cgroup, hook, source))?;
            match self.links.get_mut(index) {
                Some(place) => *place = link,
                None => self.links.push(link),
            }
        }
        self.give_links_to_holder()?;
        Ok(if moved { Repaired::Cgroup } else { Repaired::Programs })
    }

    /// The holder has links that hold nothing any more.
    fn give_links_to_holder(&mut self) -> Result<(), RedirectError> {
        let (Some(_), Some(state_dir)) = (self.holder.take(), &self.state_dir) else { return Ok(()) };
        let holder = hold::Holder::start(&self.links, hold::socket(state_dir, self.cgroup.id));
        self.holder = Some(holder.map_err(|source| RedirectError::Holder { source })?);
        Ok(())
    }

    /// Each with its cause, for a person; none: all is as it should be.
    pub(super) fn problems(&self, hooks: &[HookState], maps: &[MapState]) -> Vec<String> {
        let mut problems = Vec::new();
        let cgroup = self.cgroup.path.display();
        if !self.is_in_place() {
            problems.push(format!(
                "the attach cgroup {cgroup} was removed: nothing is captured until it is there again, and weir has \
                 attached to it"
            ));
        } else {
            for hook in hooks.iter().filter(|hook| !hook.attached) {
                problems.push(format!(
                    "somebody detached weir's program from the {} hook of {cgroup}: weir attaches it again; see who with \
                     `bpftool link` and `bpftool cgroup show {cgroup}`",
                    hook.name
                ));
            }
        }
        let programs = self.programs_of_another_weir();
        if !programs.is_empty() {
            let programs: Vec<String> = programs.iter().map(u32::to_string).collect();
            problems.push(format!(
                "programs of another weir ({}) are attached to {cgroup}, too: an earlier one's holder, or a weir in \
                 another mount namespace; see who has them with `bpftool link` and end it",
                programs.join(", ")
            ));
        }
        let full = maps.iter().filter(|map| map.entries >= map.capacity && map.name != "CLOSED");
        problems.extend(full.map(|map| {
            format!("the map {} is full ({} entries): {}", map.name, map.capacity, remedy(map.name))
        }));
        problems.extend(self.dns_servers.problems());
        problems
    }

    /// Whether the attach cgroup is still the one that the programs were attached to.
    fn is_in_place(&self) -> bool {
        Cgroup::open(&self.cgroup.path).is_ok_and(|present| present.id == self.cgroup.id)
    }

    pub(super) fn hook_state(&self, hook: &Hook) -> HookState {
        let program = self.ebpf.program(hook.program).and_then(|program| program.info().ok());
        let program_id = program.map_or(0, |info| info.id());
        let attached = sys::attached_programs(self.cgroup.dir.as_fd(), hook.attach_type);
        let attached = attached.map_or_else(|_| Vec::new(), |attached| attached.program_ids);
        HookState {
            name: hook.name,
            program_id,
            attached: attached.contains(&program_id),
            foreign: attached.into_iter().filter(|&id| id != program_id).collect(),
        }
    }

    /// What else redirects in this very cgroup. Without CAP_SYS_ADMIN programs have no names: then none is found.
    pub(super) fn programs_of_another_weir(&self) -> Vec<u32> {
        let redirecting = HOOKS.iter().filter(|hook| hook.name.ends_with("connect"));
        let foreign: Vec<u32> = redirecting.flat_map(|hook| self.hook_state(hook).foreign).collect();
        if foreign.is_empty() {
            return foreign;
        }
        let is_weir = |name: &str| HOOKS.iter().any(|hook| hook.program == name);
        let programs = aya::programs::loaded_programs().flatten();
        let named = programs.filter(|program| program.name_as_str().is_some_and(is_weir));
        named.map(|program| program.id()).filter(|id| foreign.contains(id)).collect()
    }
}

/// What `repair` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repaired {
    /// All was attached.
    Nothing,
    /// Programs that somebody had detached.
    Programs,
    /// The attach cgroup had been removed, and is there again.
    Cgroup,
}

/// What makes room in a map.
fn remedy(map: &str) -> &'static str {
    match map {
        "DNS_SERVERS" => {
            "captured programs ask so many DNS servers; those that are not asked any more make room"
        }
        "NAMES" => "raise capture.dns.max_names, and start weir again",
        "CGROUPS" | "NAMESPACES" => "raise capture.max_cgroups, and start weir again",
        "SELECTED" | "IDENTITIES" => "name fewer users, cgroups and executables",
        _ => "raise capture.max_connections, and start weir again",
    }
}
