//! One weir per attach cgroup: the kernel would run the programs of two, one after the other, without complaint.
//! The lock is an flock of the cgroup's directory: it goes with the process, and leaves no file behind.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::cgroup::Cgroup;
use super::error::RedirectError;

/// Held while it lives.
#[derive(Debug)]
pub(super) struct InstanceLock {
    _flock: Flock<File>,
}

impl InstanceLock {
    pub(super) fn acquire(cgroup: &Cgroup) -> Result<Self, RedirectError> {
        // A description of its own: an flock belongs to the open file description.
        let dir = File::open(&cgroup.path)
            .map_err(|source| RedirectError::Cgroup { path: cgroup.path.clone(), source })?;
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(flock) => Ok(Self { _flock: flock }),
            Err((dir, Errno::EWOULDBLOCK)) => {
                Err(RedirectError::AlreadyRunning { cgroup: cgroup.path.clone(), holder: holder(&dir) })
            }
            Err((_, errno)) => Err(RedirectError::Cgroup { path: cgroup.path.clone(), source: errno.into() }),
        }
    }
}

/// Who holds the lock, as far as /proc/locks shows it: `1: FLOCK  ADVISORY  WRITE 4242 00:1a:17 0 EOF`.
fn holder(dir: &File) -> Option<u32> {
    let inode = dir.metadata().ok()?.ino();
    let device = nix::sys::stat::fstat(dir).ok()?.st_dev;
    let file = format!("{:02x}:{:02x}:{inode}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let held = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&file.as_str());
        held.then(|| fields[4].parse().ok()).flatten()
    })
}
