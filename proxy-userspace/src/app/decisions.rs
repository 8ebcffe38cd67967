//! Hands the kernel half's decisions to whoever follows them, and lets it rest when nobody does.

use std::sync::Arc;
use std::time::Duration;

use crate::redirect::Decisions;
use crate::running::{Capture, Running};

/// How often the ring buffer is looked into while somebody follows.
const LOOK: Duration = Duration::from_millis(20);

/// Decisions handed out in one go, before others get their turn.
const BATCH: usize = 256;

/// Until weir stops.
pub(super) async fn hand_out(mut decisions: Decisions, running: Arc<Running>) {
    loop {
        running.following.begun().await;
        while !rest(&running) {
            tokio::time::sleep(LOOK).await;
            while (0..BATCH).map_while(|_| decisions.take()).map(|one| running.following.tell(one)).count()
                == BATCH
            {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Whether nobody follows; then nothing is told any more. Followers subscribe before they lock, so none is missed.
fn rest(running: &Running) -> bool {
    let Capture::On(redirect) = &mut *running.capture() else { return true };
    if running.following.is_followed() {
        return false;
    }
    if let Err(error) = redirect.tell_decisions(false) {
        tracing::debug!(%error, "the kernel half goes on telling its decisions");
    }
    true
}
