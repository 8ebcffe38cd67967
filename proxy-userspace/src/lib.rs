//! weir: an eBPF-assisted transparent and explicit HTTP proxy for Linux.

#![deny(unsafe_code)]

pub mod config;
pub mod http;
pub mod net;
pub mod redirect;
pub mod relay;
pub mod target;
pub mod telemetry;
