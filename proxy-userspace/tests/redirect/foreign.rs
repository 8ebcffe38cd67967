//! A program of somebody else's, attached the old way: not tied to a process, and in each of the ways in which it may
//! tolerate others.
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

/// `r0 = 0; exit`: refuses every connect().
const REFUSE: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];

/// `*(u32 *)(r1 + offsetof(user_port)) = htons(9); r0 = 1; exit`: sends every connect() to port 9.
const REWRITE: [u64; 4] =
    [0x0000_0900_0000_02b7, 0x0000_0000_0018_2163, 0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];

/// What it does with a connect().
#[derive(Clone, Copy)]
pub(crate) enum Does {
    Pass,
    Refuse,
    Rewrite,
}

/// How it tolerates others: the flags of BPF_PROG_ATTACH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    None = 0,
    Override = 1,
    Multi = 2,
}

/// Attached while it lives.
pub(crate) struct Foreign {
    cgroup: File,
    program: OwnedFd,
}

impl Foreign {
    /// The program that tolerates no other.
    pub(crate) fn exclusive(cgroup: &Path) -> Self {
        Self::attach(cgroup, Does::Pass, Mode::None).expect("a trivial program attaches")
    }

    /// Fails as the kernel does: EPERM where another program does not tolerate it.
    pub(crate) fn attach(cgroup: &Path, does: Does, mode: Mode) -> io::Result<Self> {
        let license = c"GPL";
        // union bpf_attr for BPF_PROG_LOAD, up to expected_attach_type.
        let mut load = [0_u32; 18];
        load[0] = BPF_PROG_TYPE_CGROUP_SOCK_ADDR;
        let program: &[u64] = match does {
            Does::Pass => &PASS,
            Does::Refuse => &REFUSE,
            Does::Rewrite => &REWRITE,
        };
        load[1] = program.len() as u32;
        set_pointer(&mut load, 2, program.as_ptr().cast());
        set_pointer(&mut load, 4, license.as_ptr().cast());
        load[17] = BPF_CGROUP_INET4_CONNECT;
        let program = bpf(BPF_PROG_LOAD, &mut load).expect("a trivial program loads");
        // SAFETY: a new descriptor that nobody else owns.
        let program = unsafe { OwnedFd::from_raw_fd(program) };
        let cgroup = File::open(cgroup).expect("the cgroup exists");
        let mut attachment = attachment(&cgroup, &program, mode);
        bpf(BPF_PROG_ATTACH, &mut attachment)?;
        Ok(Self { cgroup, program })
    }
}

/// target_fd, attach_bpf_fd, attach_type, attach_flags.
fn attachment(cgroup: &File, program: &OwnedFd, mode: Mode) -> [u32; 4] {
    let fd = |raw: i32| u32::try_from(raw).expect("a descriptor");
    [fd(cgroup.as_raw_fd()), fd(program.as_raw_fd()), BPF_CGROUP_INET4_CONNECT, mode as u32]
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Flags are for attaching alone.
        bpf(BPF_PROG_DETACH, &mut attachment(&self.cgroup, &self.program, Mode::None))
            .expect("it was attached");
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
