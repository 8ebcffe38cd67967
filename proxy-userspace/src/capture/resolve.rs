//! From targets to the cgroups they select at this moment.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Selector;
use crate::containers::{Engine, EngineError, Which};
use crate::redirect::{Mount, cgroup_of, processes};
use crate::target::Container;

/// Directories of the cgroup tree that are looked through for a unit.
const MAX_DIRECTORIES: usize = 20_000;

/// A cgroup that a target selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) selector: Selector,
    pub(super) container: Option<Arc<Container>>,
    /// Processes in whose network namespaces its connections begin.
    pub(super) processes: Vec<u32>,
}

/// What cgroups and units select.
pub(super) fn plain(selectors: &[Selector], mount: &Mount) -> Vec<Found> {
    let mut found = Vec::new();
    for selector in selectors {
        let paths = match selector {
            Selector::Cgroup(path) => vec![below_mount(path, mount)],
            Selector::Unit(name) => units(name, &mount.point),
            _ => continue,
        };
        for path in paths.into_iter().filter(|path| path.is_dir()) {
            let processes = processes(&path);
            found.push(Found { path, selector: selector.clone(), container: None, processes });
        }
    }
    found
}

/// `/system.slice` is as good as `/sys/fs/cgroup/system.slice`.
fn below_mount(path: &Path, mount: &Mount) -> PathBuf {
    if path.starts_with(&mount.point) {
        return path.to_owned();
    }
    mount.point.join(path.strip_prefix("/").unwrap_or(path))
}

/// systemd names a unit's cgroup after it, wherever its slice is.
fn units(name: &str, root: &Path) -> Vec<PathBuf> {
    let (mut waiting, mut found) = (vec![root.to_owned()], Vec::new());
    let mut seen = 0;
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || seen == MAX_DIRECTORIES {
                continue;
            }
            seen += 1;
            if entry.file_name() == name {
                found.push(entry.path());
            } else {
                waiting.push(entry.path());
            }
        }
    }
    found
}

/// What an engine's containers are captured by. Remembers the first process of each, so that each is asked for once.
#[derive(Debug, Default)]
pub(super) struct Inspected {
    processes: HashMap<Box<str>, u32>,
    /// All that run, selected or not.
    running: HashSet<Box<str>>,
}

impl Inspected {
    /// Whether the engine said so when it was asked last.
    pub(super) fn is_running(&self, id: &str) -> bool {
        self.running.contains(id)
    }

    /// The cgroups of the containers that are selected.
    pub(super) async fn containers(
        &mut self,
        engine: &Engine,
        selectors: &[Selector],
        mount: &Mount,
    ) -> Result<Vec<Found>, EngineError> {
        let mut found = Vec::new();
        let mut processes = HashMap::new();
        let listed = engine.containers(Which::Running).await?;
        self.running = listed.iter().map(|known| known.container.id.clone()).collect();
        for known in listed {
            let Some(selector) = selectors.iter().find(|selector| known.is_selected_by(selector)) else {
                continue;
            };
            let container = known.container;
            let id = &container.id;
            let remembered = self.processes.get(id).copied();
            let remembered = remembered.and_then(|pid| Some((pid, cgroup(pid, id, mount)?)));
            let inspected = match remembered {
                Some(inspected) => Some(inspected),
                // It may have ended meanwhile: an event will tell.
                None => match engine.first_process(id).await {
                    Ok(pid) => pid.and_then(|pid| Some((pid, cgroup(pid, id, mount)?))),
                    Err(EngineError::Refused { .. }) => None,
                    Err(error) => return Err(error),
                },
            };
            let Some((pid, path)) = inspected else { continue };
            processes.insert(id.clone(), pid);
            let container = Some(container);
            found.push(Found { path, selector: selector.clone(), container, processes: vec![pid] });
        }
        self.processes = processes;
        Ok(found)
    }
}

/// The cgroup of a container, by its first process: that may have moved on into one below.
pub(super) fn cgroup(pid: u32, id: &str, mount: &Mount) -> Option<PathBuf> {
    let path = cgroup_of(pid, mount).ok()?;
    let named = |path: &&Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(id));
    path.ancestors().find(named).map(Path::to_owned)
}
