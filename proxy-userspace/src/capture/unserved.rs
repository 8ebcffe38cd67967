//! Network namespaces of which weir learns by a connection that it should have taken: programs enter others than they
//! were started in, and rules and users are not bound to one. Until weir listens there the fail mode decides.

use std::sync::Arc;
use std::time::Duration;

use super::inside::enter;
use crate::redirect::{Redirect, Unserved};
use crate::running::{Capture, Running};

/// How often the kernel half is asked.
const LOOK: Duration = Duration::from_millis(100);

/// Most network namespaces in which weir listens when it comes to enter another one in this way: any program that is
/// captured may make as many as it likes.
const MAX_ENTERED: usize = 256;

/// Until weir stops.
pub(super) async fn serve(running: Arc<Running>) {
    loop {
        tokio::time::sleep(LOOK).await;
        match &*running.capture() {
            Capture::On(redirect) => {
                for unserved in redirect.take_unserved() {
                    serve_one(&running, redirect, unserved);
                }
            }
            _ => return,
        }
    }
}

fn serve_one(running: &Arc<Running>, redirect: &Redirect, Unserved { cookie, pid }: Unserved) {
    let namespaces = &running.namespaces;
    let problem = if namespaces.count() >= MAX_ENTERED {
        Some(format!("weir listens in {MAX_ENTERED} already, and enters no more on its own"))
    } else {
        match enter(running, redirect, pid) {
            Err(error) if !error.is_of_the_dead() => Some(error.to_string()),
            _ => None,
        }
    };
    if namespaces.set_problem(cookie, pid, problem.clone())
        && let Some(problem) = problem
    {
        tracing::warn!(pid, "connections from a network namespace can't be captured: {problem}");
    }
}
