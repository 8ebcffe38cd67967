//! From root to `server.user`, before anything is started.

use crate::config::{CaptureMode, Config, Identity};
use crate::privilege::{self, Preparations, UserError};
use crate::redirect::Mount;

/// Becomes the user that the configuration wants. What weir holds is for itself: programs that it runs get nothing.
///
/// # Errors
/// [`UserError`]
pub fn give_up_privileges(config: &Config) -> Result<(), UserError> {
    if let Err(error) = privilege::keep_to_oneself() {
        // Before Linux 4.3 there is nothing to keep.
        eprintln!("weir: programs that weir runs may get its capabilities: {error}");
    }
    let Some(user) = &config.server.user else { return Ok(()) };
    let cgroup = match config.capture.mode {
        CaptureMode::Off => None,
        _ => config.capture.cgroup.clone().or_else(|| Mount::find().ok().map(|mount| mount.point)),
    };
    let files = identities(config).flat_map(|identity| [identity.certificate.clone(), identity.key.clone()]);
    let intercept = &config.tls.intercept;
    let preparations = Preparations {
        state_dir: config.admin.state_dir.clone(),
        authority: intercept.enabled.then(|| intercept.folder.clone()),
        cgroup,
        files: files.collect(),
    };
    privilege::become_user(user, preparations)
}

/// Those that are shown to clients, and to servers.
fn identities(config: &Config) -> impl Iterator<Item = &Identity> {
    let served = &config.server.tls;
    let named = served.certificates.iter().map(|(_, identity)| identity);
    let shown =
        config.upstream.tls.destinations.iter().filter_map(|destination| destination.identity.as_ref());
    served.default.iter().chain(named).chain(shown)
}
