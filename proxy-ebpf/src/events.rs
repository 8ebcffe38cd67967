//! Each decision as a record, for as long as somebody follows. Without a follower it is one look-up in an array.

use aya_ebpf::helpers::bpf_get_current_uid_gid;
use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, RingBuf};
use proxy_common::{Counter, Event};

use crate::attempt::{Attempt, Transport};
use crate::decide::{comm, tgid};
use crate::maps::count;

/// 1: somebody follows the decisions.
#[map]
static FOLLOWED: Array<u32> = Array::with_max_entries(1, 0);

/// The decisions, as `Event`s.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

#[inline(always)]
pub fn tell(attempt: &Attempt<'_>, outcome: u32, reason: Counter, rule: u32) {
    if FOLLOWED.get(0).is_none_or(|followed| *followed == 0) {
        return;
    }
    let Some(mut record) = EVENTS.reserve::<Event>(0) else {
        return count(Counter::EventsLost);
    };
    record.write(Event {
        destination: attempt.destination,
        pid: tgid(),
        // SAFETY: a plain helper call.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        netns: attempt.netns(),
        uid: bpf_get_current_uid_gid() as u32,
        outcome,
        reason: reason as u32,
        rule,
        udp: (attempt.transport == Transport::Udp) as u32,
        padding: 0,
        comm: comm(),
    });
    record.submit(0);
}
