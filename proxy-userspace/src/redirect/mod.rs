//! The kernel half seen from userspace: load, attach, tell what is captured, look up original destinations.
