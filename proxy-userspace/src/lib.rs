//! weir: an eBPF-assisted transparent and explicit HTTP proxy for Linux.
pub mod config;
pub mod redirect;
