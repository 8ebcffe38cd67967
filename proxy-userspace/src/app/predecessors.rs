//! Earlier weirs that finish what they have: when one has ended, its process's number is free for others.

use std::sync::Arc;
use std::time::Duration;

use crate::running::{Capture, Running};

/// How often it is looked. A number is not used again so soon: the kernel goes round all of them first.
const LOOK: Duration = Duration::from_millis(200);

/// Until all have ended.
pub(super) async fn watch(running: Arc<Running>) {
    while !running.predecessors.all().is_empty() {
        tokio::time::sleep(LOOK).await;
        let ended = running.predecessors.take_ended();
        if ended.is_empty() {
            continue;
        }
        if let Capture::On(redirect) = &*running.capture()
            && let Err(error) = redirect.tell_siblings(&running.predecessors.pids())
        {
            tracing::warn!("{error}");
        }
        tracing::info!(?ended, "the earlier weir has finished what it had");
    }
}
