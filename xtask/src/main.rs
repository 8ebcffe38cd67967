//! Development commands. `cargo xtask --help` lists them; each is a file of its own.

mod build_ebpf;
mod conformance;
mod crash;
mod guest;
mod kernels;
mod many;
mod privilege;
mod run;
mod setup;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::{self, ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development commands for weir")]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what building the kernel half needs.
    Setup,
    /// Build the kernel half, for the next build of weir to embed.
    BuildEbpf(build_ebpf::Options),
    /// Build both halves and start weir, or run one command captured by it.
    Run(run::Options),
    /// Run every check and every test, those that need root too.
    Test(test::Options),
    /// Run public test suites against weir.
    Conformance(conformance::Options),
    /// Kill weir at random points while it fills its stores.
    Crash(crash::Options),
    /// Boot Debian's kernels under qemu and try weir on each.
    Kernels(kernels::Options),
    /// Hold very many captured connections at one time, in a guest of qemu.
    Many(many::Options),
    /// Check the rules of this workspace that the compiler does not know.
    Tidy,
}

fn main() -> ExitCode {
    match dispatch(Xtask::parse().command) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The exit code; only `run` has one of its own.
fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Setup => setup::setup().map(drop)?,
        Command::BuildEbpf(options) => {
            let toolchain = setup::setup()?;
            build_ebpf::build(&toolchain, &options).map(drop)?;
        }
        Command::Run(options) => return run::run(&options),
        Command::Test(options) => test::test(&options)?,
        Command::Conformance(options) => conformance::conformance(&options)?,
        Command::Crash(options) => crash::crash(&options)?,
        Command::Kernels(options) => kernels::kernels(&options)?,
        Command::Many(options) => many::many(&options)?,
        Command::Tidy => tidy::run(&workspace())?,
    }
    Ok(0)
}

/// The workspace's root: the parent of this package.
fn workspace() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// The cargo that runs this, in the workspace.
fn cargo(command: &str) -> process::Command {
    let mut cargo = process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(command).current_dir(workspace());
    cargo
}

/// Where cargo puts what it builds; the build script of proxy-userspace follows the same rule.
fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
