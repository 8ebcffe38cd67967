//! Moves bytes between two sockets: lazily piped, adaptive between read/write and splice, and honest about
//! how a connection ended. What the bytes mean is not known here.

pub mod body;
mod buffers;
#[cfg(feature = "compression")]
pub mod compress;
pub mod copied;
mod direction;
mod pipe;
pub mod references;
pub mod replace;
pub mod replaced;
pub mod stage;
pub mod stream;
mod tunnel;

pub use copied::TunnelEnd;
pub use tunnel::{End, Settings, Side, Tunnel, copy, relay};
