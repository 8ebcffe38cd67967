//! The policy while weir runs: it is read again when one of its lists has changed; contexts whose time is over are
//! released.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admin;
use crate::running::Running;

/// How often the lists are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How long a context may outlive its time; it is nobody's meanwhile.
const SWEEP: Duration = Duration::from_secs(1);

/// Runs until it is aborted.
pub(super) async fn keep_current(running: Arc<Running>) {
    // A list that can't be read is not tried, and told of, again and again.
    let mut failed = false;
    let mut next_look = Instant::now() + LOOK;
    loop {
        tokio::time::sleep(SWEEP).await;
        running.auth.contexts.sweep(running.policy.latest().auth.release_grace);
        if Instant::now() < next_look {
            continue;
        }
        next_look = Instant::now() + LOOK;
        let is_outdated = running.policy.latest().is_outdated();
        if failed || !is_outdated {
            failed &= is_outdated;
            continue;
        }
        let reloaded = admin::reload_policy(&running).await;
        failed = reloaded.is_err();
        if let Err(error) = reloaded {
            tracing::error!("{error}");
        }
    }
}
