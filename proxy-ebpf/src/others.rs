//! Programs of others on the same hooks, as far as they can be noticed: they run before ours or after it, and what one
//! refuses is refused. Which there are, userspace asks the kernel.

use aya_ebpf::helpers::generated::bpf_get_retval;

use crate::maps::HAS_SET_RETVAL;

/// Whether one that ran before has refused this connect() or datagram. Whatever we do, it fails: it is not to be
/// recorded as one of the proxy's. Before Linux 5.18 nobody can tell.
#[inline(always)]
pub fn have_refused() -> bool {
    // SAFETY: a plain helper call, of the same age as the one that is known to exist.
    HAS_SET_RETVAL.load() != 0 && unsafe { bpf_get_retval() } < 0
}
