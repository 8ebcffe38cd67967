//! Keeps the certificates that clients see up to date: their files are read again when they change.

use crate::tls::server::Acceptance;

/// Reads them again if a file has changed.
pub(super) fn look(acceptance: Option<&Acceptance>) {
    let Some(acceptance) = acceptance.filter(|acceptance| acceptance.is_outdated()) else { return };
    match acceptance.reload() {
        Ok(()) => tracing::info!("the certificates of server.tls were read again"),
        Err(error) => tracing::error!("the certificates of server.tls stay as they were: {error}"),
    }
}
