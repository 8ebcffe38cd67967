//! The policy while weir runs: it is read again on SIGHUP, and when one of its lists has changed.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::admin;
use crate::running::Running;

/// How often the lists are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Runs until it is aborted.
pub(super) fn keep_current(running: Arc<Running>) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        // A list that can't be read is not tried, and told of, again and again.
        let mut failed = false;
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            if !asked && (failed || !running.policy.latest().filtering.is_outdated()) {
                failed &= running.policy.latest().filtering.is_outdated();
                continue;
            }
            let reloaded = admin::reload_policy(&running).await;
            failed = reloaded.is_err();
            if let Err(error) = reloaded {
                tracing::error!("{error}");
            }
        }
    })
}
