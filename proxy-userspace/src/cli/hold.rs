//! `weir hold`, which weir starts itself: see `redirect::hold`.

use std::path::PathBuf;

use super::{FAILED, Failed};
use crate::redirect::hold;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where it can be told to end.
    socket: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    hold::run(&arguments.socket)
        .map_err(|error| Failed::new(FAILED, format!("only weir itself can start this: {error}")))
}
