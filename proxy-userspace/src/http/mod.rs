//! HTTP/1 as pure functions over bytes: parsing, framing, what may be forwarded. No I/O, no policy.

pub mod chunked;
pub mod forward;
pub mod forwarded;
pub mod framing;
pub mod head;
pub mod headers;
pub mod parse;
pub mod status;

pub use crate::authority;
