//! The binary: reads the command line, runs one command, tells how it ended.
//!
//! Exit codes: 0 done; 1 it failed; 2 the command line or configuration is wrong; 3 weir is not running;
//! 126 and 127 as a shell gives them for a program that `weir exec` could not run; otherwise the program's own.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    weir::cli::run(weir::cli::Arguments::parse())
}
