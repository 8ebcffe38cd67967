//! Privileges: what weir holds, how it gives up what it doesn't need (`server.user`), and the small process that keeps the
//! rest. What they are needed for is told where they are used.

mod assistant;
mod capabilities;
pub mod descriptors;
mod duties;
mod processes;
mod sandbox;
mod user;

pub use assistant::{Assistant, adopt, assistant};
pub use capabilities::{held, keep_to_oneself, pass_on};
pub use duties::assist;
pub use processes::{executable, sockets};
pub use sandbox::{Confinement, SandboxError, confine, confinement, inherit};
pub use user::{Preparations, UserError, become_user, check_user};
