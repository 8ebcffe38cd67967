//! From the object in this build to programs attached to a cgroup: fix the settings, load, attach, all or nothing.
#![forbid(unsafe_code)]

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use aya::maps::{Map, MapData};
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader};

use crate::{config, netns};

use super::cgroup::{Cgroup, Mount};
use super::dns::SERVER_CAPACITY;
use super::error::RedirectError;
use super::events::EVENT_BYTES;
use super::hooks::{self, HOOKS, Hook};
use super::namespaces::UNSERVED_CAPACITY;
use super::programs::PROGRAM_CAPACITY;
use super::{Listeners, btf, rules, support};

/// Ended connections the proxy may still ask for; enough for a full accept queue.
const CLOSED_CAPACITY: u32 = 8192;

/// Where HTTP/3 is spoken (RFC 9114 §3.2).
pub(super) const QUIC_PORT: u16 = 443;

/// Levels of aya's kernel log: none, and everything up to debug.
const LOG_OFF: u8 = 0;
const LOG_DEBUG: u8 = aya_log::Level::Debug as u8;

/// First kernel that doesn't count BPF memory against RLIMIT_MEMLOCK.
const NO_MEMLOCK_KERNEL: support::Kernel = support::Kernel { major: 5, minor: 11 };

/// The object with all programs accepted by the kernel, none attached. `netns` as `listener_netns` gives it.
pub(super) fn load(
    capture: &config::Capture,
    listeners: &Listeners,
    netns: u64,
    first_level: u32,
) -> Result<Ebpf, RedirectError> {
    lift_memlock();
    let own_tgid = std::process::id();
    let port_v4 = listeners.v4.map_or(0, |address| address.port());
    let port_v6 = listeners.v6.map_or(0, |address| address.port());
    let quic_port = if capture.deny_quic { QUIC_PORT.to_be() } else { 0 };
    let dns_port = if captures_dns(capture, listeners) { proxy_common::DNS_PORT.to_be() } else { 0 };
    let dns_port_v4 = listeners.dns_v4.unwrap_or(0).to_be();
    let dns_port_v6 = listeners.dns_v6.unwrap_or(0);
    let explicit = listeners.explicit.map(|address| (mapped(address.ip()), address.port().to_be()));
    let (explicit_address, explicit_port) = explicit.unwrap_or_default();
    let explicit_is_any = u8::from(listeners.explicit.is_some_and(|address| address.ip().is_unspecified()));
    let heartbeat_timeout = u64::try_from(capture.heartbeat_timeout.as_nanos()).unwrap_or(u64::MAX);
    let has_set_retval = u8::from(has_helper(BpfHelper::BPF_FUNC_set_retval));
    let has_current_comm = u8::from(has_helper(BpfHelper::BPF_FUNC_get_current_comm));
    let task_layout = task_layout();
    let has_executable = u8::from(task_layout.is_some());
    let task_layout = task_layout.unwrap_or_default();
    let log_level = if capture.kernel_log { LOG_DEBUG } else { LOG_OFF };
    let mut ebpf = EbpfLoader::new()
        .override_global("OWN_TGID", &own_tgid, true)
        .override_global("LISTENER_NETNS", &netns, true)
        .override_global("LISTENER_PORT_V4", &port_v4, true)
        .override_global("LISTENER_PORT_V6", &port_v6, true)
        .override_global("FURTHER_PORTS", &listeners.further, true)
        .override_global("EXPLICIT_ADDRESS", &explicit_address, true)
        .override_global("EXPLICIT_PORT", &explicit_port, true)
        .override_global("EXPLICIT_IS_ANY", &explicit_is_any, true)
        .override_global("HEARTBEAT_TIMEOUT", &heartbeat_timeout, true)
        .override_global("QUIC_PORT", &quic_port, true)
        .override_global("DNS_PORT", &dns_port, true)
        .override_global("DNS_PORT_V4", &dns_port_v4, true)
        .override_global("DNS_PORT_V6", &dns_port_v6, true)
        .override_global("FIRST_LEVEL", &first_level, true)
        .override_global("HAS_SET_RETVAL", &has_set_retval, true)
        .override_global("HAS_CURRENT_COMM", &has_current_comm, true)
        .override_global("HAS_EXECUTABLE", &has_executable, true)
        .override_global("TASK_LAYOUT", &task_layout, true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .map_max_entries("ORIGINALS", capture.max_connections)
        .map_max_entries("CLAIMS", capture.max_connections)
        .map_max_entries("CLOSED", CLOSED_CAPACITY)
        .map_max_entries("CGROUPS", capture.max_cgroups)
        .map_max_entries("SELECTED", PROGRAM_CAPACITY)
        .map_max_entries("UNSERVED", UNSERVED_CAPACITY)
        .map_max_entries("IDENTITIES", rules::IDENTITY_CAPACITY)
        .map_max_entries("NAMESPACES", capture.max_cgroups)
        .map_max_entries("EVENTS", EVENT_BYTES)
        .map_max_entries("DNS_SERVERS", SERVER_CAPACITY)
        // Of both generations, while rules are replaced.
        .map_max_entries("NAMES", capture.dns.max_names.saturating_mul(2))
        .load(object()?)?;
    for hook in &HOOKS {
        let program = ebpf.program_mut(hook.program).ok_or(RedirectError::Mismatch(hook.program))?;
        hooks::load(program).map_err(|source| {
            // With the verifier's log: long, and for whoever mends the programs.
            tracing::debug!(hook = hook.name, "{source}");
            RedirectError::Load { hook: hook.name, source }
        })?;
    }
    Ok(ebpf)
}

/// As the kernel half has addresses.
fn mapped(address: IpAddr) -> [u8; 16] {
    config::Prefix::from(address).octets()
}

/// Whether queries are taken: the configuration says so, and somebody listens for them.
pub(super) fn captures_dns(capture: &config::Capture, listeners: &Listeners) -> bool {
    capture.dns.enabled && (listeners.dns_v4.is_some() || listeners.dns_v6.is_some())
}

/// Attaches every program, in the order of the hooks. On an error the caller drops `links`, what was attached.
pub(super) fn attach(
    ebpf: &Ebpf,
    mount: &Mount,
    cgroup: &Cgroup,
    links: &mut Vec<OwnedFd>,
) -> Result<(), RedirectError> {
    for hook in &HOOKS {
        let program = ebpf.program(hook.program).ok_or(RedirectError::Mismatch(hook.program))?;
        let link = hooks::attach(hook, program, &cgroup.dir);
        links.push(link.map_err(|source| attach_error(mount, cgroup, hook, source))?);
    }
    Ok(())
}

/// EPERM with all privileges means that a program which tolerates no other is there, or further up.
pub(super) fn attach_error(mount: &Mount, cgroup: &Cgroup, hook: &Hook, source: io::Error) -> RedirectError {
    match support::exclusive_program(mount, &cgroup.path, hook.attach_type) {
        Some((path, programs)) => RedirectError::ForeignProgram { cgroup: path, hook: hook.name, programs },
        None => RedirectError::Attach { cgroup: cgroup.path.clone(), hook: hook.name, source },
    }
}

/// Takes a map out of the object, typed.
pub(super) fn take_map<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, RedirectError>
where
    M: TryFrom<Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).ok_or(RedirectError::Mismatch(name))?;
    M::try_from(map).map_err(|source| RedirectError::Map { map: name, source })
}

/// Another descriptor of a hash map, for the raw calls in `sys`.
pub(super) fn map_fd(map: &MapData) -> Result<OwnedFd, RedirectError> {
    map.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| RedirectError::Io { what: "can't duplicate a map's descriptor", source })
}

/// The cookie of this thread's network namespace. 0: unknown before Linux 5.14, then it must be the initial one, which
/// the programs can name.
pub(super) fn listener_netns() -> Result<u64, RedirectError> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).map_err(|source| {
        RedirectError::Io { what: "can't open a socket to learn the network namespace", source }
    })?;
    match netns::cookie(socket.as_fd()) {
        Ok(cookie) => Ok(cookie),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            if in_initial_netns() {
                Ok(0)
            } else {
                Err(RedirectError::NetnsUnknown)
            }
        }
        Err(source) => Err(RedirectError::Io { what: "can't learn the network namespace's cookie", source }),
    }
}

/// As process 1 is, as far as anybody can tell.
fn in_initial_netns() -> bool {
    let inode = |path| std::fs::metadata(path).map(|metadata| metadata.ino());
    matches!((inode("/proc/thread-self/ns/net"), inode("/proc/1/ns/net")), (Ok(own), Ok(initial)) if own == initial)
}

/// How the connect programs find the current process's executable; None: they can't.
pub(super) fn task_layout() -> Option<proxy_common::TaskLayout> {
    let may =
        has_helper(BpfHelper::BPF_FUNC_get_current_task) && has_helper(BpfHelper::BPF_FUNC_probe_read_kernel);
    if may { btf::task_layout() } else { None }
}

/// Whether the connect programs may call it, on this kernel and with our privilege.
fn has_helper(helper: BpfHelper) -> bool {
    // Not to be found out means not to be used: the programs do without.
    is_helper_supported(ProgramType::CgroupSockAddr, helper).unwrap_or(false)
}

/// Old kernels charge maps to this limit, 64 KiB by default. A failure shows when the maps are made.
fn lift_memlock() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    if support::Kernel::running().is_some_and(|kernel| kernel < NO_MEMLOCK_KERNEL) {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    }
}

#[cfg(weir_kernel_half)]
#[expect(clippy::unnecessary_wraps, reason = "the other build has no object")]
fn object() -> Result<&'static [u8], RedirectError> {
    Ok(aya::include_bytes_aligned!(env!("WEIR_BPF_OBJECT")))
}

#[cfg(not(weir_kernel_half))]
fn object() -> Result<&'static [u8], RedirectError> {
    Err(RedirectError::NotInBuild)
}

pub(super) fn io_error(error: aya::maps::MapError) -> io::Error {
    match error {
        aya::maps::MapError::SyscallError(error) => error.io_error,
        aya::maps::MapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
