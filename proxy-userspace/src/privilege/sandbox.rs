//! What weir may not do any more once it is an ordinary user with an assistant (`server.sandbox`): write anywhere but in
//! its own folders, look into other processes (Landlock), and make system calls that a proxy has no use for (seccomp).
//!
//! Both are for good, and for whatever weir starts from then on: the weir that takes over from this one is confined as
//! this one is. What is read is not confined, nor what is run: files of the configuration may be anywhere, and a new
//! weir, too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use landlock::{
    ABI, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};
use serde::{Deserialize, Serialize};

/// What holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Landlock: what may be written, and that no process may be looked into.
    pub files: bool,
    /// seccomp: which system calls there are.
    pub calls: bool,
}

/// Why it does not.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error(
        "server.sandbox: files can't be confined: {0} (Landlock takes Linux 5.19, and `landlock` among its LSMs)"
    )]
    Files(RulesetError),
    #[error("server.sandbox: {}: {error}", .path.display())]
    Folder { path: PathBuf, error: landlock::PathFdError },
    #[error("server.sandbox: system calls can't be confined: {0}")]
    Calls(String),
}

static HOLDS: OnceLock<Confinement> = OnceLock::new();

/// What holds for this process.
#[must_use]
pub fn confinement() -> Confinement {
    HOLDS.get().copied().unwrap_or_default()
}

/// What holds already, as the weir that started this one says.
pub fn inherit(confinement: Confinement) {
    // Nobody has said anything before.
    let _ = HOLDS.set(confinement);
}

/// Confines this thread and those that it will start; there must be no other. `writable`: folders that there are.
/// As much as the kernel can; what it can't is told.
pub fn confine(writable: &[PathBuf]) -> Vec<SandboxError> {
    let (files, calls) = (confine_files(writable), confine_calls());
    inherit(Confinement { files: files.is_ok(), calls: calls.is_ok() });
    [files.err(), calls.err()].into_iter().flatten().collect()
}

fn confine_files(writable: &[PathBuf]) -> Result<(), SandboxError> {
    let refused = SandboxError::Files;
    // Without this one, no file can be renamed from one folder into another: what came before is of no use.
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)
        .map_err(refused)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_write(ABI::V3))
        .map_err(refused)?;
    let mut ruleset = ruleset.create().map_err(refused)?;
    for path in writable {
        let opened = open(path)?;
        ruleset =
            ruleset.add_rule(PathBeneath::new(opened, AccessFs::from_write(ABI::V3))).map_err(refused)?;
    }
    let null = PathBeneath::new(open(Path::new("/dev/null"))?, AccessFs::WriteFile);
    ruleset.add_rule(null).map_err(refused)?.restrict_self().map_err(refused)?;
    Ok(())
}

fn open(path: &Path) -> Result<PathFd, SandboxError> {
    PathFd::new(path).map_err(|error| SandboxError::Folder { path: path.to_owned(), error })
}

fn confine_calls() -> Result<(), SandboxError> {
    let filters = [
        filter(refused_calls(), libc::EPERM),
        // Its arguments can't be seen. Without it, the C library makes threads by clone(2).
        filter([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS),
    ];
    for filter in filters {
        let filter = filter.map_err(|error| SandboxError::Calls(error.to_string()))?;
        apply_filter(&filter).map_err(|error| SandboxError::Calls(error.to_string()))?;
    }
    Ok(())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn filter(rules: Rules, errno: i32) -> Result<BpfProgram, seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?)
}

/// What gives power over other processes, over the host, or over parts of the kernel that a proxy has no use for.
const REFUSED: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Namespaces are entered by the assistant.
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// New namespaces, and no other process: threads and children have none of these.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

fn refused_calls() -> Rules {
    let mut rules: Rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let new = NAMESPACES.iter().filter_map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        let is_set = SeccompCmpOp::MaskedEq(flag);
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, is_set, flag).ok()?;
        SeccompRule::new(vec![condition]).ok()
    });
    rules.insert(libc::SYS_clone, new.collect());
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_are_made_on_this_machine() {
        assert!(filter(refused_calls(), libc::EPERM).is_ok());
        assert_eq!(refused_calls()[&libc::SYS_clone].len(), NAMESPACES.len());
    }
}
