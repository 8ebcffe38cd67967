//! What the kernel half tells of each decision while somebody follows.

use crate::{Comm, Endpoint};

/// A record of the ring buffer `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub destination: Endpoint,
    /// The process, as the initial pid namespace numbers it.
    pub pid: u32,
    pub cgroup: u64,
    pub netns: u64,
    /// The real user id, as the initial user namespace numbers it.
    pub uid: u32,
    /// One of the `OUTCOME_` constants.
    pub outcome: u32,
    /// A `Counter`, by its place.
    pub reason: u32,
    /// As in `Policy`.
    pub rule: u32,
    /// 1: a datagram or a UDP socket; 0: TCP.
    pub udp: u32,
    pub padding: u32,
    pub comm: Comm,
}

/// It goes direct.
pub const OUTCOME_DIRECT: u32 = 0;
/// It goes to the proxy.
pub const OUTCOME_REDIRECTED: u32 = 1;
/// It is refused.
pub const OUTCOME_DENIED: u32 = 2;

const _: () = assert!(size_of::<Event>() == 80);

#[cfg(feature = "user")]
// SAFETY: repr(C), no implicit padding (size asserted above), every bit pattern is a value.
unsafe impl aya::Pod for Event {}
