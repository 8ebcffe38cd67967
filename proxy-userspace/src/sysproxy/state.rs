//! `state.json`: what is to be restored. It is there before anything is changed, and goes when all is given back.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::backend::Change;
use super::files;
use super::session::Session;

/// All that is needed to restore it, whoever does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Snapshot {
    /// False in no file: one that says so is removed.
    pub(super) system_proxy_configured: bool,
    pub(super) system_proxy_interface: Option<String>,
    pub(super) proxy_target: String,
    pub(super) original_state: Value,
    pub(super) session: Session,
    /// In the order in which they are made.
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) backend: String,
    pub(super) change: Change,
}

/// Whoever has it is the only one that changes settings with this folder. Released when dropped, and by death.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "it is held, not looked at")] Flock<fs::File>);

/// How often it is looked whether a lock is free.
const LOOK: Duration = Duration::from_millis(20);

/// Waits so long for whoever has it.
///
/// # Errors
/// It is still held (`WouldBlock`), or the folder can't be written to.
pub(super) fn lock(folder: &Path, patience: Duration) -> io::Result<Lock> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let deadline = Instant::now() + patience;
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).mode(0o600).open(folder.join("state.lock"))?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                // Programs that this process starts have it, too: one that outlives it can still change something.
                fcntl(&*lock, FcntlArg::F_SETFD(FdFlag::empty()))?;
                return Ok(Lock(lock));
            }
            Err((_, errno)) if Instant::now() >= deadline => return Err(errno.into()),
            Err((again, _)) => file = again,
        }
        std::thread::sleep(LOOK);
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("state.json")
}

pub(super) fn is_there(folder: &Path) -> bool {
    path(folder).exists()
}

/// What an earlier weir has left.
///
/// # Errors
/// It can't be read, or is not what weir has written.
pub(super) fn load(folder: &Path) -> Result<Option<Snapshot>, String> {
    let path = path(folder);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| format!("{}: {error}", path.display()))?,
    };
    let read = serde_json::from_slice(&text);
    read.map(Some).map_err(|error| {
        format!("{} is damaged ({error}): what it was to restore is not known; move it away", path.display())
    })
}

/// # Errors
/// It is not on the disk: nothing may be changed then.
pub(super) fn save(folder: &Path, snapshot: &Snapshot) -> Result<(), String> {
    let path = path(folder);
    let text = serde_json::to_vec_pretty(snapshot).map_err(|error| error.to_string())?;
    // It may hold a docker client's credentials.
    files::write(&path, &text, 0o600)
        .map_err(|error| format!("what is to be restored can't be written to {}: {error}", path.display()))
}

/// # Errors
/// It is there still.
pub(super) fn forget(folder: &Path) -> Result<(), String> {
    let path = path(folder);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", path.display())),
        _ => Ok(()),
    }
}
