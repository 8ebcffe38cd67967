//! `cargo xtask crash`: kills weir at many random points while it fills its stores, and looks at what it has left. The
//! same test with fewer points is part of `cargo xtask test`.

use anyhow::Result;

use crate::setup;
use crate::test::{cargo_test, install_programs};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often weir is killed.
    #[arg(long, default_value_t = 500)]
    points: u32,
}

pub(crate) fn crash(options: &Options) -> Result<()> {
    install_programs()?;
    let mut command = cargo_test()?;
    command.args(["--package", "weir-tests", "--test", "cache_crash", "--", "--nocapture"]);
    setup::run(command.env("WEIR_CRASH_POINTS", options.points.to_string()))
}
