//! Embeds the kernel half if `cargo xtask build-ebpf` has built it; builds weir without it otherwise.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(weir_kernel_half)");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let dir = target_dir().join("ebpf");
    // Cargo watches what exists: the directory, so that the object's appearance is noticed. Where it can't be made
    // the object can't be there either, and this runs again next time.
    let _ = fs::create_dir_all(&dir);
    println!("cargo::rerun-if-changed={}", dir.display());
    let object = dir.join("weir.bpf.o");
    if object.is_file() {
        println!("cargo::rustc-cfg=weir_kernel_half");
        println!("cargo::rustc-env=WEIR_BPF_OBJECT={}", object.display());
    }
}

/// The rule of xtask: `cargo xtask build-ebpf` puts the object there.
fn target_dir() -> PathBuf {
    let workspace = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |dir| workspace.join(dir))
}
