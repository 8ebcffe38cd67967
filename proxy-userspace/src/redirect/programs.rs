//! Users and executables that are captured, as the kernel half is told of them: beside cgroups, and by the same policy.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use proxy_common::{IDENTITY_EXECUTABLE, IDENTITY_UID, Identity, Policy, USES_EXECUTABLE, USES_UID};

use super::load::take_map;
use super::rules::host::executable;
use super::{Action, Redirect, RedirectError};

/// Most users and executables that are captured at one time.
pub(super) const PROGRAM_CAPACITY: u32 = 4096;

/// A user, or a file that is executed, as the kernel half tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Program(Identity);

impl Program {
    /// Whatever runs with this real user id, as the initial user namespace numbers it.
    #[must_use]
    pub fn user(uid: u32) -> Self {
        Self(Identity { kind: IDENTITY_UID, id: u64::from(uid), ..Identity::default() })
    }

    /// Whatever executes the file that is there now. None: there is none.
    #[must_use]
    pub fn executable(path: &Path) -> Option<Self> {
        executable(path).map(Self)
    }
}

/// The maps, and what is in them.
pub(super) struct Programs(Mutex<Selected>);

pub(super) struct Selected {
    pub(super) map: HashMap<MapData, Identity, Policy>,
    kinds: Array<MapData, u32>,
    now: HashSet<Program>,
}

impl Programs {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, RedirectError> {
        let (map, kinds) = (take_map(ebpf, "SELECTED")?, take_map(ebpf, "SELECTED_BY")?);
        Ok(Self(Mutex::new(Selected { map, kinds, now: HashSet::new() })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Selected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Redirect {
    /// Redirects what these users and executables connect to from now on, wherever in the attach cgroup they are, and
    /// lets go those of an earlier call that are not among them.
    ///
    /// # Errors
    /// `Map` if there are more than the kernel half has room for.
    pub fn select_programs(&self, wanted: &HashSet<Program>) -> Result<(), RedirectError> {
        let refused = |map| move |source| RedirectError::Map { map, source };
        let mut selected = self.programs.lock();
        if selected.now == *wanted {
            return Ok(());
        }
        let policy = self.policy(Action::Redirect);
        for gone in selected.now.difference(wanted).copied().collect::<Vec<_>>() {
            // Not there any more is as good.
            let _ = selected.map.remove(&gone.0);
            selected.now.remove(&gone);
        }
        for new in wanted.difference(&selected.now.clone()) {
            selected.map.insert(new.0, policy, 0).map_err(refused("SELECTED"))?;
            selected.now.insert(*new);
        }
        let kinds = selected.now.iter().fold(0, |kinds, program| kinds | program.kind());
        selected.kinds.set(0, kinds, 0).map_err(refused("SELECTED_BY"))
    }

    /// Whether this kernel tells the kernel half what a process executes.
    pub fn tells_executables(&self) -> bool {
        self.tells_executables
    }

    /// What is said of a process by its user, or else by its executable; told to people.
    pub(super) fn selected_program(
        &self,
        uid: u32,
        executable: Option<Identity>,
    ) -> Option<(&'static str, Policy)> {
        let selected = self.programs.lock();
        let policy = |program: Program| selected.map.get(&program.0, 0).ok();
        if let Some(policy) = policy(Program::user(uid)) {
            return Some(("its user", policy));
        }
        executable.and_then(|identity| Some(("its executable", policy(Program(identity))?)))
    }
}

impl Program {
    fn kind(self) -> u32 {
        if self.0.kind == IDENTITY_EXECUTABLE { USES_EXECUTABLE } else { USES_UID }
    }
}
