//! One connect(): what the hook's context says, read once, in one shape for IPv4 and IPv6.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::bpf_get_socket_cookie,
    programs::SockAddrContext,
};
use proxy_common::Endpoint;

use crate::listeners;

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

/// `::ffff:0:0/96`, the third word of a v4-mapped address, as it lies in memory.
pub const MAPPED: u32 = 0xffff_u32.to_be();
/// 127.0.0.1 as it lies in memory.
pub const LOCALHOST_V4: u32 = 0x7f00_0001_u32.to_be();
/// The last word of ::1 as it lies in memory.
pub const ONE: u32 = 1_u32.to_be();

/// Where the proxy listens for a family.
#[derive(Clone, Copy)]
pub struct Listener {
    /// True: 127.0.0.1; false: ::1.
    pub v4: bool,
    /// Network byte order; 0: the proxy doesn't listen for this family.
    pub port: u16,
    /// The same for DNS over UDP, as in `ListenerPorts`.
    pub dns: u16,
}

pub struct Attempt<'a> {
    pub ctx: &'a SockAddrContext,
    /// Which hook we are in: the socket's family, not the destination's (`::ffff:a.b.c.d` is AF_INET6).
    family_v4: bool,
    pub transport: Transport,
    pub destination: Endpoint,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
    Other,
}

impl<'a> Attempt<'a> {
    #[inline(always)]
    pub fn v4(ctx: &'a SockAddrContext) -> Self {
        // SAFETY: a readable context field.
        let address = [0, 0, MAPPED, unsafe { (&raw const (*ctx.sock_addr).user_ip4).read_volatile() }];
        let destination = Endpoint::new(address, read_port(ctx));
        Self { ctx, family_v4: true, transport: transport(ctx), destination }
    }

    #[inline(always)]
    pub fn v6(ctx: &'a SockAddrContext) -> Self {
        // SAFETY: a field of the context.
        let address = unsafe { read_words((&raw const (*ctx.sock_addr).user_ip6).cast()) };
        let destination = Endpoint::new(address, read_port(ctx));
        Self { ctx, family_v4: false, transport: transport(ctx), destination }
    }

    /// The same in sendmsg4 and sendmsg6, where there is nothing but UDP.
    #[inline(always)]
    pub fn datagram(self) -> Self {
        Self { transport: Transport::Udp, ..self }
    }

    /// SO_BINDTODEVICE: the application wants that device; loopback can't be reached through it.
    #[inline(always)]
    pub fn is_bound_to_device(&self) -> bool {
        // SAFETY: the verifier types this load as a pointer to the socket, never null in these hooks.
        let socket: *const bpf_sock =
            unsafe { (&raw const (*self.ctx.sock_addr).__bindgen_anon_1.sk).read() };
        // SAFETY: a readable field of bpf_sock.
        !socket.is_null() && unsafe { (&raw const (*socket).bound_dev_if).read_volatile() } != 0
    }

    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        // SAFETY: a plain helper call.
        unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) }
    }

    #[inline(always)]
    pub fn netns(&self) -> u64 {
        listeners::netns(self.ctx)
    }

    /// The listener this connection would go to; none: the proxy doesn't listen in this network namespace. A
    /// v4-mapped destination is IPv4 on the wire.
    #[inline(always)]
    pub fn listener(&self) -> Option<Listener> {
        let ports = listeners::ports(self.ctx)?;
        Some(if is_mapped(&self.destination.address) {
            Listener { v4: true, port: listeners::one_of(ports.v4), dns: ports.dns_v4 }
        } else {
            Listener { v4: false, port: listeners::one_of(ports.v6), dns: ports.dns_v6 }
        })
    }

    /// Makes the socket's destination this address of loopback instead: of IPv4 (network byte order), or ::1.
    #[inline(always)]
    pub fn rewrite(&self, v4: Option<u32>, port: u16) {
        let raw = self.ctx.sock_addr;
        match v4 {
            Some(address) if self.family_v4 => write_address_v4(raw, address),
            Some(address) => write_address_v6(raw, [0, 0, MAPPED, address]),
            None => write_address_v6(raw, [0, 0, 0, ONE]),
        }
        write_port(raw, port);
    }
}

#[inline(always)]
pub fn is_mapped(address: &[u32; 4]) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == MAPPED
}

/// Four words of a context, read one by one: the verifier allows no wider merge of these loads.
///
/// # Safety
/// `words` must point to an address field of the running program's context.
#[inline(always)]
pub unsafe fn read_words(words: *const u32) -> [u32; 4] {
    // SAFETY: readable context fields, by the caller's promise.
    unsafe { [0, 1, 2, 3].map(|at| words.add(at).read_volatile()) }
}

#[inline(always)]
fn transport(ctx: &SockAddrContext) -> Transport {
    // SAFETY: context fields, one load each of the width the verifier wants.
    let (kind, protocol) = unsafe {
        let raw = ctx.sock_addr;
        ((&raw const (*raw).type_).read_volatile(), (&raw const (*raw).protocol).read_volatile())
    };
    match (kind, protocol) {
        (SOCK_STREAM, IPPROTO_TCP) => Transport::Tcp,
        (SOCK_DGRAM, IPPROTO_UDP) => Transport::Udp,
        _ => Transport::Other,
    }
}

#[inline(always)]
pub fn read_port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: a readable context field: the port in network byte order in the lower half of a u32.
    unsafe { (&raw const (*ctx.sock_addr).user_port).read_volatile() as u16 }
}

#[inline(always)]
pub fn write_address_v4(raw: *mut bpf_sock_addr, address: u32) {
    // SAFETY: a writable context field.
    unsafe { (&raw mut (*raw).user_ip4).write_volatile(address) };
}

#[inline(always)]
pub fn write_address_v6(raw: *mut bpf_sock_addr, address: [u32; 4]) {
    // SAFETY: writable context fields; one store a word.
    unsafe {
        let words = (&raw mut (*raw).user_ip6).cast::<u32>();
        words.write_volatile(address[0]);
        words.add(1).write_volatile(address[1]);
        words.add(2).write_volatile(address[2]);
        words.add(3).write_volatile(address[3]);
    }
}

#[inline(always)]
pub fn write_port(raw: *mut bpf_sock_addr, port: u16) {
    // SAFETY: a writable context field.
    unsafe { (&raw mut (*raw).user_port).write_volatile(u32::from(port)) };
}
