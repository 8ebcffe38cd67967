//! The targets of capture, and what they select at this moment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use super::names::{ByCgroup, Names};
use crate::config::Selector;
use crate::redirect::CgroupId;
use crate::target::Container;

/// All targets; shared by those who change them and those who see to them.
#[derive(Debug)]
pub struct Targets {
    state: Mutex<State>,
    names: watch::Sender<ByCgroup>,
    looks: mpsc::Sender<Asked>,
}

/// Somebody wants the targets looked at anew, and may wait for the end of it.
pub type Asked = oneshot::Sender<()>;

/// Those who may ask at one time; more wait.
const MAX_ASKING: usize = 64;

#[derive(Debug, Default)]
struct State {
    targets: Vec<(Selector, Origin)>,
    captured: Vec<Captured>,
    programs: Vec<CapturedProgram>,
    /// Containers that were captured before they started: the engine doesn't list them yet.
    starting: Vec<Starting>,
    /// By their sockets.
    engines: BTreeMap<PathBuf, EngineState>,
}

#[derive(Debug, Default)]
struct EngineState {
    problem: Option<String>,
    /// It was well at some time, so it should be again.
    was_well: bool,
}

/// Who named a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// `capture.targets`
    Config,
    /// `weir capture add`; forgotten when weir stops.
    Api,
}

/// A cgroup that is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    pub id: CgroupId,
    pub path: PathBuf,
    /// The first target that selects it.
    pub selector: Selector,
    pub container: Option<Arc<Container>>,
    /// Why its connections can't be taken, though it is selected.
    pub problem: Option<String>,
}

/// A user or an executable that is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedProgram {
    pub selector: Selector,
    /// Why its connections can't be taken.
    pub problem: Option<String>,
}

/// A container between its runtime's word and its engine's.
#[derive(Debug, Clone)]
pub struct Starting {
    pub captured: Captured,
    pub first_process: u32,
    until: Option<Instant>,
}

impl Targets {
    /// Those of the configuration, with nothing selected yet; and who asks to have them looked at.
    #[must_use]
    pub fn new(configured: &[Selector]) -> (Arc<Self>, mpsc::Receiver<Asked>) {
        let targets = configured.iter().map(|selector| (selector.clone(), Origin::Config)).collect();
        let (names, _) = watch::channel(ByCgroup::default());
        let (looks, asked) = mpsc::channel(MAX_ASKING);
        let state = Mutex::new(State { targets, ..State::default() });
        (Arc::new(Self { state, names, looks }), asked)
    }

    /// A target more; none if it is there already.
    pub fn add(&self, selector: Selector) {
        let mut state = self.lock();
        if !state.targets.iter().any(|(known, _)| *known == selector) {
            state.targets.push((selector, Origin::Api));
        }
    }

    /// Those that the configuration does not name.
    #[must_use]
    pub fn added(&self) -> Vec<Selector> {
        let state = self.lock();
        let added = state.targets.iter().filter(|(_, origin)| *origin == Origin::Api);
        added.map(|(selector, _)| selector.clone()).collect()
    }

    /// Has what the targets select looked at anew, and waits until that is done.
    pub async fn look(&self) {
        let (asked, done) = oneshot::channel();
        // An error means that nobody looks any more: weir is going.
        if self.looks.send(asked).await.is_ok() {
            let _ = done.await;
        }
    }

    /// A target less. Gives who named it, and leaves it if that was the configuration.
    pub fn remove(&self, selector: &Selector) -> Option<Origin> {
        let mut state = self.lock();
        let origin = state.targets.iter().find(|(known, _)| known == selector).map(|(_, origin)| *origin);
        if origin == Some(Origin::Api) {
            state.targets.retain(|(known, _)| known != selector);
        }
        origin
    }

    #[must_use]
    pub fn selectors(&self) -> Vec<Selector> {
        self.lock().targets.iter().map(|(selector, _)| selector.clone()).collect()
    }

    /// What is captured at this moment.
    #[must_use]
    pub fn captured(&self) -> Vec<Captured> {
        self.lock().captured.clone()
    }

    /// Notes what is captured now.
    pub fn set_captured(&self, captured: Vec<Captured>) {
        let named = captured.iter().filter_map(|one| Some((one.id.0, one.container.clone()?)));
        let named: ByCgroup = Arc::new(named.collect());
        self.names.send_if_modified(|names| {
            let changed = **names != *named;
            *names = named;
            changed
        });
        self.lock().captured = captured;
    }

    /// Notes which users and executables are captured now.
    pub fn set_programs(&self, programs: Vec<CapturedProgram>) {
        self.lock().programs = programs;
    }

    /// Notes that a container is captured which the engine doesn't say is running; if it must say so in time, until when.
    pub fn note_starting(&self, container: Captured, first_process: u32, until: Option<Instant>) {
        let mut captured = self.captured();
        captured.retain(|known| known.id != container.id);
        captured.push(container.clone());
        self.lock().starting.push(Starting { captured: container, first_process, until });
        self.set_captured(captured);
    }

    /// Those of [`Targets::note_starting`] that `is_alive` holds for; the others are forgotten.
    pub fn starting(&self, is_alive: impl Fn(&Starting) -> bool) -> Vec<Starting> {
        let starting = &mut self.lock().starting;
        let now = Instant::now();
        starting.retain(|starting| starting.until.is_none_or(|until| now < until) && is_alive(starting));
        starting.clone()
    }

    /// Notes how an engine is; true if that is new.
    pub fn set_engine(&self, socket: &Path, problem: Option<String>) -> bool {
        let mut state = self.lock();
        let is_known = state.engines.contains_key(socket);
        let engine = state.engines.entry(socket.to_owned()).or_default();
        engine.was_well |= problem.is_none();
        let before = std::mem::replace(&mut engine.problem, problem);
        !is_known || before != engine.problem
    }

    /// What keeps containers from being captured, told to people: an engine that has gone, or none that answers.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let state = self.lock();
        if !state.targets.iter().any(|(selector, _)| selector.needs_engine()) {
            return Vec::new();
        }
        let is_any_well = state.engines.values().any(|engine| engine.problem.is_none());
        let missed = state.engines.values().filter(|engine| engine.was_well || !is_any_well);
        let problems = missed.filter_map(|engine| engine.problem.as_ref());
        problems
            .map(|problem| {
                format!(
                    "{problem}: containers that start are not captured until it does, those that run stay so"
                )
            })
            .collect()
    }

    /// What a worker needs to tell containers' names.
    #[must_use]
    pub fn names(&self) -> Names {
        Names::new(self.names.subscribe())
    }

    /// For people.
    #[must_use]
    pub fn state(&self) -> Value {
        let state = self.lock();
        let targets: Vec<Value> =
            state.targets.iter().map(|(selector, origin)| state.target(selector, *origin)).collect();
        let needs_engine = state.targets.iter().any(|(selector, _)| selector.needs_engine());
        let engines = state.engines.iter().filter(|_| needs_engine);
        let engines: Vec<Value> =
            engines.map(|(socket, engine)| json!({ "socket": socket, "problem": engine.problem })).collect();
        json!({ "targets": targets, "engines": engines })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn target(&self, selector: &Selector, origin: Origin) -> Value {
        let captured = self.captured.iter().filter(|captured| captured.selector == *selector);
        let captured = captured.map(|captured| {
            json!({
                "cgroup": captured.path,
                "id": captured.id,
                "container": captured.container,
                "problem": captured.problem,
            })
        });
        let programs = self.programs.iter().filter(|program| program.selector == *selector);
        let programs = programs.map(|program| json!({ "problem": program.problem }));
        let captured: Vec<Value> = captured.chain(programs).collect();
        json!({ "target": selector.to_string(), "from": origin, "captured": captured })
    }
}
