//! A program of somebody else's, attached the old way: exclusive, and not tied to a process.
#![expect(unsafe_code, reason = "raw bpf(2): the libraries attach by links only")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const BPF_CGROUP_INET4_CONNECT: u32 = 10;

/// `r0 = 1; exit`: lets every connect() pass.
const PASS: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];

/// Attached while it lives.
pub(crate) struct Exclusive {
    cgroup: File,
    program: OwnedFd,
}

impl Exclusive {
    pub(crate) fn attach(cgroup: &Path) -> Self {
        let license = c"GPL";
        // union bpf_attr for BPF_PROG_LOAD, up to expected_attach_type.
        let mut load = [0_u32; 18];
        load[0] = BPF_PROG_TYPE_CGROUP_SOCK_ADDR;
        load[1] = PASS.len() as u32;
        set_pointer(&mut load, 2, PASS.as_ptr().cast());
        set_pointer(&mut load, 4, license.as_ptr().cast());
        load[17] = BPF_CGROUP_INET4_CONNECT;
        let program = bpf(BPF_PROG_LOAD, &mut load).expect("a trivial program loads");
        // SAFETY: a new descriptor that nobody else owns.
        let program = unsafe { OwnedFd::from_raw_fd(program) };
        let foreign = Self { cgroup: File::open(cgroup).expect("the cgroup exists"), program };
        bpf(BPF_PROG_ATTACH, &mut foreign.attachment()).expect("a trivial program attaches");
        foreign
    }

    /// target_fd, attach_bpf_fd, attach_type, attach_flags: 0, no other program is tolerated.
    fn attachment(&self) -> [u32; 4] {
        let fd = |raw: i32| u32::try_from(raw).expect("a descriptor");
        [fd(self.cgroup.as_raw_fd()), fd(self.program.as_raw_fd()), BPF_CGROUP_INET4_CONNECT, 0]
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        bpf(BPF_PROG_DETACH, &mut self.attachment()).expect("it was attached");
    }
}

fn set_pointer(attr: &mut [u32], at: usize, pointer: *const u8) {
    let value = pointer as u64;
    attr[at] = (value & 0xffff_ffff) as u32;
    attr[at + 1] = (value >> 32) as u32;
}

fn bpf(command: libc::c_long, attr: &mut [u32]) -> io::Result<i32> {
    // SAFETY: attr is of the size given; the pointers in it are to constants.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
