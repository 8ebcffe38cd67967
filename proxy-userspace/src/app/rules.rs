//! The rules while weir runs: what they name is looked for again, and SIGHUP reads them again.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use crate::admin;
use crate::running::{Capture, Running};

/// How long a cgroup or executable that a rule names may be there unnoticed.
const REFRESH: Duration = Duration::from_millis(500);

pub(super) async fn refresh(running: Arc<Running>) {
    let mut failing = false;
    loop {
        tokio::time::sleep(REFRESH).await;
        let refreshed = match &*running.capture() {
            Capture::On(redirect) => redirect.refresh_rules(),
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

pub(super) async fn reload_on_hangup(mut hangup: Signal, running: Arc<Running>) {
    while hangup.recv().await.is_some() {
        if let Err(error) = admin::reload_rules(&running).await {
            tracing::error!("SIGHUP: {error}");
        }
    }
}
