//! One weir per attach cgroup: the kernel would run the programs of two, one after the other, without complaint.
//! The lock is an flock of the cgroup's directory: it goes with the process, and leaves no file behind.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::cgroup::Cgroup;
use super::error::RedirectError;

/// Held while it lives.
#[derive(Debug)]
pub(super) struct InstanceLock {
    flock: Flock<File>,
}

impl InstanceLock {
    /// The lock of a running weir, which hands it over: that one and this share it, as it belongs to the open file
    /// description. If it is another cgroup's, this one's is acquired.
    pub(super) fn adopt(lock: OwnedFd, cgroup: &Cgroup) -> Result<Self, RedirectError> {
        let dir = File::from(lock);
        let is_same = dir.metadata().is_ok_and(|metadata| metadata.ino() == cgroup.id.0);
        if !is_same {
            return Self::acquire(cgroup);
        }
        Self::lock(dir, cgroup)
    }

    /// Another descriptor of it.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.flock.as_fd().try_clone_to_owned()
    }

    pub(super) fn acquire(cgroup: &Cgroup) -> Result<Self, RedirectError> {
        // A description of its own: an flock belongs to the open file description.
        let dir = File::open(&cgroup.path)
            .map_err(|source| RedirectError::Cgroup { path: cgroup.path.clone(), source })?;
        Self::lock(dir, cgroup)
    }

    fn lock(dir: File, cgroup: &Cgroup) -> Result<Self, RedirectError> {
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(flock) => Ok(Self { flock }),
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
