//! Which way a target is reached. Today's table has two rows; rules by host and path, parent proxies and
//! balanced groups become further rows of it.

use crate::target::{Hop, Target};

/// The next hop for a target. None if the target names no place to go to.
#[must_use]
pub fn next_hop(target: &Target) -> Option<Hop> {
    match (target.original_destination, &target.authority) {
        // A captured connection goes where the application meant it to go, whatever Host or SNI say.
        (Some(address), _) => Some(Hop::Address(address, target.vantage.clone())),
        (None, Some(authority)) => Some(Hop::Authority(authority.clone())),
        (None, None) => None,
    }
}
