//! The capabilities of this thread and of those that it will start (capabilities(7)).

use std::collections::HashSet;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};

/// What a weir keeps that becomes an ordinary user: to load and attach programs (CAP_BPF, CAP_NET_ADMIN), to tell the
/// executable of a process in them (CAP_PERFMON), to say by ICMP that nobody listens (CAP_NET_RAW), and to listen on ports
/// below 1024 (CAP_NET_BIND_SERVICE).
pub(super) const KEPT: [Capability; 5] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_RAW,
    Capability::CAP_NET_BIND_SERVICE,
];

/// What this thread may do now; sorted. None: it can't be found out.
#[must_use]
pub fn held() -> Option<Vec<String>> {
    let held = caps::read(None, CapSet::Effective).ok()?;
    let mut names: Vec<String> = held.iter().map(ToString::to_string).collect();
    names.sort();
    Some(names)
}

/// Gives up all others, for programs that this process might run as well. The user must have all of them still.
pub(super) fn keep_only(kept: &[Capability]) -> Result<(), CapsError> {
    bound(kept)?;
    hold(kept)
}

/// Nothing that this thread starts, whoever owns its file, comes to hold others.
pub(super) fn bound(kept: &[Capability]) -> Result<(), CapsError> {
    for other in caps::all().into_iter().filter(|one| !kept.contains(one)) {
        // The kernel may not know it yet.
        if caps::has_cap(None, CapSet::Bounding, other).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, other)?;
        }
    }
    Ok(())
}

/// Holds of these what is permitted, and nothing else. What it holds can be passed on by [`pass_on`].
pub(super) fn hold(kept: &[Capability]) -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = kept.iter().copied().filter(|one| permitted.contains(one)).collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::set(None, CapSet::Inheritable, &kept)
}

/// Runs `start`, and what it starts gets what this thread holds, if it is an ordinary user's: by itself it would not.
///
/// # Errors
/// The kernel does not let it be passed on; nothing was started.
pub fn pass_on<T>(start: impl FnOnce() -> T) -> Result<T, CapsError> {
    let (permitted, inheritable) = (read(CapSet::Permitted)?, read(CapSet::Inheritable)?);
    let passed: CapsHashSet = permitted.intersection(&inheritable).copied().collect();
    caps::set(None, CapSet::Ambient, &passed)?;
    let started = start();
    keep_to_oneself()?;
    Ok(started)
}

/// What this process was given at its start is not for programs that it runs.
///
/// # Errors
/// The kernel refuses.
pub fn keep_to_oneself() -> Result<(), CapsError> {
    caps::set(None, CapSet::Ambient, &HashSet::new())
}

fn read(set: CapSet) -> Result<CapsHashSet, CapsError> {
    caps::read(None, set)
}
