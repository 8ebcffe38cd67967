//! HTTP as pure functions: parsing, framing, what may be forwarded, heads from one version to another. No I/O, no
//! policy.

pub mod basic;
pub mod chunked;
pub mod coding;
pub mod date;
pub mod forward;
pub mod forwarded;
pub mod framing;
pub mod head;
pub mod headers;
pub mod http2;
pub mod pac;
pub mod parse;
pub mod path;
pub mod replace;
pub mod status;
pub mod trailers;
pub mod websocket;

pub use crate::authority;
