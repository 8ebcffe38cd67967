//! cgroups for tests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::weir::SOON;

/// A cgroup for one test; the weir that captures in it removes it.
pub fn new_cgroup() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("weir-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = cgroup2_mount().join(name);
    std::fs::create_dir(&path).expect("this test needs root: run `cargo xtask test`");
    path
}

/// Where cgroup v2 is mounted.
pub fn cgroup2_mount() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc");
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(point))
    });
    mount.expect("cgroup v2 is mounted")
}

/// Removes a cgroup and those below it, once the programs in them have ended.
pub fn remove_cgroups(cgroup: &Path) {
    let _ = std::fs::write(cgroup.join("cgroup.kill"), "1");
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroups(&entry.path());
        }
    }
    let deadline = Instant::now() + SOON;
    while std::fs::remove_dir(cgroup).is_err() && cgroup.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}
