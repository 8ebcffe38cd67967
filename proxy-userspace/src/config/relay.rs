//! `relay`: how bytes of tunnels are moved.

use super::kinds::{GIB, KIB, MIB, auto_or, optional, size};
use super::section::Section;

/// `relay`.
#[derive(Debug, Clone, PartialEq)]
pub struct Relay {
    /// Capacity asked for each splice pipe, in bytes; the kernel may grant less. Default 1MiB.
    pub pipe_size: usize,
    /// Bytes that a socket may hold in the kernel, each way, once a tunnel moves bulk; the kernel doubles it for its own
    /// bookkeeping. Default none: 1 MiB where the peer is on this machine, else as TCP sees fit.
    pub socket_buffer: Option<usize>,
}

impl Default for Relay {
    fn default() -> Self {
        Self { pipe_size: 1 << 20, socket_buffer: None }
    }
}

pub(super) fn read(s: &mut Section<'_, '_>) -> Relay {
    let d = Relay::default();
    let buffer = optional(size(64 * KIB..=GIB));
    Relay {
        pipe_size: s.read("pipe_size", d.pipe_size, size(4 * KIB..=64 * MIB)),
        socket_buffer: s.read("socket_buffer", d.socket_buffer, auto_or(|| None, buffer)),
    }
}
