//! The hooks, in the order they are attached: what keeps the records first, what redirects last, so that no
//! connection is redirected that wouldn't be recorded. They go in the opposite order.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use aya::programs::{Program, ProgramError};

use super::sys;

/// One hook of the attach cgroup.
#[derive(Debug)]
pub(super) struct Hook {
    /// What people and `bpftool cgroup show` call it.
    pub(super) name: &'static str,
    /// The program's name in the object.
    pub(super) program: &'static str,
    /// `enum bpf_attach_type` of the kernel's uapi/linux/bpf.h.
    pub(super) attach_type: u32,
}

pub(super) const HOOKS: [Hook; 10] = [
    Hook { name: "sock_ops", program: "weir_sockops", attach_type: 3 },
    Hook { name: "cgroup_inet_sock_release", program: "weir_release", attach_type: 34 },
    Hook { name: "cgroup_inet4_getpeername", program: "weir_peername4", attach_type: 29 },
    Hook { name: "cgroup_inet6_getpeername", program: "weir_peername6", attach_type: 30 },
    Hook { name: "cgroup_udp4_recvmsg", program: "weir_recvmsg4", attach_type: 19 },
    Hook { name: "cgroup_udp6_recvmsg", program: "weir_recvmsg6", attach_type: 20 },
    Hook { name: "cgroup_inet4_connect", program: "weir_connect4", attach_type: 10 },
    Hook { name: "cgroup_inet6_connect", program: "weir_connect6", attach_type: 11 },
    Hook { name: "cgroup_udp4_sendmsg", program: "weir_sendmsg4", attach_type: 14 },
    Hook { name: "cgroup_udp6_sendmsg", program: "weir_sendmsg6", attach_type: 15 },
];

/// How many of them, from the first, only keep records.
pub(super) const RECORDERS: usize = 6;

pub(super) fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Attaches by an unpinned link: it goes with its last descriptor, so also when weir is killed.
pub(super) fn attach(hook: &Hook, program: &Program, cgroup: impl AsFd) -> io::Result<OwnedFd> {
    let program = program.fd().map_err(io::Error::other)?;
    sys::link(program.as_fd(), cgroup.as_fd(), hook.attach_type)
}
