//! DNS over UDP: redirected to an address of loopback that stands for the server; see proxy_common::dns. Whoever asks
//! for the peer is shown the server, and an answer looks as if it came from there.
//!
//! DNS over TCP is redirected as any TCP is. What queries and answers say is not looked at here.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::SockAddrContext;
use proxy_common::{
    Counter, DnsServer, Endpoint, SERVERS_V6, SLOT_MASK, SLOT_NETWORK, SLOT_PROBES, SLOT_V6, ServerKey,
};

use crate::attempt::{
    Attempt, Listener, Transport, is_mapped, read_port, read_words, write_address_v4, write_address_v6,
    write_port,
};
use crate::listeners::{self, known_netns};
use crate::maps::{BPF_NOEXIST, DNS_PORT, PLACEHOLDER};

/// DNS servers by the addresses of loopback that stand for them. Only userspace removes any: an address never comes to
/// stand for another server while a socket may use it.
#[map]
static DNS_SERVERS: HashMap<ServerKey, DnsServer> = HashMap::with_max_entries(PLACEHOLDER, BPF_F_NO_PREALLOC);

#[inline(always)]
pub fn is_query(attempt: &Attempt<'_>) -> bool {
    attempt.transport == Transport::Udp && is_dns(&attempt.destination)
}

/// A DNS server on loopback or at a link-local address of IPv4 is judged as any other: it asks others in its turn. (One
/// at fe80::/10 could not be reached without its zone, which these hooks don't tell.)
#[inline(always)]
pub fn is_local_server(destination: &Endpoint) -> bool {
    if !is_dns(destination) {
        return false;
    }
    let [a, b, c, d] = destination.address;
    if is_mapped(&destination.address) {
        let [first, second, _, _] = d.to_ne_bytes();
        return first == 127 || (first == 169 && second == 254);
    }
    a == 0 && b == 0 && c == 0 && d == 1_u32.to_be()
}

/// Sends it to the proxy.
///
/// # Errors
/// There is no room for another server.
#[inline(always)]
pub fn redirect(attempt: &Attempt<'_>, listener: Listener) -> Result<(), Counter> {
    let netns = known_netns(attempt.ctx);
    let server = &attempt.destination;
    if listener.v4 {
        let first = scatter(server.address[3]);
        let slot = slot(netns, server, first, SLOT_MASK, 0, SLOT_PROBES).ok_or(Counter::GateFull)?;
        attempt.rewrite(Some((SLOT_NETWORK | slot).to_be()), listener.dns);
    } else {
        let slot = slot(netns, server, 0, !SLOT_V6, SLOT_V6, SERVERS_V6).ok_or(Counter::GateFull)?;
        attempt.rewrite(None, (listener.dns.wrapping_add(slot as u16)).to_be());
    }
    Ok(())
}

/// recvmsg() and getpeername() on an AF_INET socket.
#[inline(always)]
pub fn show_server_v4(ctx: &SockAddrContext) {
    // SAFETY: a readable context field.
    let address = unsafe { (&raw const (*ctx.sock_addr).user_ip4).read_volatile() };
    if let Some(server) = behind_v4(ctx, address) {
        write_address_v4(ctx.sock_addr, server.address[3]);
        write_port(ctx.sock_addr, server.port);
    }
}

/// The same on an AF_INET6 socket.
#[inline(always)]
pub fn show_server_v6(ctx: &SockAddrContext) {
    // SAFETY: a field of the context.
    let address = unsafe { read_words((&raw const (*ctx.sock_addr).user_ip6).cast()) };
    let server = if is_mapped(&address) { behind_v4(ctx, address[3]) } else { behind_v6(ctx, &address) };
    if let Some(server) = server {
        write_address_v6(ctx.sock_addr, server.address);
        write_port(ctx.sock_addr, server.port);
    }
}

#[inline(always)]
fn is_dns(destination: &Endpoint) -> bool {
    let port = DNS_PORT.load();
    port != 0 && destination.port == port
}

/// The slot of a server, of `probes` numbers from `first` on; a free one becomes its own.
#[inline(always)]
fn slot(netns: u64, server: &Endpoint, first: u32, mask: u32, mark: u32, probes: u32) -> Option<u32> {
    for probe in 0..probes {
        let slot = first.wrapping_add(probe) & mask;
        let key = ServerKey::new(netns, slot | mark);
        // SAFETY: userspace may remove it at any time, but its memory is a value of this map as long as this program runs.
        match unsafe { DNS_SERVERS.get(key) } {
            Some(known) if known.retiring == 0 && is_same(&known.endpoint, server) => return Some(slot),
            Some(_) => {}
            // Another CPU may be faster; then the next one is as good.
            None if DNS_SERVERS.insert(key, DnsServer::new(*server), BPF_NOEXIST).is_ok() => {
                return Some(slot);
            }
            None => {}
        }
    }
    None
}

#[inline(always)]
fn behind_v4(ctx: &SockAddrContext, address: u32) -> Option<Endpoint> {
    let address = u32::from_be(address);
    if address & !SLOT_MASK != SLOT_NETWORK || DNS_PORT.load() == 0 {
        return None;
    }
    // Another program may have such an address, too, but not with this port.
    let ports = listeners::ports(ctx)?;
    if ports.dns_v4 == 0 || read_port(ctx) != ports.dns_v4 {
        return None;
    }
    server(ctx, address & SLOT_MASK)
}

#[inline(always)]
fn behind_v6(ctx: &SockAddrContext, address: &[u32; 4]) -> Option<Endpoint> {
    let is_localhost = address[0] == 0 && address[1] == 0 && address[2] == 0 && address[3] == 1_u32.to_be();
    if !is_localhost || DNS_PORT.load() == 0 {
        return None;
    }
    let ports = listeners::ports(ctx)?;
    let number = u32::from(u16::from_be(read_port(ctx)).wrapping_sub(ports.dns_v6));
    if ports.dns_v6 == 0 || number >= SERVERS_V6 {
        return None;
    }
    server(ctx, number | SLOT_V6)
}

#[inline(always)]
fn server(ctx: &SockAddrContext, slot: u32) -> Option<Endpoint> {
    // SAFETY: as in `slot`.
    unsafe { DNS_SERVERS.get(ServerKey::new(known_netns(ctx), slot)) }.map(|server| server.endpoint)
}

#[inline(always)]
fn is_same(a: &Endpoint, b: &Endpoint) -> bool {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.address, b.address);
    a0 == b0 && a1 == b1 && a2 == b2 && a3 == b3
}

/// Spreads addresses that lie side by side (Knuth's multiplicative hash).
#[inline(always)]
fn scatter(address: u32) -> u32 {
    address.wrapping_mul(0x9e37_79b1) >> 8
}
