//! Apps of which nothing more is known than that they speak HTTP: their prefix is taken off, they are told of it, and what
//! they send back is mapped.

use super::Handler;

#[derive(Debug)]
pub(super) struct Generic;

impl Handler for Generic {
    fn name(&self) -> &'static str {
        "generic"
    }
}
