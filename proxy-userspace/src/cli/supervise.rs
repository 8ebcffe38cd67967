//! `weir supervise`, which weir starts itself: see `execute::supervisor`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{FAILED, Failed};
use crate::execute::supervisor;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Whom the program runs as, in numbers.
    #[arg(long, requires = "group")]
    user: Option<u32>,
    #[arg(long, requires = "user")]
    group: Option<u32>,
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failed> {
    let user = arguments.user.zip(arguments.group);
    supervisor::run(&arguments.program, &arguments.arguments, user)
        .map_err(|error| Failed::new(FAILED, format!("only weir itself can start this: {error}")))
}
