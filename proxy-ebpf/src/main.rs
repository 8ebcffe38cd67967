//! The kernel half of weir: decides at connect() whether a TCP socket goes to the proxy, and remembers where it
//! meant to go.
//!
//! It decides and records, no more. A lookup that fails lets the connection pass or refuses it by policy; it never
//! hangs one. All programs sit on one cgroup, so each socket is seen by all or by none of them.
//!
//! Must load on Linux 5.10: what is newer stands behind a read-only global (see `maps`).
#![no_std]
#![no_main]

mod attempt;
mod decide;
mod dns;
mod events;
mod gate;
mod listeners;
mod local;
mod maps;
mod original;
mod others;
mod rules;
mod targets;
mod udp;

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_TCP_CONNECT_CB},
    macros::{cgroup_sock, cgroup_sock_addr, sock_ops},
    programs::{SockAddrContext, SockContext, SockOpsContext},
};

use crate::attempt::Attempt;
use crate::decide::PROCEED;

/// sockops: nothing to say.
const HANDLED: u32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn weir_connect4(ctx: SockAddrContext) -> i32 {
    decide::judge(&Attempt::v4(&ctx))
}

#[cgroup_sock_addr(connect6)]
pub fn weir_connect6(ctx: SockAddrContext) -> i32 {
    decide::judge(&Attempt::v6(&ctx))
}

#[cgroup_sock_addr(sendmsg4)]
pub fn weir_sendmsg4(ctx: SockAddrContext) -> i32 {
    decide::judge(&Attempt::v4(&ctx).datagram())
}

#[cgroup_sock_addr(sendmsg6)]
pub fn weir_sendmsg6(ctx: SockAddrContext) -> i32 {
    decide::judge(&Attempt::v6(&ctx).datagram())
}

#[cgroup_sock_addr(recvmsg4)]
pub fn weir_recvmsg4(ctx: SockAddrContext) -> i32 {
    dns::show_server_v4(&ctx);
    PROCEED
}

#[cgroup_sock_addr(recvmsg6)]
pub fn weir_recvmsg6(ctx: SockAddrContext) -> i32 {
    dns::show_server_v6(&ctx);
    PROCEED
}

#[cgroup_sock_addr(getpeername4)]
pub fn weir_peername4(ctx: SockAddrContext) -> i32 {
    if !original::show_peer_v4(&ctx) {
        dns::show_server_v4(&ctx);
    }
    PROCEED
}

#[cgroup_sock_addr(getpeername6)]
pub fn weir_peername6(ctx: SockAddrContext) -> i32 {
    if !original::show_peer_v6(&ctx) {
        dns::show_server_v6(&ctx);
    }
    PROCEED
}

// A program may not be named like its section.
#[sock_ops]
pub fn weir_sockops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => original::offer(&ctx),
        BPF_SOCK_OPS_STATE_CB => original::state_changed(&ctx),
        _ => {}
    }
    HANDLED
}

#[cgroup_sock(sock_release)]
pub fn weir_release(ctx: SockContext) -> i32 {
    original::released(&ctx);
    PROCEED
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics; the verifier would refuse the endless loop if it were reachable.
    loop {}
}

// The helpers used are GPL-only; the kernel accepts this string as compatible.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
