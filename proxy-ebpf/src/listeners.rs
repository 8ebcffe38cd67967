//! The proxy's listeners: where they are in each network namespace, and to which port of several a connection goes. And
//! network namespaces in which connections were to be redirected and nobody listens yet: userspace looks for these every
//! so often, and enters them; until then the fail mode decides.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_prandom_u32};
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::SockAddrContext;
use proxy_common::ListenerPorts;

use crate::attempt::Attempt;
use crate::decide::tgid;
use crate::maps::{
    BPF_ANY, DNS_PORT_V4, DNS_PORT_V6, FURTHER_PORTS, LISTENER_NETNS, LISTENER_PORT_V4, LISTENER_PORT_V6,
    NAMESPACES, PLACEHOLDER,
};

/// A process in each, by the namespace's cookie. Userspace takes them out; those for which there is no room come again
/// with their next connection.
#[map]
static UNSERVED: HashMap<u64, u32> = HashMap::with_max_entries(PLACEHOLDER, BPF_F_NO_PREALLOC);

/// One of the ports in a row from `first` on (host byte order), in network byte order. By chance: whatever has a
/// pattern, a program's connections may have, too, and then they would be at one port again.
#[inline(always)]
pub fn one_of(first: u16) -> u16 {
    if first == 0 {
        return 0;
    }
    // SAFETY: a plain helper call.
    let random = unsafe { bpf_get_prandom_u32() } as u16;
    first.wrapping_add(random & FURTHER_PORTS.load()).to_be()
}

#[inline(always)]
pub fn note_unserved(attempt: &Attempt<'_>) {
    let _ = UNSERVED.insert(attempt.netns(), tgid(), BPF_ANY);
}

/// What map keys say of the network namespace: 0 where the proxy can't learn cookies.
#[inline(always)]
pub fn known_netns(ctx: &SockAddrContext) -> u64 {
    if LISTENER_NETNS.load() == 0 { 0 } else { netns(ctx) }
}

#[inline(always)]
pub fn netns(ctx: &SockAddrContext) -> u64 {
    // SAFETY: a plain helper call (since Linux 5.7).
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// The proxy's own network namespace. Where it can't learn the cookie it runs in the initial one, whose cookie the helper
/// gives for a null context.
#[inline(always)]
fn home() -> u64 {
    match LISTENER_NETNS.load() {
        // SAFETY: a null context is allowed and means the initial namespace.
        0 => unsafe { bpf_get_netns_cookie(core::ptr::null_mut()) },
        cookie => cookie,
    }
}

#[inline(always)]
pub fn is_home(ctx: &SockAddrContext) -> bool {
    netns(ctx) == home()
}

/// 127.0.0.1 is a different place in each network namespace.
#[inline(always)]
pub fn ports(ctx: &SockAddrContext) -> Option<ListenerPorts> {
    let netns = netns(ctx);
    if netns == home() {
        let (v4, v6) = (LISTENER_PORT_V4.load(), LISTENER_PORT_V6.load());
        return Some(ListenerPorts { v4, v6, dns_v4: DNS_PORT_V4.load(), dns_v6: DNS_PORT_V6.load() });
    }
    let ports = NAMESPACES.get_ptr(netns)?.cast::<u64>();
    // SAFETY: an aligned value of that size, read at once. In one piece: to choose between its parts later would be
    // arithmetic with a pointer, which is refused without CAP_PERFMON.
    let [a, b, c, d, e, f, g, h] = unsafe { ports.read_volatile() }.to_ne_bytes();
    let port = |a, b| u16::from_ne_bytes([a, b]);
    Some(ListenerPorts { v4: port(a, b), v6: port(c, d), dns_v4: port(e, f), dns_v6: port(g, h) })
}
