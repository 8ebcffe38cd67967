//! Development commands. `cargo xtask --help` lists them; each is a file of its own.

mod build_ebpf;
mod setup;
mod tidy;

use std::path::PathBuf;

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
    /// Check the rules of this workspace that the compiler does not know.
    Tidy,
}

fn main() -> anyhow::Result<()> {
    match Xtask::parse().command {
        Command::Setup => setup::setup().map(drop),
        Command::BuildEbpf(options) => {
            let toolchain = setup::setup()?;
            build_ebpf::build(&toolchain, &options).map(drop)
        }
        Command::Tidy => tidy::run(&workspace()),
    }
}

/// The workspace's root: the parent of this package.
fn workspace() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// Where cargo puts what it builds; the build script of proxy-userspace follows the same rule.
fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
