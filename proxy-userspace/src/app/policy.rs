//! The policy while weir runs: it is read again on SIGHUP, and when one of its lists has changed; contexts whose time is
//! over are released.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::admin;
use crate::running::Running;

/// How often the lists are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How long a context may outlive its time; it is nobody's meanwhile.
const SWEEP: Duration = Duration::from_secs(1);

/// Runs until it is aborted.
pub(super) fn keep_current(running: Arc<Running>) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        // A list that can't be read is not tried, and told of, again and again.
        let mut failed = false;
        let mut next_look = Instant::now() + LOOK;
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(SWEEP) => false,
            };
            running.auth.contexts.sweep(running.policy.latest().auth.release_grace);
            if !asked && Instant::now() < next_look {
                continue;
            }
            next_look = Instant::now() + LOOK;
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
