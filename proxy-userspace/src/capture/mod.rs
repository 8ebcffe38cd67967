//! What is captured, and how it comes and goes: the control plane's side of the kernel half.

mod inside;
mod resolve;
mod targets;

pub use inside::enter;
pub use targets::start;
