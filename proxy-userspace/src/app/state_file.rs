//! `<state_dir>/state.json`: where a running weir is to be found.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::running::Running;

/// The file of a running weir; removed when dropped.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
}

/// Why the file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("can't write {}: {error}; set admin.state_dir to a folder that weir may write to", .path.display())]
pub struct StateError {
    path: PathBuf,
    error: io::Error,
}

impl StateFile {
    pub(super) fn write(running: &Running) -> Result<Self, StateError> {
        let live = running.live();
        let admin = &live.config.admin;
        let path = admin.state_dir.join(NAME);
        let system = running.system_proxy.state().configured;
        let state = serde_json::json!({
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "proxy": live.proxy,
            "proxy_url": live.proxy.map(|proxy| format!("http://{proxy}")),
            "admin": running.admin,
            "admin_socket": admin.socket_path(),
            "system_proxy_configured": system.is_some(),
            "system_proxy_interface": system.and_then(|system| system.interface),
        });
        match replace(&path, format!("{state:#}\n").as_bytes()) {
            Ok(()) => Ok(Self { path }),
            Err(error) => Err(StateError { path, error }),
        }
    }
}

impl StateFile {
    /// Leaves the file to the weir that has taken this one's place.
    pub(super) fn leave(mut self) {
        self.path.clear();
    }
}

const NAME: &str = "state.json";

/// Says what has changed in it. It is removed by the one that has written it first.
pub(super) fn write_again(running: &Running) -> Result<(), StateError> {
    StateFile::write(running).map(StateFile::leave)
}

/// Says where to find the weir that has taken another's place. That serves already: it goes on without.
pub(super) fn replace_old(running: &Running) -> Option<StateFile> {
    let written = StateFile::write(running);
    written.inspect_err(|error| tracing::warn!("{error}")).ok()
}

impl Drop for StateFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// A reader sees the old file or the new one, never half of it.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = fs::File::create(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}
