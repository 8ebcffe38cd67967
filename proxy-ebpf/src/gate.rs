//! The liveness gate: is there a proxy that would serve the connection? Asked at each connect(), so that no
//! connection is sent to a proxy that is dead (nobody listens) or stopped (its heartbeat is old).

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_CURRENT_NETNS, BPF_TCP_LISTEN, bpf_sock_tuple,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as TupleV6,
    },
    helpers::generated::{bpf_ktime_get_ns, bpf_sk_lookup_tcp, bpf_sk_release},
    programs::SockAddrContext,
};
use proxy_common::Counter;

use crate::attempt::{LOCALHOST_V4, Listener};
use crate::maps::{HEARTBEAT, HEARTBEAT_TIMEOUT};

/// None: the proxy is alive. Otherwise what is wrong.
#[inline(always)]
pub fn closed(ctx: &SockAddrContext, listener: Listener) -> Option<Counter> {
    if !heartbeat_is_fresh() {
        return Some(Counter::GateHeartbeat);
    }
    if !is_listening(ctx, listener) {
        return Some(Counter::GateListener);
    }
    None
}

#[inline(always)]
fn heartbeat_is_fresh() -> bool {
    let Some(last) = HEARTBEAT.get(0) else { return false };
    // SAFETY: a plain helper call.
    let now = unsafe { bpf_ktime_get_ns() };
    now.saturating_sub(*last) <= HEARTBEAT_TIMEOUT.load()
}

#[inline(always)]
fn is_listening(ctx: &SockAddrContext, listener: Listener) -> bool {
    let port = listener.port;
    // Zeroed source: such a connection can't exist, so the lookup can only find a listener.
    if listener.v4 {
        let mut tuple = TupleV4 { saddr: 0, daddr: LOCALHOST_V4, sport: 0, dport: port };
        lookup(ctx, (&raw mut tuple).cast(), size_of::<TupleV4>() as u32)
    } else {
        // Words, one by one: zeroing bytes is a loop, which is refused without CAP_PERFMON.
        let mut tuple = MaybeUninit::<TupleV6>::uninit();
        let words = tuple.as_mut_ptr().cast::<u32>();
        for (at, word) in [0, 0, 0, 0, 0, 0, 0, 1_u32.to_be(), ports_word(port)].into_iter().enumerate() {
            // SAFETY: the tuple has nine words: two addresses and two ports.
            unsafe { words.add(at).write_volatile(word) };
        }
        lookup(ctx, tuple.as_mut_ptr().cast(), size_of::<TupleV6>() as u32)
    }
}

/// The last word of a tuple: no source port, and the destination's.
#[inline(always)]
fn ports_word(port: u16) -> u32 {
    let [a, b] = port.to_ne_bytes();
    u32::from_ne_bytes([0, 0, a, b])
}

#[inline(always)]
fn lookup(ctx: &SockAddrContext, tuple: *mut bpf_sock_tuple, size: u32) -> bool {
    // SAFETY: the tuple is initialised and lives on our stack; the reference is given back below.
    let socket = unsafe { bpf_sk_lookup_tcp(ctx.as_ptr(), tuple, size, BPF_F_CURRENT_NETNS as u64, 0) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null, and a readable field.
    let state = unsafe { (&raw const (*socket).state).read_volatile() };
    // SAFETY: the reference taken above.
    unsafe { bpf_sk_release(socket.cast()) };
    state == BPF_TCP_LISTEN
}
