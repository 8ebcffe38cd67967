//! What is captured, and how it comes and goes: the control plane's side of the kernel half.

mod adopt;
mod hook;
mod inside;
mod programs;
mod resolve;
mod targets;
mod unserved;

pub use adopt::adopt;
pub use hook::{HookError, Starting, about_to_start};
pub use inside::enter;
pub use targets::start;
