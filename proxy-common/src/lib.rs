//! The types both halves of weir share: what the kernel programs and the proxy exchange through maps.
//!
//! Every address that crosses is 16 bytes in network byte order, IPv4 as v4-mapped IPv6 (RFC 4291 §2.5.5.2);
//! every port is in network byte order. No type here has implicit padding: the kernel compares map keys byte by
//! byte and its verifier refuses uninitialised ones.
#![no_std]

mod counter;
mod dns;
mod event;
mod rules;

pub use counter::Counter;
pub use dns::*;
pub use event::*;
pub use rules::*;

/// Length of a task's name in the kernel (`TASK_COMM_LEN`), its NUL included.
pub const COMM_LEN: usize = 16;

/// Levels of the cgroup tree searched below the attach cgroup for a selected ancestor.
pub const MAX_CGROUP_DEPTH: u32 = 32;

/// One end of a TCP connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Network byte order; IPv4 as v4-mapped.
    pub address: [u32; 4],
    /// Network byte order.
    pub port: u16,
    pub padding: u16,
}

impl Endpoint {
    pub const fn new(address: [u32; 4], port: u16) -> Self {
        Self { address, port, padding: 0 }
    }
}

/// Key of the map `CLAIMS`: how the proxy, holding an accepted socket, names the connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimKey {
    /// The application's own end, as the accepted socket's peer address shows it.
    pub client: Endpoint,
    /// Which of the proxy's ports accepted it; network byte order. Connections to different ports may have the same
    /// client's end.
    pub listener_port: u16,
    pub padding: u16,
    /// The network namespace the connection lives in; 0 where the proxy can't learn cookies (Linux < 5.14).
    pub netns: u64,
}

impl ClaimKey {
    pub const fn new(client: Endpoint, listener_port: u16, netns: u64) -> Self {
        Self { client, listener_port, padding: 0, netns }
    }
}

/// A captured connection: value of `ORIGINALS` (by socket cookie) and of `CLAIMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Where the application meant to go.
    pub original: Endpoint,
    /// The process that called connect(), as the initial pid namespace numbers it.
    pub pid: u32,
    /// The key of this record in `CLAIMS`; its port is 0 until the SYN is about to leave.
    pub claim: ClaimKey,
    /// Socket cookie: tells this connection from a later one with the same ends.
    pub cookie: u64,
    /// That process's cgroup.
    pub cgroup: u64,
    /// Its real user id, as the initial user namespace numbers it.
    pub uid: u32,
    /// The rule that decided, as in `Policy`.
    pub rule: u32,
    /// Its name, NUL-padded; arbitrary bytes.
    pub comm: Comm,
}

/// A process's name. Aligned, so that the kernel half writes and copies it in words: it may not loop over bytes of
/// its stack without CAP_PERFMON.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comm(pub [u8; COMM_LEN]);

/// Value of the maps `CGROUPS` (by cgroup id) and `RULES`: what happens to connections from a selected cgroup, or that
/// a rule matches.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// One of the `ACTION_` constants.
    pub action: u32,
    /// One of the `FAIL_` constants.
    pub fail: u32,
    /// errno of a connect() that is refused: one of the `ERRNO_` constants.
    pub errno: u32,
    /// Which rule this is, by [`rule_number`]; 0: none.
    pub rule: u32,
}

/// What records call a rule of a generation.
pub const fn rule_number(generation: u32, rule: u32) -> u32 {
    1 + generation * MAX_RULES + rule
}

/// Ports in a row on which the proxy takes captured connections, per address family and network namespace: two
/// connections with the same ends can't be there at one time, so each port has room for as many as
/// net.ipv4.ip_local_port_range has numbers (28,232 by default). A power of two.
pub const CAPTURE_PORTS: u16 = 4;

/// Value of the map `NAMESPACES` (by netns cookie): where the proxy listens in a network namespace other than its own.
/// Aligned, so that the kernel half reads it in one piece.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerPorts {
    /// On 127.0.0.1, the first of `CAPTURE_PORTS` in a row; host byte order; 0: it doesn't listen for IPv4.
    pub v4: u16,
    /// On ::1, the same; 0: it doesn't listen for IPv6.
    pub v6: u16,
    /// For DNS over UDP at every address of `SLOT_NETWORK`; network byte order; 0: it doesn't.
    pub dns_v4: u16,
    /// For DNS over UDP on ::1, the first of `SERVERS_V6` ports in a row; host byte order; 0: it doesn't.
    pub dns_v6: u16,
}

/// Send the connection to the proxy.
pub const ACTION_REDIRECT: u32 = 0;
/// Leave the connection alone.
pub const ACTION_BYPASS: u32 = 1;
/// Refuse the connection.
pub const ACTION_DENY: u32 = 2;

/// ECONNREFUSED, as on nearly all architectures; asserted against libc's by userspace.
pub const ERRNO_REFUSED: u32 = 111;
/// EHOSTUNREACH.
pub const ERRNO_UNREACHABLE: u32 = 113;

/// Without a live proxy the connection goes direct.
pub const FAIL_OPEN: u32 = 0;
/// Without a live proxy connect() fails.
pub const FAIL_CLOSED: u32 = 1;

/// Where the kernel keeps what names a process's executable: offsets in bytes, from the running kernel's BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskLayout {
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// `mm_struct.exe_file`.
    pub mm_exe_file: u32,
    /// `file.f_inode`.
    pub file_inode: u32,
    /// `inode.i_ino`.
    pub inode_number: u32,
    /// `inode.i_sb`.
    pub inode_superblock: u32,
    /// `super_block.s_dev`.
    pub superblock_device: u32,
}

/// How many other weirs may be told of.
pub const MAX_SIBLINGS: usize = 8;

/// Other weirs' processes, as the initial pid namespace numbers them; 0: none.
pub type Siblings = [u32; MAX_SIBLINGS];

const _: () = {
    assert!(size_of::<Endpoint>() == 20);
    assert!(size_of::<ClaimKey>() == 32);
    assert!(size_of::<Captured>() == 96);
    assert!(size_of::<Policy>() == 16);
    assert!(size_of::<TaskLayout>() == 24);
    assert!(size_of::<ListenerPorts>() == 8);
    assert!(CAPTURE_PORTS.is_power_of_two());
};

#[cfg(feature = "user")]
mod pod {
    use super::{Captured, ClaimKey, Endpoint, ListenerPorts, Policy, TaskLayout};

    // SAFETY: repr(C), no implicit padding (sizes asserted above), every bit pattern is a value.
    unsafe impl aya::Pod for Endpoint {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ClaimKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Captured {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Policy {}
    // SAFETY: as above.
    unsafe impl aya::Pod for TaskLayout {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ListenerPorts {}
}
