//! What capturing needs of this machine, asked one by one: for `weir doctor`, and before loading.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs;
use std::path::Path;

use crate::config;

use super::cgroup::{Cgroup, Mount};
use super::error::RedirectError;
use super::hooks::HOOKS;
use super::{hold, sys};

/// First kernel on which all hooks and helpers exist (the youngest: the sock_release hook, 5.9).
pub const OLDEST_KERNEL: Kernel = Kernel { major: 5, minor: 10 };

/// First kernel whose programs can choose the errno of a refused connect() (`bpf_set_retval`).
const SET_RETVAL_KERNEL: Kernel = Kernel { major: 5, minor: 18 };

/// First kernel that tells userspace a network namespace's cookie (`SO_NETNS_COOKIE`).
const NETNS_COOKIE_KERNEL: Kernel = Kernel { major: 5, minor: 14 };

/// Capability numbers of linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// The initial pid namespace's inode number, a constant of the kernel (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel {
    pub major: u32,
    pub minor: u32,
}

impl Kernel {
    /// The running kernel; None if its release can't be read.
    pub fn running() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
    }

    fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One thing asked.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was found, and what to do if that's not good.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Capture works, with a limit.
    Limited,
    /// Capture can't work.
    Bad,
}

/// Asks everything, changes nothing.
pub fn probe(capture: &config::Capture, state_dir: &Path) -> Vec<Check> {
    let mut checks = vec![
        from_result("kernel half", in_build().map(|()| "in this build".to_owned())),
        check_kernel(),
        check_btf(),
        from_result("privilege", privilege().map(|()| "CAP_BPF and CAP_NET_ADMIN".to_owned())),
        from_result("pid namespace", pid_namespace().map(|()| "the initial one".to_owned())),
        check_namespaces(),
    ];
    match attach_cgroup(capture) {
        Ok((mount, cgroup)) => {
            let detail = format!("{} (cgroup2 at {})", cgroup.path.display(), mount.point.display());
            checks.push(Check { name: "cgroup", verdict: Verdict::Good, detail });
            checks.push(check_foreign(&mount, &cgroup));
            checks.push(check_holder(state_dir, &cgroup));
        }
        Err(error) => checks.push(Check { name: "cgroup", verdict: Verdict::Bad, detail: error.to_string() }),
    }
    checks
}

/// The attach cgroup: the configured one, or the root of the mount.
pub(super) fn attach_cgroup(capture: &config::Capture) -> Result<(Mount, Cgroup), RedirectError> {
    let mount = Mount::find()?;
    let cgroup = Cgroup::open(capture.cgroup.as_deref().unwrap_or(&mount.point))?;
    Ok((mount, cgroup))
}

pub(super) fn in_build() -> Result<(), RedirectError> {
    if cfg!(weir_kernel_half) { Ok(()) } else { Err(RedirectError::NotInBuild) }
}

/// An unreadable release is left for the kernel to judge.
pub(super) fn kernel() -> Result<(), RedirectError> {
    match Kernel::running() {
        Some(found) if found < OLDEST_KERNEL => Err(RedirectError::KernelTooOld { found }),
        _ => Ok(()),
    }
}

pub(super) fn privilege() -> Result<(), RedirectError> {
    let effective = effective_capabilities()?;
    let has = |capability: u32| effective & (1 << capability | 1 << CAP_SYS_ADMIN) != 0;
    match (has(CAP_BPF), has(CAP_NET_ADMIN)) {
        (true, true) => Ok(()),
        (true, false) => Err(RedirectError::NoPrivilege { missing: "CAP_NET_ADMIN is" }),
        (false, true) => Err(RedirectError::NoPrivilege { missing: "CAP_BPF is" }),
        (false, false) => Err(RedirectError::NoPrivilege { missing: "CAP_BPF and CAP_NET_ADMIN are" }),
    }
}

/// The programs see process ids of the initial pid namespace.
fn effective_capabilities() -> Result<u64, RedirectError> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|source| RedirectError::Io { what: "can't read /proc/self/status", source })?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    Ok(effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
}

pub(super) fn pid_namespace() -> Result<(), RedirectError> {
    match fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link != Path::new(INITIAL_PID_NAMESPACE) => Err(RedirectError::PidNamespace),
        _ => Ok(()),
    }
}

/// The nearest cgroup, from `cgroup` upwards, with an exclusive program on a hook: attaching there must fail.
pub(super) fn exclusive_program(
    mount: &Mount,
    cgroup: &Path,
    attach_type: u32,
) -> Option<(std::path::PathBuf, Vec<u32>)> {
    let below_mount = cgroup.ancestors().take_while(|path| path.starts_with(&mount.point));
    for path in below_mount {
        let Ok(open) = Cgroup::open(path) else { continue };
        let Ok(attached) = sys::attached_programs(std::os::fd::AsFd::as_fd(&open.dir), attach_type) else {
            continue;
        };
        // Below a program that may be overridden others are allowed, and run in its place.
        let tolerant =
            if path == cgroup { sys::ATTACH_MULTI } else { sys::ATTACH_MULTI | sys::ATTACH_OVERRIDE };
        if !attached.program_ids.is_empty() && attached.flags & tolerant == 0 {
            return Some((open.path, attached.program_ids));
        }
    }
    None
}

fn check_kernel() -> Check {
    let found = Kernel::running().map_or_else(|| "unknown".to_owned(), |kernel| kernel.to_string());
    match kernel() {
        Ok(()) if Kernel::running() < Some(SET_RETVAL_KERNEL) => Check {
            name: "kernel",
            verdict: Verdict::Limited,
            detail: format!("Linux {found}; a refused connect() gives EPERM before {SET_RETVAL_KERNEL}"),
        },
        Ok(()) => Check { name: "kernel", verdict: Verdict::Good, detail: format!("Linux {found}") },
        Err(error) => Check { name: "kernel", verdict: Verdict::Bad, detail: error.to_string() },
    }
}

/// Containers have network namespaces of their own.
fn check_namespaces() -> Check {
    let limited = |detail: &str| (Verdict::Limited, detail.to_owned());
    let knows_cookies = Kernel::running().is_none_or(|kernel| kernel >= NETNS_COOKIE_KERNEL);
    let (verdict, detail) = match effective_capabilities() {
        _ if !knows_cookies => {
            limited("weir can only capture in its own: Linux 5.14 is the first to tell them apart")
        }
        Ok(effective) if effective & 1 << CAP_SYS_ADMIN == 0 => limited(
            "weir can only capture in its own: to enter others', containers' too, takes CAP_SYS_ADMIN",
        ),
        Err(error) => limited(&error.to_string()),
        Ok(_) => (Verdict::Good, "all can be entered".to_owned()),
    };
    Check { name: "namespaces", verdict, detail }
}

fn check_btf() -> Check {
    let present = Path::new("/sys/kernel/btf/vmlinux").exists();
    let detail = if present { "present" } else { "absent; the kernel half does not need it" };
    Check { name: "BTF", verdict: Verdict::Good, detail: detail.to_owned() }
}

fn check_foreign(mount: &Mount, cgroup: &Cgroup) -> Check {
    let exclusive = HOOKS.iter().find_map(|hook| {
        let (path, programs) = exclusive_program(mount, &cgroup.path, hook.attach_type)?;
        Some(RedirectError::ForeignProgram { cgroup: path, hook: hook.name, programs })
    });
    match exclusive {
        None => {
            Check { name: "foreign programs", verdict: Verdict::Good, detail: "none in the way".to_owned() }
        }
        Some(error) => Check { name: "foreign programs", verdict: Verdict::Bad, detail: error.to_string() },
    }
}

fn check_holder(state_dir: &Path, cgroup: &Cgroup) -> Check {
    let (verdict, detail) = match hold::of_dead_weir(&hold::socket(state_dir, cgroup.id)) {
        None => (Verdict::Good, "none that a dead weir left".to_owned()),
        Some(left) => (Verdict::Limited, left.to_string()),
    };
    Check { name: "holder", verdict, detail }
}

fn from_result(name: &'static str, result: Result<String, RedirectError>) -> Check {
    match result {
        Ok(detail) => Check { name, verdict: Verdict::Good, detail },
        Err(error) => Check { name, verdict: Verdict::Bad, detail: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kernel_releases() {
        let kernel = |major, minor| Some(Kernel { major, minor });
        assert_eq!(Kernel::parse("6.18.44-fc-v669\n"), kernel(6, 18));
        assert_eq!(Kernel::parse("5.10.0-35-amd64"), kernel(5, 10));
        assert_eq!(Kernel::parse("7.2-rc1"), kernel(7, 2));
        assert_eq!(Kernel::parse("generic"), None);
        assert!(Kernel::parse("5.9.16") < Some(OLDEST_KERNEL));
    }
}
