//! Keeps what is captured in step with the targets: looked at anew when a target, an engine or a container changes, and
//! every so often, as cgroups come and go without a word.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::inside::enter;
use super::programs::{self, Users};
use super::resolve::{Found, Inspected, plain};
use super::unserved;
use crate::config::Selector;
use crate::containers::{Asked, Captured, Engine, Starting};
use crate::redirect::{CgroupId, Mount, Redirect, cgroup_of};
use crate::running::{Capture, Running};

/// How often cgroups are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How long an engine that is gone is left alone.
const REST: Duration = Duration::from_secs(1);

/// How long a change of which no engine told is not seen at most.
const UNTOLD: Duration = Duration::from_secs(4);

/// Captures what the configuration names, and goes on watching.
pub async fn start(running: &Arc<Running>, asked: mpsc::Receiver<Asked>) {
    if !matches!(*running.capture(), Capture::On(_)) {
        return;
    }
    let Ok(mount) = Mount::find() else { return };
    let mut engines: BTreeMap<_, _> = BTreeMap::new();
    for socket in &running.config().capture.engine_sockets {
        engines.insert(socket.clone(), Seen { engine: Engine::new(socket.clone()), ..Seen::default() });
    }
    let mut watcher = Watcher { mount, engines, users: Users::default(), running: Arc::clone(running) };
    watcher.look_everywhere().await;
    for seen in watcher.engines.values() {
        tokio::spawn(listen(seen.engine.clone(), Arc::clone(running)));
    }
    tokio::spawn(watcher.watch(asked));
    tokio::spawn(unserved::serve(Arc::clone(running)));
}

/// Tells of an engine's changes, and of its coming and going.
async fn listen(engine: Engine, running: Arc<Running>) {
    loop {
        let is_needed = running.targets.selectors().iter().any(Selector::needs_engine);
        if is_needed && let Ok(mut changes) = engine.changes().await {
            running.targets.look().await;
            // An engine answers before it listens to itself: a change in between is told to nobody, so there is a look
            // without one now and then.
            while matches!(timeout(UNTOLD, changes.next()).await, Ok(Ok(())) | Err(_)) {
                running.targets.look().await;
            }
            running.targets.look().await;
        }
        sleep(REST).await;
    }
}

struct Watcher {
    mount: Mount,
    engines: BTreeMap<PathBuf, Seen>,
    users: Users,
    running: Arc<Running>,
}

/// An engine, and what it said last. If it is gone, its containers go on.
#[derive(Debug, Default)]
struct Seen {
    engine: Engine,
    inspected: Inspected,
    found: Vec<Found>,
}

impl Watcher {
    async fn watch(mut self, mut asked: mpsc::Receiver<Asked>) {
        loop {
            let idle =
                self.running.targets.selectors().is_empty() && self.running.targets.captured().is_empty();
            let waiting: Vec<Asked> = tokio::select! {
                Some(first) = asked.recv() => {
                    // All who ask meanwhile are answered by one look.
                    std::iter::once(first).chain(std::iter::from_fn(|| asked.try_recv().ok())).collect()
                }
                () = sleep(LOOK), if !idle => Vec::new(),
            };
            if waiting.is_empty() {
                let selectors = self.running.targets.selectors();
                self.apply(&selectors);
            } else {
                self.look_everywhere().await;
            }
            for asked in waiting {
                // Who does not wait any more needs no answer.
                let _ = asked.send(());
            }
        }
    }

    async fn look_everywhere(&mut self) {
        let selectors = self.running.targets.selectors();
        let needs_engine = selectors.iter().any(Selector::needs_engine);
        for (socket, seen) in &mut self.engines {
            if !needs_engine {
                seen.found.clear();
                continue;
            }
            let problem = match seen.inspected.containers(&seen.engine, &selectors, &self.mount).await {
                Ok(found) => {
                    seen.found = found;
                    None
                }
                Err(error) => {
                    // A target that was removed is let go even so.
                    seen.found.retain(|found| selectors.contains(&found.selector));
                    Some(error.to_string())
                }
            };
            if self.running.targets.set_engine(socket, problem.clone()) {
                match problem {
                    Some(problem) => tracing::debug!("{problem}"),
                    None => tracing::info!("watching the containers of {}", socket.display()),
                }
            }
        }
        self.users.ask_again();
        self.apply(&selectors);
    }

    /// What was captured before it started, and its engine doesn't list yet.
    fn starting(&self, selectors: &[Selector]) -> impl Iterator<Item = Found> {
        let is_alive = |Starting { captured, first_process, .. }: &Starting| {
            let lives_there = |path: PathBuf| path.starts_with(&captured.path);
            let id = captured.container.as_ref().map_or("", |container| &container.id);
            let is_listed = self.engines.values().any(|seen| seen.inspected.is_running(id));
            let is_wanted = !is_listed && selectors.contains(&captured.selector);
            is_wanted && cgroup_of(*first_process, &self.mount).is_ok_and(lives_there)
        };
        self.running.targets.starting(is_alive).into_iter().map(
            |Starting { captured, first_process, .. }| {
                let Captured { path, selector, container, .. } = captured;
                Found { path, selector, container, processes: vec![first_process] }
            },
        )
    }

    /// Captures what is found and wasn't captured, and lets go what was and isn't found any more.
    fn apply(&mut self, selectors: &[Selector]) {
        let mut found = plain(selectors, &self.mount);
        found.extend(self.engines.values().flat_map(|seen| seen.found.iter().cloned()));
        found.extend(self.starting(selectors));
        let capture = self.running.capture();
        let Capture::On(redirect) = &*capture else { return };
        self.running.targets.set_programs(programs::apply(selectors, &mut self.users, redirect));
        let before: HashMap<CgroupId, Captured> =
            self.running.targets.captured().into_iter().map(|captured| (captured.id, captured)).collect();
        let mut now: Vec<Captured> = Vec::new();
        for found in found {
            let Ok(id) = CgroupId::of(&found.path) else { continue };
            if now.iter().any(|captured| captured.id == id) {
                continue;
            }
            let is_new = !before.contains_key(&id);
            let problem = capture_one(&self.running, redirect, &found, is_new);
            let Found { path, selector, container, .. } = found;
            now.push(Captured { id, path, selector, container, problem });
        }
        for gone in before.values().filter(|before| now.iter().all(|captured| captured.id != before.id)) {
            tracing::info!("no longer capturing {}", shown(gone));
            if let Err(error) = redirect.release_cgroup(gone.id) {
                tracing::warn!(%error, path = %gone.path.display(), "can't release a cgroup");
            }
        }
        for captured in &now {
            match (before.get(&captured.id), &captured.problem) {
                (None, None) => tracing::info!("capturing {}", shown(captured)),
                (before, Some(problem))
                    if before.and_then(|before| before.problem.as_ref()) != Some(problem) =>
                {
                    tracing::warn!("{}: {problem}", shown(captured));
                }
                _ => {}
            }
        }
        self.running.targets.set_captured(now);
    }
}

/// Listens where its connections begin, and only then has them sent there. What is wrong, if anything is.
fn capture_one(running: &Arc<Running>, redirect: &Redirect, found: &Found, is_new: bool) -> Option<String> {
    if !found.path.starts_with(redirect.cgroup()) {
        let outside = redirect.cgroup().display();
        return Some(format!("it is outside of {outside}, where weir is attached (capture.cgroup)"));
    }
    let mut problem = None;
    for pid in &found.processes {
        if let Err(error) = enter(running, redirect, *pid)
            && !error.is_of_the_dead()
        {
            problem = Some(error.to_string());
        }
    }
    if is_new && let Err(error) = redirect.capture_cgroup(&found.path) {
        problem = Some(error.to_string());
    }
    problem
}

fn shown(captured: &Captured) -> String {
    let path = captured.path.display();
    match &captured.container {
        Some(container) => format!("container {} ({path}, by {})", container.name, captured.selector),
        None => format!("{path} (by {})", captured.selector),
    }
}
