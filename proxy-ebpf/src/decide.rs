//! What happens to a connect(), or to a datagram: the one place where that is decided.
//!
//! `decide` gives the verdict: exemptions, then the first rule that matches, then the nearest selected cgroup;
//! `connect` carries it out.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_set_retval,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
use aya_log_ebpf::debug;
use proxy_common::{
    ACTION_BYPASS, ACTION_DENY, Captured, ClaimKey, Comm, Counter, ERRNO_REFUSED, ERRNO_UNREACHABLE,
    Endpoint, FAIL_OPEN, MAX_CGROUP_DEPTH, OUTCOME_DENIED, OUTCOME_DIRECT, OUTCOME_REDIRECTED, Policy,
    RuleSet,
};

use crate::attempt::{Attempt, LOCALHOST_V4, Listener, Transport};
use crate::listeners::known_netns;
use crate::local::{Scope, scope};
use crate::maps::{
    BPF_ANY, CGROUPS, FIRST_LEVEL, HAS_CURRENT_COMM, HAS_SET_RETVAL, ORIGINALS, OWN_TGID, SIBLINGS, count,
};
use crate::rules::Rules;
use crate::{dns, events, gate, listeners, maps, others, targets, udp};

/// The system call goes on.
pub const PROCEED: i32 = 1;
const REFUSE: i32 = 0;

/// That nobody said anything. A policy as any other, not an `Option`: what is never written is refused without
/// CAP_PERFMON, even where it is only copied.
const NO_POLICY: Policy = Policy { action: ACTION_NONE, fail: FAIL_OPEN, errno: 0, rule: 0 };
const ACTION_NONE: u32 = u32::MAX;

enum Verdict {
    /// Leave it alone; the counter says why.
    Pass(Counter),
    Bypass(Policy),
    Deny(Policy),
    Redirect(Policy, Listener),
    /// It would be redirected, if there were anybody to take it.
    Unserved(Policy, Counter),
}

/// What came of it, and why.
struct Conclusion {
    /// One of the `OUTCOME_` constants.
    outcome: u32,
    reason: Counter,
    policy: Policy,
}

/// Runs in connect4 and connect6, sendmsg4 and sendmsg6.
#[inline(always)]
pub fn judge(attempt: &Attempt<'_>) -> i32 {
    let Conclusion { outcome, reason, policy } = match decide(attempt) {
        // Of no concern to anybody, and nearly all there is on a busy host.
        Verdict::Pass(reason @ (Counter::BypassProtocol | Counter::BypassOwn)) => {
            count(reason);
            return PROCEED;
        }
        Verdict::Pass(reason) => conclude(OUTCOME_DIRECT, reason, NO_POLICY),
        Verdict::Bypass(policy) => conclude(OUTCOME_DIRECT, Counter::BypassAction, policy),
        Verdict::Deny(policy) => conclude(OUTCOME_DENIED, Counter::Denied, policy),
        Verdict::Redirect(policy, listener) => redirect(attempt, policy, listener),
        Verdict::Unserved(policy, reason) => fail(reason, policy),
    };
    count(reason);
    events::tell(attempt, outcome, reason, policy.rule);
    if outcome == OUTCOME_DENIED { refuse(policy.errno) } else { PROCEED }
}

#[inline(always)]
fn conclude(outcome: u32, reason: Counter, policy: Policy) -> Conclusion {
    Conclusion { outcome, reason, policy }
}

#[inline(always)]
fn decide(attempt: &Attempt<'_>) -> Verdict {
    if attempt.transport == Transport::Other || udp::is_of_no_concern(attempt) {
        return Verdict::Pass(Counter::BypassProtocol);
    }
    if is_weir(tgid()) {
        return Verdict::Pass(Counter::BypassOwn);
    }
    if others::have_refused() {
        return Verdict::Pass(Counter::BypassRefused);
    }
    let scope = scope(attempt);
    if scope == Scope::Nobody {
        return Verdict::Pass(Counter::BypassDestination);
    }
    let policy = policy(attempt, scope);
    match policy.action {
        ACTION_DENY => return Verdict::Deny(policy),
        _ if scope != Scope::All => return Verdict::Pass(Counter::BypassDestination),
        ACTION_BYPASS => return Verdict::Bypass(policy),
        ACTION_NONE => return Verdict::Pass(Counter::BypassCgroup),
        _ => {}
    }
    let query = dns::is_query(attempt);
    if attempt.transport == Transport::Udp && !query && !udp::is_quic(attempt) {
        return Verdict::Pass(Counter::BypassProtocol);
    }
    if attempt.is_bound_to_device() {
        return Verdict::Pass(Counter::BypassDevice);
    }
    let Some(listener) = attempt.listener() else {
        listeners::note_unserved(attempt);
        return Verdict::Unserved(policy, Counter::GateNetns);
    };
    if listener.port == 0 || query && listener.dns == 0 {
        return Verdict::Pass(Counter::BypassFamily);
    }
    Verdict::Redirect(policy, listener)
}

/// This one, or another that takes over from it or finishes what it had begun.
#[inline(always)]
fn is_weir(tgid: u32) -> bool {
    tgid == OWN_TGID.load() || SIBLINGS.get(0).is_some_and(|siblings| siblings.contains(&tgid))
}

/// Never redirects without a record of the original destination, and never to a proxy that isn't there.
#[inline(always)]
fn redirect(attempt: &Attempt<'_>, policy: Policy, listener: Listener) -> Conclusion {
    if let Some(reason) = gate::closed(attempt.ctx, listener) {
        return fail(reason, policy);
    }
    if dns::is_query(attempt) {
        return match dns::redirect(attempt, listener) {
            Ok(()) => conclude(OUTCOME_REDIRECTED, Counter::RedirectedDns, policy),
            Err(reason) => fail(reason, policy),
        };
    }
    if attempt.transport == Transport::Udp {
        return conclude(OUTCOME_DENIED, Counter::DeniedQuic, policy);
    }
    let captured = record(attempt, listener, policy.rule);
    if ORIGINALS.insert(captured.cookie, captured, BPF_ANY).is_err() {
        return fail(Counter::GateFull, policy);
    }
    attempt.rewrite(if listener.v4 { Some(LOCALHOST_V4) } else { None }, listener.port);
    debug!(
        attempt.ctx,
        "redirect pid {} cookie {} port {}",
        captured.pid,
        captured.cookie,
        u16::from_be(captured.original.port)
    );
    conclude(OUTCOME_REDIRECTED, Counter::Redirected, policy)
}

#[inline(always)]
fn fail(reason: Counter, policy: Policy) -> Conclusion {
    if policy.fail == FAIL_OPEN {
        count(Counter::FailedOpen);
        return conclude(OUTCOME_DIRECT, reason, policy);
    }
    count(Counter::FailedClosed);
    conclude(OUTCOME_DENIED, reason, policy)
}

#[inline(always)]
fn refuse(errno: u32) -> i32 {
    if HAS_SET_RETVAL.load() != 0 {
        // Linux 7.2 and newer want to see that it is an errno.
        let errno = if errno == ERRNO_UNREACHABLE { ERRNO_UNREACHABLE } else { ERRNO_REFUSED };
        // SAFETY: a plain helper call; without it the kernel answers EPERM.
        unsafe { bpf_set_retval(-(errno as i32)) };
    }
    REFUSE
}

#[inline(always)]
fn record(attempt: &Attempt<'_>, listener: Listener, rule: u32) -> Captured {
    Captured {
        original: attempt.destination,
        // The address is filler: see `comm` for zeros.
        claim: ClaimKey::new(
            Endpoint::new(attempt.destination.address, 0),
            listener.port,
            known_netns(attempt.ctx),
        ),
        cookie: attempt.cookie(),
        // SAFETY: a plain helper call.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        pid: tgid(),
        uid: bpf_get_current_uid_gid() as u32,
        rule,
        comm: comm(),
    }
}

#[inline(always)]
pub fn comm() -> Comm {
    let mut comm = MaybeUninit::<Comm>::uninit();
    // SAFETY: either way all of it is written; the helper pads with zeros.
    unsafe {
        if HAS_CURRENT_COMM.load() != 0 {
            bpf_get_current_comm(comm.as_mut_ptr().cast(), size_of::<Comm>() as u32);
        } else {
            // Words, one by one: zeroing bytes is a loop, which is refused without CAP_PERFMON.
            let words = comm.as_mut_ptr().cast::<u64>();
            words.write_volatile(0);
            words.add(1).write_volatile(0);
        }
        comm.assume_init()
    }
}

#[inline(always)]
pub fn tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// What the first matching rule says, else what is said of the nearest selected ancestor of the current cgroup, itself
/// included, or of the user or executable. What is selected has no say of an exempt destination.
#[inline(always)]
fn policy(attempt: &Attempt<'_>, scope: Scope) -> Policy {
    let rules = Rules::in_force();
    let mut nearest = NO_POLICY;
    let mut admitting = RuleSet::EMPTY;
    let first = FIRST_LEVEL.load();
    for level in first..first + MAX_CGROUP_DEPTH {
        // SAFETY: a plain helper call; 0 below the current cgroup's own level.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        if id == 0 {
            break;
        }
        // SAFETY: read during this run of the program only. Userspace may replace it meanwhile: either one is right.
        if let Some(policy) = unsafe { CGROUPS.get(id) } {
            nearest = maps::copied(policy);
        }
        if let Some(rules) = rules {
            rules.add_cgroup(id, &mut admitting);
        }
    }
    if nearest.action == ACTION_NONE
        && let Some(policy) = targets::policy()
    {
        nearest = policy;
    }
    if let Some(rules) = rules
        && let Some(matched) = rules.first_match(attempt, scope, &admitting, nearest.action != ACTION_NONE)
    {
        return matched.policy;
    }
    if scope == Scope::All { nearest } else { NO_POLICY }
}
