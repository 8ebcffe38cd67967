//! Why capture can't start or go on, told to a person: what happened, where, what to do.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;

use super::rules::RulesError;
use super::support::{Kernel, OLDEST_KERNEL};

#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    #[error(
        "the kernel half is not in this build of weir. Build it with `cargo xtask build-ebpf`, then build weir again; \
         the explicit proxy works without it"
    )]
    NotInBuild,

    #[error(
        "Linux {found} is too old to capture connections: {OLDEST_KERNEL} or newer is needed (older kernels would \
         leave the redirection behind when weir dies). The explicit proxy works"
    )]
    KernelTooOld { found: Kernel },

    #[error(
        "no privilege to capture connections: {missing} missing. Run weir as root, or give the binary the \
         capabilities: `setcap cap_bpf,cap_net_admin+ep PATH_OF_WEIR`"
    )]
    NoPrivilege { missing: &'static str },

    #[error(
        "weir runs in a pid namespace of its own, where it can't tell its own connections from others'. \
         Run it in the host's (docker: `--pid=host`)"
    )]
    PidNamespace,

    #[error(
        "this kernel can't tell network namespaces apart for weir (it can since Linux 5.14), and weir runs outside \
         the initial one. Run it in the host's network namespace"
    )]
    NetnsUnknown,

    #[error(
        "no cgroup v2 hierarchy is mounted. Mount one: `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none \
         /sys/fs/cgroup/unified`"
    )]
    NoCgroup2,

    #[error("{} can't be used as a cgroup: {source}. It must be a directory of the cgroup2 mount", .path.display())]
    Cgroup { path: PathBuf, source: io::Error },

    #[error("{} is a directory, but not of a cgroup2 mount", .path.display())]
    NotCgroup2 { path: PathBuf },

    #[error(
        "another weir{} captures at cgroup {}. Stop it, or give this one another `capture.cgroup`",
        .holder.map_or_else(String::new, |pid| format!(" (pid {pid})")),
        .cgroup.display()
    )]
    AlreadyRunning { cgroup: PathBuf, holder: Option<u32> },

    #[error(
        "cgroup {} has an exclusive BPF program on its {hook} hook (program {}), which admits no other there or below. \
         See it with `bpftool cgroup show {}`; detach it, or set `capture.cgroup` to a cgroup outside of it",
        .cgroup.display(), program_list(.programs), .cgroup.display()
    )]
    ForeignProgram { cgroup: PathBuf, hook: &'static str, programs: Vec<u32> },

    #[error("the kernel refused to attach to the {hook} hook of cgroup {}: {source}", .cgroup.display())]
    Attach { cgroup: PathBuf, hook: &'static str, source: io::Error },

    #[error(
        "the kernel does not accept the program for the {hook} hook: {}. This is a defect of weir, or a kernel built \
         without this feature; the explicit proxy works", brief(.source)
    )]
    Load { hook: &'static str, source: aya::programs::ProgramError },

    #[error(
        "can't start the process that goes on refusing when weir has died (`capture.fail: closed`): {source}. \
         Set admin.state_dir to a folder that weir may write to, or capture.fail to `open`"
    )]
    Holder { source: io::Error },

    #[error(
        "an earlier weir died with `capture.fail: closed`; the process that holds its programs{} does not end \
         ({source}). End it with `kill -KILL`",
        .pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
    )]
    HolderStays { pid: Option<i32>, source: io::Error },

    #[error(
        "programs of an earlier weir ({}) are still attached to cgroup {} and refuse connections: it died with \
         `capture.fail: closed`. Its admin.state_dir was another one, or its holder can't be reached: find it with \
         `pgrep -af 'weir hold'` and end it with `kill`",
        program_list(.programs), .cgroup.display()
    )]
    StillHeld { cgroup: PathBuf, programs: Vec<u32> },

    #[error("the kernel half can't be loaded: {0}")]
    Object(#[from] aya::EbpfError),

    #[error(
        "the kernel half lacks `{0}`: it was not built from the same source. Run `cargo xtask build-ebpf`"
    )]
    Mismatch(&'static str),

    #[error("{0}")]
    Rules(#[from] RulesError),

    #[error("the map {map} can't be used: {source}")]
    Map { map: &'static str, source: aya::maps::MapError },

    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
}

/// Without the verifier's log, which is for the source chain.
fn brief(error: &aya::programs::ProgramError) -> String {
    match error {
        aya::programs::ProgramError::LoadError { io_error, .. } => io_error.to_string(),
        other => other.to_string(),
    }
}

fn program_list(programs: &[u32]) -> String {
    let ids: Vec<String> = programs.iter().map(|id| format!("id {id}")).collect();
    if ids.is_empty() { "unknown".to_owned() } else { ids.join(", ") }
}
