//! `weir guard`, which weir starts itself: see `sysproxy::guardian`.

use super::{FAILED, Failed};
use crate::sysproxy;

pub(super) fn run() -> Result<(), Failed> {
    sysproxy::guard()
        .map_err(|error| Failed::new(FAILED, format!("only weir itself can start this: {error}")))
}
