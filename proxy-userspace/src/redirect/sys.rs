//! The few system calls that neither aya nor nix offers: taking a map entry in one step, asking a cgroup which
//! programs are attached, and a link whose descriptor can be handed on. The only unsafe code of `redirect`.
#![expect(unsafe_code, reason = "raw system calls")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use aya::Pod;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
const BPF_LINK_CREATE: libc::c_long = 28;

/// `BPF_F_ALLOW_OVERRIDE` and `BPF_F_ALLOW_MULTI`: how a cgroup's programs of one kind tolerate others.
pub(super) const ATTACH_OVERRIDE: u32 = 1;
pub(super) const ATTACH_MULTI: u32 = 2;

/// `BPF_F_QUERY_EFFECTIVE`.
const QUERY_EFFECTIVE: u32 = 1;

/// Programs of one kind that a cgroup is asked for; more are not listed.
const MAX_QUERIED: usize = 64;

/// `union bpf_attr`, the part for map elements.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr`, the part for BPF_PROG_QUERY as Linux 5.10 knows it.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// `union bpf_attr`, the part for BPF_LINK_CREATE as Linux 5.7 knows it.
#[repr(C)]
struct LinkAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// A value that the kernel half has written; None: these bytes are none.
pub(super) fn pod<T: Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: as many bytes as a T has, of which any make one; it need not be aligned.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// What a cgroup has attached for one hook.
pub(super) struct Attached {
    pub(super) program_ids: Vec<u32>,
    /// 0: one program, and no other below it in the tree.
    pub(super) flags: u32,
}

/// Reads and deletes an entry. Atomic since Linux 5.14; before, in two steps.
///
/// # Errors
/// `NotFound` if there is no such entry.
pub(super) fn take<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, atomic: bool) -> io::Result<V> {
    if atomic {
        return element(BPF_MAP_LOOKUP_AND_DELETE_ELEM, map, key);
    }
    let value = element(BPF_MAP_LOOKUP_ELEM, map, key)?;
    match delete(map, key) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(value),
    }
}

/// Deletes an entry.
///
/// # Errors
/// `NotFound` if there is no such entry.
pub(super) fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut attr = element_attr(map, key);
    // SAFETY: key points to a live K; deletion reads nothing else.
    unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) }.map(|_| ())
}

/// Whether `take` can be atomic on this kernel. `key` must not be in the map.
pub(super) fn takes_atomically<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> bool {
    match element::<K, V>(BPF_MAP_LOOKUP_AND_DELETE_ELEM, map, key) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Programs that the kernel runs for a hook in that cgroup, inherited ones included, in their order.
pub(super) fn effective_programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    query(cgroup, attach_type, QUERY_EFFECTIVE).map(|attached| attached.program_ids)
}

/// Programs attached directly to that cgroup for a hook (`bpf_attach_type`), inherited ones not included.
pub(super) fn attached_programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Attached> {
    query(cgroup, attach_type, 0)
}

fn query(cgroup: BorrowedFd<'_>, attach_type: u32, query_flags: u32) -> io::Result<Attached> {
    let mut program_ids = vec![0_u32; MAX_QUERIED];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_type,
        query_flags,
        prog_ids: program_ids.as_mut_ptr() as u64,
        prog_cnt: MAX_QUERIED as u32,
        ..QueryAttr::default()
    };
    // SAFETY: prog_ids points to prog_cnt writable u32; both live until the call returns.
    match unsafe { bpf(BPF_PROG_QUERY, &mut attr) } {
        // ENOSPC: there are more; the first ones were written.
        Err(error) if error.raw_os_error() != Some(libc::ENOSPC) => return Err(error),
        _ => program_ids.truncate((attr.prog_cnt as usize).min(MAX_QUERIED)),
    }
    Ok(Attached { program_ids, flags: attr.attach_flags })
}

/// Attaches a program to a cgroup's hook (`bpf_attach_type`) by a link, which goes with its last descriptor. aya's
/// links keep theirs to themselves. The kernel makes it close-on-exec.
pub(super) fn link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkAttr {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_type,
        // Links are always "multi", and refuse the flags that say so.
        flags: 0,
    };
    // SAFETY: no pointer in it.
    let descriptor = unsafe { bpf(BPF_LINK_CREATE, &mut attr) }?;
    let descriptor = libc::c_int::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn element_attr<K: Pod>(map: BorrowedFd<'_>, key: &K) -> ElementAttr {
    ElementAttr {
        map_fd: map.as_raw_fd().cast_unsigned(),
        key: std::ptr::from_ref(key) as u64,
        ..ElementAttr::default()
    }
}

fn element<K: Pod, V: Pod>(command: libc::c_long, map: BorrowedFd<'_>, key: &K) -> io::Result<V> {
    let mut value = MaybeUninit::<V>::zeroed();
    let mut attr = ElementAttr { value: value.as_mut_ptr() as u64, ..element_attr(map, key) };
    // SAFETY: key and value point to a K and room for a V, the map's own sizes; both live until the call returns.
    unsafe { bpf(command, &mut attr) }?;
    // SAFETY: zeroed, then written by the kernel; V is Pod, so every bit pattern is one.
    Ok(unsafe { value.assume_init() })
}

/// # Safety
/// Every pointer in `attr` must be valid for what `command` does with it.
unsafe fn bpf<A>(command: libc::c_long, attr: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: attr is a readable and writable part of bpf_attr of that size; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
