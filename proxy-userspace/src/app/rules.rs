//! The kernel half while weir runs: what the rules name is looked for again, and what was detached is attached again.

use std::sync::Arc;
use std::time::Duration;

use crate::redirect::Repaired;
use crate::running::{Capture, Running};

/// How long a cgroup or executable that a rule names may be there unnoticed, and a program be detached.
const REFRESH: Duration = Duration::from_millis(500);

pub(super) async fn refresh(running: Arc<Running>) {
    let mut failing = false;
    loop {
        tokio::time::sleep(REFRESH).await;
        let refreshed = match &mut *running.capture() {
            Capture::On(redirect) => redirect.repair().map(tell).and_then(|()| redirect.refresh_rules()),
            _ => Ok(()),
        };
        if let Err(error) = &refreshed
            && !failing
        {
            tracing::warn!("{error}");
        }
        failing = refreshed.is_err();
    }
}

fn tell(repaired: Repaired) {
    match repaired {
        Repaired::Nothing => {}
        Repaired::Programs => {
            tracing::warn!("somebody detached weir's programs; they are attached again");
        }
        Repaired::Cgroup => {
            tracing::warn!("the attach cgroup was removed and made again; weir is attached to it");
        }
    }
}
