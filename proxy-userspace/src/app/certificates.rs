//! Keeps the certificates that clients see up to date: their files are read again when they change, and on SIGHUP.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::tls::server::Acceptance;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Runs until it is aborted.
pub(super) fn keep_current(
    acceptance: Option<Arc<Acceptance>>,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            if let Some(acceptance) = &acceptance
                && (asked || acceptance.is_outdated())
            {
                match acceptance.reload() {
                    Ok(()) => tracing::info!("the certificates of server.tls were read again"),
                    Err(error) => {
                        tracing::error!("the certificates of server.tls stay as they were: {error}");
                    }
                }
            }
        }
    })
}
