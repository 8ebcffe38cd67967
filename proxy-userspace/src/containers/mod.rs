//! Containers: the network namespaces they have of their own.
//!
//! What is to be captured is decided elsewhere.

mod namespaces;

pub use namespaces::{Door, EnterError, Namespaces};
