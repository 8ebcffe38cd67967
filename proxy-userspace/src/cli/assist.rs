//! `weir assist`, which weir starts itself: see `privilege`.

use super::{FAILED, Failed};
use crate::privilege;

pub(super) fn run() -> Result<(), Failed> {
    privilege::assist()
        .map_err(|error| Failed::new(FAILED, format!("only weir itself can start this: {error}")))
}
