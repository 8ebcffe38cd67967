//! Files that are changed as a whole, and given back byte for byte. What was there before is kept under a name beside it
//! (a second link to the same file), so that to restore it takes no room on a full disk, and gives back its times and
//! attributes as well.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};

use super::backend::{Backend, FileChange};
use super::session::Session;

/// Larger ones are no settings.
const MOST: u64 = 1 << 20;

/// A file as it is now.
pub(super) struct Found {
    path: PathBuf,
    before: Option<Vec<u8>>,
    mode: u32,
    is_users: bool,
    folders: Vec<PathBuf>,
}

/// What has become of a file.
pub(super) enum Outcome {
    Restored,
    /// Somebody else has changed it, and that was kept.
    Kept(String),
}

/// Reads it, or sees that it is not there. A link is followed, and stays.
pub(super) fn read(path: &Path, session: &Session, is_users: bool) -> Result<Found, String> {
    let found = as_owner(session, is_users, || {
        let path = match fs::symlink_metadata(path) {
            Ok(about) if about.is_symlink() => fs::canonicalize(path)?,
            _ => path.to_owned(),
        };
        let before = content(&path)?;
        let mode = fs::metadata(&path).map_or(0o644, |about| about.mode() & 0o7777);
        let missing = path.ancestors().skip(1).take_while(|folder| !folder.exists());
        let mut folders: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
        folders.reverse();
        Ok(Found { path, before, mode, is_users, folders })
    });
    found.map_err(|error| format!("{}: {error}", path.display()))
}

impl Found {
    pub(super) fn text(&self) -> Result<&str, String> {
        let text = std::str::from_utf8(self.before.as_deref().unwrap_or_default());
        text.map_err(|_| format!("{} is not UTF-8, and weir leaves it as it is", self.path.display()))
    }

    pub(super) fn changed(self, ours: Vec<u8>) -> FileChange {
        let Self { path, before, mode, is_users, folders } = self;
        FileChange { path, before, ours: Some(ours), mode, is_users, folders, lines: Vec::new() }
    }
}

/// Makes it weir's, if it is as it was when that was planned.
pub(super) fn apply(change: &FileChange, session: &Session) -> Result<(), String> {
    let done = as_owner(session, change.is_users, || {
        if content(&change.path)? != change.before {
            return Err(io::Error::other("somebody has changed it at this moment; try again"));
        }
        for folder in &change.folders {
            match DirBuilder::new().mode(0o755).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        if change.before.is_some() {
            let kept = beside(&change.path, KEPT);
            remove(&kept)?;
            // Where that is not possible, the content that is written down has to do.
            let _ = fs::hard_link(&change.path, kept);
        }
        write(&change.path, change.ours.as_deref().unwrap_or_default(), change.mode)
    });
    done.map_err(|error| format!("{}: {error}", change.path.display()))
}

/// Gives it back, or takes out of it what is weir's.
pub(super) fn restore(
    change: &FileChange,
    backend: &dyn Backend,
    session: &Session,
) -> Result<Outcome, String> {
    let path = &change.path;
    let done = as_owner(session, change.is_users, || {
        let kept = beside(path, KEPT);
        remove(&beside(path, FRESH))?;
        let current = content(path)?;
        let outcome = if current == change.before {
            Outcome::Restored
        } else if current == change.ours {
            match &change.before {
                Some(before) if content(&kept)?.as_ref() == Some(before) => fs::rename(&kept, path)?,
                Some(before) => write(path, before, change.mode)?,
                None => remove(path)?,
            }
            Outcome::Restored
        } else if let Some(current) = current {
            let without = backend.without_ours(&current, change);
            if change.before.is_none() && without.trim_ascii().is_empty() {
                remove(path)?;
            } else if without != current {
                write(path, &without, change.mode)?;
            }
            Outcome::Kept(format!(
                "{} was changed by somebody else meanwhile; that was kept, and what is weir's was taken out of it",
                path.display()
            ))
        } else {
            Outcome::Kept(format!("{} was removed by somebody else meanwhile; that was kept", path.display()))
        };
        remove(&kept)?;
        if change.before.is_none() {
            // Others may have put something there.
            change.folders.iter().rev().take_while(|folder| fs::remove_dir(folder).is_ok()).for_each(drop);
        }
        sync_folder(path);
        Ok(outcome)
    });
    done.map_err(|error| format!("{}: {error}", path.display()))
}

/// A file that takes the other one's place at once.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let fresh = beside(path, FRESH);
    remove(&fresh)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let written = file.write_all(bytes).and_then(|()| {
        if let Ok(about) = fs::metadata(path) {
            let is_other = (about.uid(), about.gid()) != file.metadata().map(|own| (own.uid(), own.gid()))?;
            if is_other {
                fchown(&file, Some(about.uid()), Some(about.gid()))?;
            }
            file.set_permissions(Permissions::from_mode(about.mode() & 0o7777))?;
        } else {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.sync_all()?;
        fs::rename(&fresh, path)
    });
    if written.is_err() {
        // What is left of it is of no use, and may fill the disk.
        let _ = fs::remove_file(&fresh);
    }
    sync_folder(path);
    written
}

/// Names beside a file: what it was, and what it is about to be.
const KEPT: &str = "weir-original";
const FRESH: &str = "weir-new";

fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // A FIFO would block.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let about = file.metadata()?;
    if !about.is_file() || about.len() > MOST {
        return Err(io::Error::other("it is no file of settings"));
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// So that a name outlives a power failure. Not all file systems can.
fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent() {
        let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
    }
}

fn as_owner<T>(session: &Session, is_users: bool, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if is_users { session.as_user(work) } else { work() }
}
