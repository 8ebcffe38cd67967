//! UDP is not relayed, but for DNS (see `dns`): it goes direct, or a rule refuses it. QUIC would take the way around the proxy, so it is refused
//! exactly where TCP to the same destination would be redirected; its clients then use TCP.

use crate::attempt::{Attempt, Transport};
use crate::dns;
use crate::maps::QUIC_PORT;
use crate::rules::Rules;

/// Whether to look no further: nearly all datagrams where there are no rules.
#[inline(always)]
pub fn is_of_no_concern(attempt: &Attempt<'_>) -> bool {
    attempt.transport == Transport::Udp
        && !is_quic(attempt)
        && !dns::is_query(attempt)
        && Rules::in_force().is_none()
}

/// Where TCP would be redirected, this is what can't be let through.
#[inline(always)]
pub fn is_quic(attempt: &Attempt<'_>) -> bool {
    let port = QUIC_PORT.load();
    port != 0 && attempt.destination.port == port
}
