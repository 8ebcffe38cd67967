//! What is selected beside cgroups: users and executables. Without any it is one look-up in an array.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::bpf_get_current_uid_gid;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use proxy_common::{IDENTITY_EXECUTABLE, IDENTITY_UID, Identity, Policy, USES_EXECUTABLE, USES_UID};

use crate::maps::{HAS_EXECUTABLE, PLACEHOLDER, copied};
use crate::rules::executable;

/// Whom. They have no generations: all are of number 0.
#[map]
static SELECTED: HashMap<Identity, Policy> = HashMap::with_max_entries(PLACEHOLDER, BPF_F_NO_PREALLOC);

/// Which kinds of them there are: `USES_UID`, `USES_EXECUTABLE`.
#[map]
static SELECTED_BY: Array<u32> = Array::with_max_entries(1, 0);

/// What is said of the current process by its user or else by its executable.
#[inline(always)]
pub fn policy() -> Option<Policy> {
    let by = *SELECTED_BY.get(0)?;
    if by & USES_UID != 0 {
        let uid = bpf_get_current_uid_gid() & 0xffff_ffff;
        if let Some(policy) = selected(IDENTITY_UID, uid, 0) {
            return Some(policy);
        }
    }
    if by & USES_EXECUTABLE == 0 || HAS_EXECUTABLE.load() == 0 {
        return None;
    }
    let (inode, device) = executable();
    selected(IDENTITY_EXECUTABLE, inode, device)
}

#[inline(always)]
fn selected(kind: u32, id: u64, device: u64) -> Option<Policy> {
    // SAFETY: read during this run of the program only. Userspace may replace it meanwhile: either one is right.
    unsafe { SELECTED.get(Identity { generation: 0, kind, id, device }) }.map(copied)
}
