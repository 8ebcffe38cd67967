//! From root to `server.user`, before anything is started.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use crate::config::{CaptureMode, Config, Identity, Sandbox};
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
    privilege::become_user(user, preparations)?;
    confine(config)
}

/// Confines this process and all that it will start. Without an assistant it has to look into other processes itself.
fn confine(config: &Config) -> Result<(), UserError> {
    let sandbox = config.server.sandbox;
    let is_wanted = match sandbox {
        Sandbox::Auto => !config.cli.enabled,
        Sandbox::On => true,
        Sandbox::Off => false,
    };
    if !is_wanted || privilege::assistant().is_none() {
        return Ok(());
    }
    for problem in privilege::confine(&writable(config)) {
        if sandbox == Sandbox::On {
            return Err(problem.into());
        }
        // The log has not begun.
        eprintln!("weir: {problem}");
    }
    Ok(())
}

/// The folders in which something is made or changed; those that there are.
fn writable(config: &Config) -> Vec<PathBuf> {
    let mut folders = vec![config.admin.state_dir.clone()];
    folders.extend(config.admin.socket_path().parent().map(PathBuf::from));
    if let Some(path) = &config.cache.disk.path {
        // What is wrong with it is told when the store is opened.
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(path);
        folders.push(path.clone());
    }
    folders.extend(config.tls.intercept.enabled.then(|| config.tls.intercept.folder.clone()));
    if config.capture.mode != CaptureMode::Off {
        folders.extend(Mount::find().ok().map(|mount| mount.point));
    }
    folders.retain(|folder| folder.exists());
    folders
}

/// Those that are shown to clients, and to servers.
fn identities(config: &Config) -> impl Iterator<Item = &Identity> {
    let served = &config.server.tls;
    let named = served.certificates.iter().map(|(_, identity)| identity);
    let shown =
        config.upstream.tls.destinations.iter().filter_map(|destination| destination.identity.as_ref());
    served.default.iter().chain(named).chain(shown)
}
