//! What only root is told of other users' processes: by /proc, or by the assistant.

use std::collections::HashSet;
use std::fs::{self, DirEntry, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use super::assistant::assistant;

/// What a process executes: a descriptor that tells which file that is, and can't be read.
///
/// # Errors
/// There is no such process, it has no executable (kernel threads), or it is somebody else's.
pub fn executable(pid: u32) -> io::Result<File> {
    match assistant() {
        Some(assistant) => assistant.executable(pid),
        None => open_executable(pid),
    }
}

/// Inode numbers of a process's sockets, each once.
///
/// # Errors
/// As [`executable`].
pub fn sockets(pid: u32) -> io::Result<HashSet<u64>> {
    match assistant() {
        Some(assistant) => assistant.sockets(pid).map(HashSet::from_iter),
        None => open_sockets(pid),
    }
}

pub(super) fn open_executable(pid: u32) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(format!("/proc/{pid}/exe"))
}

pub(super) fn open_sockets(pid: u32) -> io::Result<HashSet<u64>> {
    let inode = |entry: DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().filter_map(inode).collect())
}
