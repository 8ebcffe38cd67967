//! The maps, and the settings userspace fixes at load time. Those of rules, DNS and events stand where they are used.
//!
//! Settings are read-only globals: the verifier knows their values and removes what they switch off, so a helper
//! that an older kernel lacks does no harm behind one. Map sizes here are placeholders; userspace sets them.

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use proxy_common::{Captured, ClaimKey, Counter, ListenerPorts, Policy, Siblings, TaskLayout};

pub const PLACEHOLDER: u32 = 1;
/// Insert or replace.
pub const BPF_ANY: u64 = 0;
/// Insert what isn't there.
pub const BPF_NOEXIST: u64 = 1;

/// Captured connections by socket cookie, from connect() to the end of the socket.
#[map]
pub static ORIGINALS: HashMap<u64, Captured> = HashMap::with_max_entries(PLACEHOLDER, BPF_F_NO_PREALLOC);

/// The same by what the proxy can see of them, from the SYN until the proxy takes the record or the socket ends.
#[map]
pub static CLAIMS: HashMap<ClaimKey, Captured> = HashMap::with_max_entries(PLACEHOLDER, BPF_F_NO_PREALLOC);

/// Records whose socket ended in good order before the proxy took them: an application may connect, write and close
/// faster than the proxy accepts. Least recently used out first: the proxy might never ask.
#[map]
pub static CLOSED: LruHashMap<ClaimKey, Captured> = LruHashMap::with_max_entries(PLACEHOLDER, 0);

/// What is selected, by cgroup id.
#[map]
pub static CGROUPS: HashMap<u64, Policy> = HashMap::with_max_entries(PLACEHOLDER, BPF_F_NO_PREALLOC);

/// Where the proxy listens in other network namespaces than its own, by their cookies.
#[map]
pub static NAMESPACES: HashMap<u64, ListenerPorts> =
    HashMap::with_max_entries(PLACEHOLDER, BPF_F_NO_PREALLOC);

/// When the proxy's data plane last showed life: CLOCK_MONOTONIC, in nanoseconds.
#[map]
pub static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

/// The processes of other weirs, while one takes over from another. Their connections are their own affair.
#[map]
pub static SIBLINGS: Array<Siblings> = Array::with_max_entries(1, 0);

#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// The proxy's process, as the initial pid namespace numbers it.
#[unsafe(no_mangle)]
pub static OWN_TGID: Global<u32> = Global::new(0);
/// The network namespace the proxy listens in; 0: it can't know (Linux < 5.14), so it must be the initial one.
#[unsafe(no_mangle)]
pub static LISTENER_NETNS: Global<u64> = Global::new(0);
/// Of the listeners on 127.0.0.1 the first port, host byte order; 0: none.
#[unsafe(no_mangle)]
pub static LISTENER_PORT_V4: Global<u16> = Global::new(0);
/// Of those on ::1; the same.
#[unsafe(no_mangle)]
pub static LISTENER_PORT_V6: Global<u16> = Global::new(0);
/// Which ports in a row follow the first: bits that are added to it. A power of two less one.
#[unsafe(no_mangle)]
pub static FURTHER_PORTS: Global<u16> = Global::new(0);
/// Where the proxy takes DNS over UDP in its own network namespace; as in `ListenerPorts`.
#[unsafe(no_mangle)]
pub static DNS_PORT_V4: Global<u16> = Global::new(0);
#[unsafe(no_mangle)]
pub static DNS_PORT_V6: Global<u16> = Global::new(0);
/// 53, network byte order; 0: DNS is left alone.
#[unsafe(no_mangle)]
pub static DNS_PORT: Global<u16> = Global::new(0);
/// Age in nanoseconds at which a heartbeat counts as lost.
#[unsafe(no_mangle)]
pub static HEARTBEAT_TIMEOUT: Global<u64> = Global::new(0);
/// The port of QUIC, network byte order; 0: it is not refused.
#[unsafe(no_mangle)]
pub static QUIC_PORT: Global<u16> = Global::new(0);
/// Level of the attach cgroup in the tree: nothing above it is selected.
#[unsafe(no_mangle)]
pub static FIRST_LEVEL: Global<u32> = Global::new(0);
/// 1 if `bpf_set_retval` exists here (Linux ≥ 5.18); without it a refused connect() gives EPERM.
#[unsafe(no_mangle)]
pub static HAS_SET_RETVAL: Global<u8> = Global::new(0);
/// 1 if these programs may ask for the process's name (newer kernels want CAP_PERFMON for it).
#[unsafe(no_mangle)]
pub static HAS_CURRENT_COMM: Global<u8> = Global::new(0);

/// 1 if these programs can tell what the current process executes: it takes BTF and CAP_PERFMON.
#[unsafe(no_mangle)]
pub static HAS_EXECUTABLE: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub static TASK_LAYOUT: Global<TaskLayout> = Global::new(TaskLayout {
    task_mm: 0,
    mm_exe_file: 0,
    file_inode: 0,
    inode_number: 0,
    inode_superblock: 0,
    superblock_device: 0,
});

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the value belongs to this CPU; a lost increment by a nested program is tolerable.
        unsafe { *value += 1 }
    }
}

/// A copy. To the verifier that is four numbers, and no longer the map that they come from: pointers into each map it
/// would follow on their own through all that comes after.
#[inline(always)]
pub fn copied(policy: &Policy) -> Policy {
    let words = core::ptr::from_ref(policy).cast::<u32>();
    // SAFETY: a Policy is four words.
    let [action, fail, errno, rule] = unsafe { [0, 1, 2, 3].map(|at| words.add(at).read_volatile()) };
    Policy { action, fail, errno, rule }
}
