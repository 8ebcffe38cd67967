//! What is captured, and how it comes and goes: the control plane's side of the kernel half.

mod inside;

pub use inside::enter;
