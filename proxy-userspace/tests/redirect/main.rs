//! The kernel half on the real kernel: real sockets of real processes in cgroups and network namespaces that each
//! test makes for itself. Needs root and a build with the kernel half; fails without.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod destinations;
mod existing;
mod failure;
mod foreign;
mod lifecycle;
mod log;
mod others;
mod records;
mod repair;
mod rig;
mod rules;
mod udp;
