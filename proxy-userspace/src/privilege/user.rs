//! From root to an ordinary user, for good.

use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown, lchown};
use std::path::{Path, PathBuf};

use nix::sys::prctl;
use nix::unistd::{Uid, User, geteuid, initgroups, setresgid, setresuid};

use super::assistant::{self, Duties};
use super::capabilities::{self, KEPT};
use super::sandbox::SandboxError;

/// Why weir can't be that user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error(
        "server.user: there is no user `{0}` on this host; make it (`useradd --system {0}`), or set it to none"
    )]
    Unknown(String),
    #[error("server.user: the user database can't be read: {0}")]
    Database(io::Error),
    #[error("server.user: weir would have to be started by root, or by that user, to become `{0}`")]
    NotRoot(String),
    #[error("server.user: `{0}` is root; name an ordinary user, or set it to none")]
    Root(String),
    #[error("server.user: the assistant, which enters network namespaces, can't be started: {0}")]
    Assistant(io::Error),
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    #[error("server.user: can't become `{user}`: {error}")]
    Change { user: String, error: io::Error },
    #[error(
        "{key}: {} belongs to user {owner}, and other things are in it; give it to `{user}` (chown), or \
         choose another", .path.display()
    )]
    Folder { key: &'static str, path: PathBuf, owner: u32, user: String },
    #[error("{key}: {}: {error}", .path.display())]
    FolderFailed { key: &'static str, path: PathBuf, error: io::Error },
}

/// What is to be done while weir is root.
#[derive(Debug, Default)]
pub struct Preparations {
    pub state_dir: PathBuf,
    /// The folder of weir's certificate authority, if there is to be one.
    pub authority: Option<PathBuf>,
    /// The attach cgroup, if anything is captured.
    pub cgroup: Option<PathBuf>,
    /// Files that only root may be able to read.
    pub files: Vec<PathBuf>,
}

/// Makes this process the user's, with no more than [`KEPT`]. It must have no thread yet that needs any privilege.
///
/// # Errors
/// [`UserError`]; then weir had better not go on.
pub fn become_user(name: &str, preparations: Preparations) -> Result<(), UserError> {
    let user = find(name)?;
    if geteuid() == user.uid {
        // An earlier weir, or a supervisor, has seen to it.
        return Ok(());
    }
    if !geteuid().is_root() {
        return Err(UserError::NotRoot(name.to_owned()));
    }
    give_folder("admin.state_dir", &preparations.state_dir, &user)?;
    if let Some(folder) = &preparations.authority {
        give_authority(folder, &user)?;
    }
    let duties = Duties {
        user: user.uid.as_raw(),
        group: user.gid.as_raw(),
        cgroup: preparations.cgroup,
        files: preparations.files,
    };
    assistant::start(&duties).map_err(UserError::Assistant)?;
    change(&user).map_err(|error| UserError::Change { user: name.to_owned(), error })
}

/// Whether there is such an ordinary user.
///
/// # Errors
/// [`UserError`]
pub fn check_user(name: &str) -> Result<(), UserError> {
    find(name).map(drop)
}

fn find(name: &str) -> Result<User, UserError> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    let user = found.map_err(|errno| UserError::Database(errno.into()))?;
    let user = user.ok_or_else(|| UserError::Unknown(name.to_owned()))?;
    if user.uid.is_root() { Err(UserError::Root(name.to_owned())) } else { Ok(user) }
}

fn change(user: &User) -> io::Result<()> {
    let name = CString::new(user.name.as_str())?;
    initgroups(&name, user.gid)?;
    setresgid(user.gid, user.gid, user.gid)?;
    // The C library has all threads follow (nptl(7)); only this one, and those it will start, keep capabilities.
    prctl::set_keepcaps(true)?;
    capabilities::bound(&KEPT).map_err(io::Error::other)?;
    setresuid(user.uid, user.uid, user.uid)?;
    // They are permitted still, but no longer in effect.
    capabilities::hold(&KEPT).map_err(io::Error::other)?;
    prctl::set_no_new_privs()?;
    // The kernel hides the /proc files of a process that was another user's, from itself, too.
    prctl::set_dumpable(true)?;
    Ok(())
}

/// Makes the folder for weir's state, or gives the user one that root's weir has left.
fn give_folder(key: &'static str, path: &Path, user: &User) -> Result<(), UserError> {
    let failed = |error| UserError::FolderFailed { key, path: path.to_owned(), error };
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed)?;
    let owner = fs::metadata(path).map_err(failed)?.uid();
    if owner == user.uid.as_raw() {
        return Ok(());
    }
    let mut entries = fs::read_dir(path).map_err(failed)?.flatten();
    if owner != 0 || entries.any(|entry| !is_ours(&entry.file_name().to_string_lossy())) {
        return Err(UserError::Folder { key, path: path.to_owned(), owner, user: user.name.clone() });
    }
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(failed)
}

/// The same for the certificate authority, which root's weir may have made.
fn give_authority(folder: &Path, user: &User) -> Result<(), UserError> {
    const KEY: &str = "tls.intercept.folder";
    give_folder(KEY, folder, user)?;
    for name in AUTHORITY {
        let path = folder.join(name);
        match lchown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(UserError::FolderFailed { key: KEY, path, error });
            }
            _ => {}
        }
    }
    Ok(())
}

const AUTHORITY: [&str; 2] = ["ca.pem", "ca.crt"];

fn is_ours(name: &str) -> bool {
    AUTHORITY.contains(&name)
        || matches!(name, "state.json" | "state.new" | "admin.sock")
        || name.starts_with("hold-") && name.ends_with(".sock")
}
