//! A container that an earlier weir has captured: it stays captured, also while its engine can't be asked.

use std::path::Path;
use std::sync::Arc;

use super::inside::enter;
use crate::config::Selector;
use crate::containers::Captured;
use crate::redirect::{CgroupId, processes};
use crate::running::{Capture, Running};
use crate::target::Container;

/// Captures it until its engine says what it is, or its first process has ended.
pub fn adopt(running: &Arc<Running>, cgroup: &Path, selector: Selector, container: Container) {
    // Nobody lives there any more, or there was nothing to capture.
    let (Some(&pid), Ok(id)) = (processes(cgroup).first(), CgroupId::of(cgroup)) else { return };
    {
        let capture = running.capture();
        let Capture::On(redirect) = &*capture else { return };
        let entered = enter(running, redirect, pid).map_err(|error| error.to_string());
        let captured = redirect.capture_cgroup(cgroup).map_err(|error| error.to_string());
        if let Err(error) = entered.and(captured.map(drop)) {
            return tracing::warn!(container = %container.name, "can't go on capturing a container: {error}");
        }
    }
    let path = cgroup.to_owned();
    let captured = Captured { id, path, selector, container: Some(Arc::new(container)), problem: None };
    running.targets.note_starting(captured, pid, None);
}
