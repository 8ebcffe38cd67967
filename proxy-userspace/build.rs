//! Embeds the kernel half if `cargo xtask build-ebpf` has built it; builds weir without it otherwise.

use std::path::{Path, PathBuf};
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
        warn_if_outdated(&object);
    }
}

/// An object of other sources fails when it is loaded, with a message about symbols.
fn warn_if_outdated(object: &Path) {
    let changed = |path: PathBuf| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let built = changed(object.to_owned());
    let workspace = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    for folder in ["proxy-ebpf/src", "proxy-common/src"].map(|folder| workspace.join(folder)) {
        println!("cargo::rerun-if-changed={}", folder.display());
        let sources = fs::read_dir(folder).into_iter().flatten().flatten();
        if sources.map(|source| changed(source.path())).any(|source| source > built) {
            println!(
                "cargo::warning=the kernel half is older than its sources: run `cargo xtask build-ebpf`"
            );
            return;
        }
    }
}

/// The rule of xtask: `cargo xtask build-ebpf` puts the object there.
fn target_dir() -> PathBuf {
    let workspace = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |dir| workspace.join(dir))
}
