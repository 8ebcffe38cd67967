//! System calls that neither nix nor socket2 offers.
#![expect(unsafe_code, reason = "raw system calls")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// The cookie of the network namespace that socket lives in (Linux 5.14).
///
/// # Errors
/// ENOPROTOOPT on an older kernel.
pub fn cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the buffer is a u64 of the length given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor of a process, readable when it has ended (pidfd_open(2), Linux 5.3).
///
/// # Errors
/// ESRCH: there is no such process.
pub fn open_process(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointer in it.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if descriptor == -1 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = libc::c_int::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// No program that is started from now on gets any of this process's descriptors but the three standard ones, whoever
/// opened them: close_range(2) with CLOSE_RANGE_CLOEXEC, Linux 5.11. Before, those that this process had been given when
/// it was started go on to others.
pub fn keep_descriptors() {
    // SAFETY: no pointer in it; a flag of descriptors is set, none is closed. An error is an older kernel's.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}
