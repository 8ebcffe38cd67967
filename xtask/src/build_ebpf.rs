//! `cargo xtask build-ebpf`: compiles the kernel half and puts the object where the next build of weir finds it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};

use crate::setup::Toolchain;
use crate::{target_dir, workspace};

const TARGET: &str = "bpfel-unknown-none";
/// Separates flags in CARGO_ENCODED_RUSTFLAGS.
const FLAG_SEPARATOR: &str = "\x1f";

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Accepted for symmetry: the kernel half is always optimised, the verifier needs it.
    #[arg(long)]
    pub(crate) release: bool,
}

/// Builds the object and gives its path, `<target dir>/ebpf/weir.bpf.o`.
pub(crate) fn build(toolchain: &Toolchain, _: &Options) -> Result<PathBuf> {
    // A target directory of its own: another compiler's artefacts lie in the usual one.
    let build_dir = target_dir().join("ebpf-build");
    let status = Command::new(&toolchain.cargo)
        .args(["build", "--quiet", "--release", "--package", "proxy-ebpf", "--locked"])
        .args(["-Z", "build-std=core", "--target", TARGET])
        .current_dir(workspace())
        .env("RUSTC", &toolchain.rustc)
        // Unlocks -Z on a compiler that isn't a nightly.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", &build_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&toolchain.bpf_linker))
        // The outer cargo's choices are not for this compiler.
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS")
        .status()
        .with_context(|| format!("can't start {}", toolchain.cargo.display()))?;
    ensure!(status.success(), "the kernel half does not build ({status}); the compiler's message is above");
    publish(&build_dir.join(TARGET).join("release/weir-ebpf"))
}

fn rustflags(bpf_linker: &Path) -> OsString {
    let arch = format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH);
    let mut flags =
        OsString::from([arch.as_str(), "-Cdebuginfo=2", "-Clink-arg=--btf", ""].join(FLAG_SEPARATOR));
    flags.push("-Clinker=");
    flags.push(bpf_linker);
    flags
}

/// Replaces the published object at once, and only if it changed: weir is rebuilt when the file is touched.
fn publish(built: &Path) -> Result<PathBuf> {
    let dir = target_dir().join("ebpf");
    let object = dir.join("weir.bpf.o");
    let bytes =
        fs::read(built).with_context(|| format!("can't read the built object {}", built.display()))?;
    if fs::read(&object).is_ok_and(|present| present == bytes) {
        println!("kernel half: {} (unchanged)", object.display());
        return Ok(object);
    }
    fs::create_dir_all(&dir)?;
    let staged = dir.join(".weir.bpf.o.new");
    fs::write(&staged, &bytes)?;
    fs::rename(&staged, &object).with_context(|| format!("can't put the object at {}", object.display()))?;
    println!("kernel half: {} ({} bytes)", object.display(), bytes.len());
    Ok(object)
}
