//! Starts weir, peers and clients for the end-to-end tests.

pub mod http;
pub mod netns;
pub mod origin;
pub mod pattern;
pub mod weir;
