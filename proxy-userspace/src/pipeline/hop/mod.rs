//! The protocols in which weir speaks to a next hop: a file each.

pub(super) mod http1;
pub(super) mod http2;
