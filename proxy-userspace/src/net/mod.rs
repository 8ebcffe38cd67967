//! Sockets, addresses and time, as the data plane needs them.

pub mod address;
pub mod admission;
pub mod buffered;
pub mod deadline;
pub mod frames;
pub mod gathered;
pub mod listener;
pub mod pacing;
pub mod pair;
pub mod place;
#[cfg(feature = "redis")]
pub mod redis;
pub mod stream;
pub mod transport;
