//! The life of a captured connection's record, from the SYN to the end of its socket.
//!
//! connect4/6 wrote it by socket cookie (`ORIGINALS`). `offer` puts it where the proxy can name it (`CLAIMS`), before
//! the SYN leaves: the proxy can't accept before it is there. The proxy takes it from there; what it hasn't taken
//! when the socket ends is moved to `CLOSED` or dropped.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, BPF_TCP_SYN_SENT},
    helpers::generated::bpf_get_socket_cookie,
    programs::{SockAddrContext, SockContext, SockOpsContext},
};
use proxy_common::{Captured, Counter, Endpoint};

use crate::attempt::{MAPPED, is_mapped, read_words, write_address_v4, write_address_v6, write_port};
use crate::maps::{BPF_ANY, CLAIMS, CLOSED, ORIGINALS, count};

/// TCP_CONNECT_CB: the local address and port are chosen, the SYN hasn't left.
#[inline(always)]
pub fn offer(ctx: &SockOpsContext) {
    let cookie = cookie(ctx.as_ptr());
    let Some(captured) = ORIGINALS.get_ptr_mut(cookie) else { return };
    // SAFETY: the record belongs to this socket, and the socket is locked.
    let captured = unsafe { &mut *captured };
    let v4 = is_mapped(&captured.original.address);
    if !goes_to(ctx, captured.claim.listener_port) {
        // Left by an earlier connect() on this socket that failed before its SYN; this one wasn't redirected.
        let _ = ORIGINALS.remove(cookie);
        return;
    }
    captured.claim.client = local_endpoint(ctx, v4);
    // One of an earlier connection with the same ends must not be found if the insertion fails.
    let _ = CLOSED.remove(&captured.claim);
    if CLAIMS.insert(&captured.claim, &*captured, BPF_ANY).is_err() {
        count(Counter::ClaimLost);
        let _ = CLAIMS.remove(&captured.claim);
    }
    let _ = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
}

/// STATE_CB: args are the old and the new state. At CLOSE the local port is still ours.
#[inline(always)]
pub fn state_changed(ctx: &SockOpsContext) {
    if ctx.arg(1) == BPF_TCP_CLOSE {
        forget(cookie(ctx.as_ptr()), ctx.arg(0) != BPF_TCP_SYN_SENT);
    }
}

/// The application closed a socket. One that still talks to its peer ends later, in `state_changed`.
#[inline(always)]
pub fn released(ctx: &SockContext) {
    // SAFETY: a readable context field.
    if unsafe { (&raw const (*ctx.sock).state).read_volatile() } == BPF_TCP_CLOSE {
        forget(cookie(ctx.as_ptr()), false);
    }
}

/// getpeername() on an AF_INET socket. False: it was not redirected.
#[inline(always)]
pub fn show_peer_v4(ctx: &SockAddrContext) -> bool {
    let Some(original) = original_of(ctx) else { return false };
    write_address_v4(ctx.sock_addr, original.address[3]);
    write_port(ctx.sock_addr, original.port);
    true
}

/// getpeername() on an AF_INET6 socket. False: it was not redirected.
#[inline(always)]
pub fn show_peer_v6(ctx: &SockAddrContext) -> bool {
    let Some(original) = original_of(ctx) else { return false };
    write_address_v6(ctx.sock_addr, original.address);
    write_port(ctx.sock_addr, original.port);
    true
}

#[inline(always)]
fn original_of(ctx: &SockAddrContext) -> Option<Endpoint> {
    // SAFETY: copied out at once; the record lives as long as its socket.
    unsafe { ORIGINALS.get(cookie(ctx.as_ptr())) }.map(|captured| captured.original)
}

/// Drops the record of a socket that ended. `established`: the proxy may still accept this connection and ask.
#[inline(always)]
fn forget(cookie: u64, established: bool) {
    // SAFETY: the record belongs to this socket, and the socket is locked or gone from its application.
    let Some(captured) = (unsafe { ORIGINALS.get(cookie) }) else { return };
    // SAFETY: a record replaced meanwhile is told by its cookie.
    let unclaimed =
        unsafe { CLAIMS.get(&captured.claim) }.is_some_and(|claim: &Captured| claim.cookie == cookie);
    if unclaimed {
        if established {
            count(Counter::ClosedUnclaimed);
            // First there, then gone from here: the proxy looks in this order.
            let _ = CLOSED.insert(&captured.claim, captured, BPF_ANY);
        }
        let _ = CLAIMS.remove(&captured.claim);
    }
    let _ = ORIGINALS.remove(cookie);
}

#[inline(always)]
fn goes_to(ctx: &SockOpsContext, port: u16) -> bool {
    // The remote port is in network byte order, but as a u32.
    u32::from_be(ctx.remote_port()) == u32::from(u16::from_be(port))
}

#[inline(always)]
fn local_endpoint(ctx: &SockOpsContext, v4: bool) -> Endpoint {
    let address = if v4 {
        [0, 0, MAPPED, ctx.local_ip4()]
    } else {
        // SAFETY: a field of the context.
        unsafe { read_words((&raw const (*ctx.ops).local_ip6).cast()) }
    };
    // The local port, unlike the remote one, is in host byte order.
    Endpoint::new(address, (ctx.local_port() as u16).to_be())
}

#[inline(always)]
fn cookie(ctx: *mut core::ffi::c_void) -> u64 {
    // SAFETY: a plain helper call.
    unsafe { bpf_get_socket_cookie(ctx) }
}
