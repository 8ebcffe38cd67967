//! `<state_dir>/state.json`: where a running weir is to be found.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::Running;
use crate::admin;

/// The file of a running weir; removed when dropped.
#[derive(Debug)]
pub struct StateFile {
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
    pub(super) fn write(
        folder: &Path,
        running: &Running,
        admin: &admin::Listeners,
    ) -> Result<Self, StateError> {
        let path = folder.join("state.json");
        let state = serde_json::json!({
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "proxy": running.proxy,
            "proxy_url": format!("http://{}", running.proxy),
            "admin": admin.address(),
            "admin_socket": admin.socket(),
        });
        match replace(&path, format!("{state:#}\n").as_bytes()) {
            Ok(()) => Ok(Self { path }),
            Err(error) => Err(StateError { path, error }),
        }
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the state folder, for its owner and group alone to change.
///
/// # Errors
/// What mkdir(2) says.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)
}

/// A reader sees the old file or the new one, never half of it.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = fs::File::create(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}
