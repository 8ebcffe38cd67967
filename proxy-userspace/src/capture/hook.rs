//! A container that is about to start: captured before its first process runs, if a target names it.
//!
//! The container runtime waits meanwhile (see `oci`), and the engine holds the container locked: docker lists it, but
//! does not let it be inspected; podman does neither. What podman starts is therefore captured in any case, until podman
//! tells whether a target names it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inside::enter;
use super::resolve::cgroup;
use crate::config::Selector;
use crate::containers::{Captured, Engine, EngineError, EnterError, Which};
use crate::redirect::{CgroupId, Mount, RedirectError};
use crate::running::{Capture, Running};
use crate::target::Container;

/// Why a container that is named could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("{0}")]
    Engine(#[from] EngineError),
    #[error("{0}")]
    Enter(#[from] EnterError),
    #[error("{0}")]
    Kernel(#[from] RedirectError),
    #[error("weir is stopping, or another one has taken its place")]
    Replaced,
    #[error("process {pid} is in no cgroup of container {id}: {reason}")]
    Cgroup { id: String, pid: u32, reason: String },
}

/// What a runtime tells of a container.
#[derive(Debug)]
pub struct Starting {
    pub id: String,
    /// Its first process.
    pub pid: u32,
    pub is_podmans: bool,
}

/// How long podman may take to tell of a container that it has started.
const UNKNOWN: Duration = Duration::from_secs(10);

/// Captures a container, if a target names it: gives the target.
///
/// # Errors
/// [`HookError`]: whether it is named, or how to capture it, can't be found out.
pub async fn about_to_start(
    running: &Arc<Running>,
    starting: &Starting,
) -> Result<Option<Selector>, HookError> {
    let Starting { id, pid, is_podmans } = starting;
    let (id, pid) = (id.as_str(), *pid);
    let named = if *is_podmans { perhaps_named(running, id) } else { named(running, id).await? };
    let Some((selector, container)) = named else { return Ok(None) };
    let lost = |reason: String| HookError::Cgroup { id: id.to_owned(), pid, reason };
    let mount = Mount::find()?;
    let path = cgroup(pid, id, &mount).ok_or_else(|| lost("it is not in /proc".into()))?;
    let cgroup = CgroupId::of(&path).map_err(|error| lost(error.to_string()))?;
    let name = container.name.clone();
    let container = Some(container);
    let captured =
        Captured { id: cgroup, path: path.clone(), selector: selector.clone(), container, problem: None };
    let known_by = is_podmans.then(|| Instant::now() + UNKNOWN);
    {
        let capture = running.capture_to_change().await;
        let redirect = match &*capture {
            Capture::On(redirect) => redirect,
            Capture::Detached => return Err(HookError::Replaced),
            _ => return Ok(None),
        };
        enter(running, redirect, pid)?;
        redirect.capture_cgroup(&path)?;
        running.targets.note_starting(captured, pid, known_by);
    }
    tracing::info!("capturing container {name} before it starts (by {selector})");
    Ok(Some(selector))
}

/// A container that may be named: it is told by its id for now.
fn perhaps_named(running: &Running, id: &str) -> Option<(Selector, Arc<Container>)> {
    let selector = running.targets.selectors().into_iter().find(Selector::needs_engine)?;
    let name: String = id.chars().take(12).collect();
    Some((selector, Arc::new(Container { id: id.into(), name: name.into(), image: "".into() })))
}

/// The target that names a container, and the container.
async fn named(running: &Running, id: &str) -> Result<Option<(Selector, Arc<Container>)>, EngineError> {
    let selectors = running.targets.selectors();
    if !selectors.iter().any(Selector::needs_engine) {
        return Ok(None);
    }
    let mut failed = None;
    for socket in &running.config().capture.engine_sockets {
        match Engine::new(socket.clone()).containers(Which::Id(id)).await {
            Ok(found) => {
                let Some(known) = found.into_iter().find(|known| *known.container.id == *id) else {
                    continue;
                };
                let selector = selectors.iter().find(|selector| known.is_selected_by(selector));
                return Ok(selector.map(|selector| (selector.clone(), known.container)));
            }
            // The container is another engine's, as long as one knows it.
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(None), Err)
}
