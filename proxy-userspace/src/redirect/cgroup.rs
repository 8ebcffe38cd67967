//! The cgroup v2 tree: where it is mounted, what the kernel calls a cgroup, and the cgroups weir makes for the
//! process trees it starts. Does not touch controllers or limits.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::error::RedirectError;
use crate::privilege::{self, Assistant};

/// What `bpf_get_current_cgroup_id()` says: the inode number of the cgroup's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct CgroupId(pub u64);

impl CgroupId {
    /// That of a directory, which must be a cgroup's.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn of(cgroup: &Path) -> io::Result<Self> {
        fs::metadata(cgroup).map(|metadata| Self(metadata.ino()))
    }
}

/// The mounted cgroup v2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Mount point: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host.
    pub point: PathBuf,
    /// Levels of the tree above the mount point that can be seen from here; nearly always 0.
    root_level: u32,
}

impl Mount {
    /// Finds the cgroup2 mount of this mount namespace.
    ///
    /// # Errors
    /// `NoCgroup2` if there is none.
    pub fn find() -> Result<Self, RedirectError> {
        let mounts = fs::read("/proc/self/mountinfo")
            .map_err(|source| RedirectError::Io { what: "can't read /proc/self/mountinfo", source })?;
        mounts.split(|&byte| byte == b'\n').find_map(parse_mount).ok_or(RedirectError::NoCgroup2)
    }

    /// Level of a cgroup in the tree as far as it can be seen from here; never more than its real level.
    pub(super) fn level(&self, cgroup: &Path) -> u32 {
        let below = cgroup.strip_prefix(&self.point).map_or(0, depth);
        self.root_level + below
    }
}

/// One line of mountinfo (proc_pid_mountinfo(5)): `id parent major:minor root point options ... - type source options`.
fn parse_mount(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let separator = fields.iter().position(|field| *field == b"-")?;
    if *fields.get(separator + 1)? != b"cgroup2" {
        return None;
    }
    let root = PathBuf::from(std::ffi::OsString::from_vec(unescape(fields.get(3)?)));
    let point = PathBuf::from(std::ffi::OsString::from_vec(unescape(fields.get(4)?)));
    Some(Mount { point, root_level: depth(&root) })
}

fn depth(path: &Path) -> u32 {
    path.components().filter(|part| matches!(part, Component::Normal(_))).count() as u32
}

/// mountinfo writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (*first, tail) {
            bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

/// An open cgroup directory.
#[derive(Debug)]
pub(super) struct Cgroup {
    pub(super) path: PathBuf,
    pub(super) dir: File,
    pub(super) id: CgroupId,
}

impl Cgroup {
    pub(super) fn open(path: &Path) -> Result<Self, RedirectError> {
        let unusable = |source| RedirectError::Cgroup { path: path.to_owned(), source };
        let path = fs::canonicalize(path).map_err(unusable)?;
        let dir = File::open(&path).map_err(unusable)?;
        let metadata = dir.metadata().map_err(unusable)?;
        if !metadata.is_dir() {
            return Err(unusable(io::ErrorKind::NotADirectory.into()));
        }
        let kind = statfs(&path).map_err(|errno| unusable(errno.into()))?.filesystem_type();
        if kind != CGROUP2_SUPER_MAGIC {
            return Err(RedirectError::NotCgroup2 { path });
        }
        Ok(Self { path, dir, id: CgroupId(metadata.ino()) })
    }
}

/// Folder of weir's own cgroups below the attach cgroup.
const OWN_FOLDER: &str = "weir";
const EXEC_PREFIX: &str = "exec-";
/// Most `weir exec` cgroups at one time.
const MAX_EXEC_CGROUPS: u32 = 4096;

/// A cgroup made for one `weir exec`: the command and everything it starts.
#[derive(Debug)]
pub struct ExecCgroup {
    path: PathBuf,
    id: CgroupId,
}

impl ExecCgroup {
    /// Makes `<parent>/weir/exec-<n>` with the first free n.
    ///
    /// # Errors
    /// `Cgroup` if it can't be made: no privilege, or too many exist.
    pub fn create(parent: &Path) -> Result<Self, RedirectError> {
        let folder = parent.join(OWN_FOLDER);
        let unusable = |source| RedirectError::Cgroup { path: folder.clone(), source };
        make_folder(&folder).map_err(unusable)?;
        let mut is_given = false;
        for number in 0..MAX_EXEC_CGROUPS {
            let path = folder.join(format!("{EXEC_PREFIX}{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Self::open(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // The folder went with the last of its children just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make_folder(&folder).map_err(unusable)?;
                }
                // It is root's: left by another weir.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_given => {
                    let given = privilege::assistant().map_or(Err(error), Assistant::make_exec_folder);
                    given.map_err(unusable)?;
                    is_given = true;
                }
                Err(error) => return Err(unusable(error)),
            }
        }
        Err(unusable(io::ErrorKind::QuotaExceeded.into()))
    }

    /// The `weir exec` cgroups that exist below `parent`, an earlier weir's included: to capture again, or to remove.
    ///
    /// # Errors
    /// `Cgroup` if the folder can't be read; none there is an empty list.
    pub fn existing(parent: &Path) -> Result<Vec<Self>, RedirectError> {
        let folder = parent.join(OWN_FOLDER);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(RedirectError::Cgroup { path: folder, source }),
        };
        let ours = entries
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(EXEC_PREFIX.as_bytes()));
        Ok(ours.filter_map(|entry| Self::open(entry.path()).ok()).collect())
    }

    fn open(path: PathBuf) -> Result<Self, RedirectError> {
        let id = Cgroup::open(&path)?.id;
        Ok(Self { path, id })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn id(&self) -> CgroupId {
        self.id
    }

    /// Moves a process, all its threads and its future children here.
    ///
    /// # Errors
    /// No such process, or no privilege.
    pub fn adopt(&self, pid: u32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// Whether a process lives here or below.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn is_populated(&self) -> io::Result<bool> {
        Ok(fs::read_to_string(self.path.join("cgroup.events"))?.lines().any(|line| line == "populated 1"))
    }

    /// The processes that live here or below.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        processes(&self.path)
    }

    /// `cgroup.events`, to wait for a change of `is_populated` without polling: the kernel signals POLLPRI on it
    /// after each change, once the file was read (`AsyncFd` with `Interest::PRIORITY`).
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn events(&self) -> io::Result<File> {
        File::open(self.path.join("cgroup.events"))
    }

    /// Blocks until no process is left here; false if some are left after `timeout`.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn wait_until_empty(&self, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut events = self.events()?;
            // Reading arms the notification; what changes from here on is signalled.
            if !io::read_to_string(&mut events)?.lines().any(|line| line == "populated 1") {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let mut watched = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            // Rounded up: a remainder below a millisecond must not become a busy loop.
            let wait = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut watched, wait) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Removes the cgroup, and weir's folder with its last child. One that is gone already is no error.
    ///
    /// # Errors
    /// `ResourceBusy` while processes live in it.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(folder) = self.path.parent() {
            // Not empty while others are captured: theirs to remove.
            let _ = fs::remove_dir(folder);
        }
        Ok(())
    }
}

/// The cgroup v2 directory of a process (cgroups(7): the line that begins with `0::`).
///
/// # Errors
/// There is no such process, or it is in no such cgroup.
pub fn cgroup_of(pid: u32, mount: &Mount) -> io::Result<PathBuf> {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let line = cgroups.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = line.ok_or_else(|| io::Error::other("it is in no cgroup of version 2"))?;
    Ok(mount.point.join(path))
}

/// The processes that live in a cgroup or below; none if it is gone.
#[must_use]
pub fn processes(cgroup: &Path) -> Vec<u32> {
    let listed = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = listed.lines().filter_map(|line| line.parse().ok()).collect();
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    pids.extend(below.flat_map(|entry| processes(&entry.path())));
    pids
}

/// Where only root may make it, the assistant does.
fn make_folder(path: &Path) -> io::Result<()> {
    match (make_dir(path), privilege::assistant()) {
        (Err(error), Some(assistant)) if error.kind() == io::ErrorKind::PermissionDenied => {
            assistant.make_exec_folder()
        }
        (made, _) => made,
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Option<(&str, u32)>) {
        let expected = expected.map(|(point, root_level)| Mount { point: point.into(), root_level });
        assert_eq!(parse_mount(line.as_bytes()), expected, "{line}");
    }

    #[test]
    fn finds_the_cgroup2_mount_of_unified_hybrid_and_bound_hierarchies() {
        check(
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw",
            Some(("/sys/fs/cgroup", 0)),
        );
        check(
            "41 30 0:38 / /sys/fs/cgroup/unified rw - cgroup2 none rw",
            Some(("/sys/fs/cgroup/unified", 0)),
        );
        check("41 30 0:38 /a/b /mnt/c\\040d rw - cgroup2 none rw", Some(("/mnt/c d", 2)));
        check("31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", None);
        check("", None);
        check("1 2 3 4 5 6 -", None);
    }

    #[test]
    fn counts_levels_below_the_mount() {
        let mount = Mount { point: "/sys/fs/cgroup".into(), root_level: 0 };
        assert_eq!(mount.level(Path::new("/sys/fs/cgroup")), 0);
        assert_eq!(mount.level(Path::new("/sys/fs/cgroup/a/b")), 2);
        assert_eq!(mount.level(Path::new("/elsewhere/a/b")), 0);
    }
}
