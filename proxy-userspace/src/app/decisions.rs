//! Hands the kernel half's decisions to whoever follows them, and lets it rest when nobody does.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::redirect::Decisions;
use crate::running::{Capture, Running};

/// How often it is looked whether anybody follows.
const LOOK: Duration = Duration::from_secs(1);

/// Decisions handed out in one go, before others get their turn.
const BATCH: usize = 256;

/// Until weir stops.
pub(super) async fn hand_out(decisions: Decisions, running: Arc<Running>) -> io::Result<()> {
    let mut decisions = AsyncFd::register_with_interest(decisions, Interest::READABLE)?;
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            ready = decisions.readable_mut() => {
                let mut ready = ready?;
                let taken = (0..BATCH).map_while(|_| ready.get_inner_mut().take());
                // An error means that the last follower has just gone.
                let count = taken.map(|decision| drop(running.decisions.send(Arc::new(decision)))).count();
                if count < BATCH {
                    ready.clear_ready();
                }
                tokio::task::yield_now().await;
            }
            _ = look.tick() => rest(&running),
        }
    }
}

/// Followers subscribe before they lock, so none is missed.
fn rest(running: &Running) {
    if let Capture::On(redirect) = &mut *running.capture()
        && running.decisions.receiver_count() == 0
        && let Err(error) = redirect.tell_decisions(false)
    {
        tracing::debug!(%error, "the kernel half goes on telling its decisions");
    }
}
