//! `cargo xtask setup`: finds what building the kernel half needs, and installs what is missing.
//!
//! Two things are needed beside the ordinary compiler: a compiler with the source of `core` (no ready-made `core`
//! exists for the BPF target), and `bpf-linker` built for that compiler's LLVM. They come from rustup where it can
//! fetch, otherwise from Debian's packages. What is found working is used as it is; a second call installs nothing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

/// The nightly asked of rustup: its LLVM is one that `BPF_LINKER_VERSION` supports.
const NIGHTLY: &str = "nightly-2026-05-20";
/// Oldest compiler the workspace builds with (`rust-version` in Cargo.toml).
const OLDEST_RUSTC: (u32, u32) = (1, 95);
const BPF_LINKER_VERSION: &str = "0.13.0";
/// LLVM majors that version of bpf-linker can be built for.
const BPF_LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
/// Debian's current compiler and its source; kept up to date in stable releases for web browsers.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// A working set of tools for the kernel half.
pub(crate) struct Toolchain {
    pub(crate) rustc: PathBuf,
    pub(crate) cargo: PathBuf,
    pub(crate) bpf_linker: PathBuf,
}

/// A compiler that has the source of `core`.
struct Compiler {
    rustc: PathBuf,
    cargo: PathBuf,
    version: String,
    llvm: u32,
}

/// Finds the tools, installs what is missing, says what it does.
pub(crate) fn setup() -> Result<Toolchain> {
    let compiler = match find_compiler() {
        Some(compiler) => compiler,
        None => install_compiler()?,
    };
    println!("compiler: {} ({}, LLVM {})", compiler.rustc.display(), compiler.version, compiler.llvm);
    let bpf_linker = linker_root(compiler.llvm)?.join("bin/bpf-linker");
    if !works(&bpf_linker) {
        install_linker(compiler.llvm)?;
        if !works(&bpf_linker) {
            bail!(
                "bpf-linker was installed but `{} --version` fails; run it to see why",
                bpf_linker.display()
            );
        }
    }
    println!("linker: {}", bpf_linker.display());
    Ok(Toolchain { rustc: compiler.rustc, cargo: compiler.cargo, bpf_linker })
}

fn find_compiler() -> Option<Compiler> {
    // The toolchain this runs under, the pinned nightly, any nightly, Debian's.
    let rustup = [None, Some(NIGHTLY), Some("nightly")].into_iter().filter_map(rustup_toolchain);
    rustup.chain([PathBuf::from("/usr/bin")]).find_map(|bin| compiler_in(&bin))
}

/// The `bin` directory of an installed rustup toolchain; None asks for the active one.
fn rustup_toolchain(name: Option<&str>) -> Option<PathBuf> {
    let mut command = Command::new(if name.is_some() { "rustup" } else { "rustc" });
    if let Some(name) = name {
        // `rustup run` installs nothing unless told to.
        command.args(["run", name, "rustc"]);
    }
    Some(Path::new(&output(command.args(["--print", "sysroot"]))?).join("bin"))
}

/// The compiler in that directory, if it is new enough and really has the source of `core`.
fn compiler_in(bin: &Path) -> Option<Compiler> {
    let (rustc, cargo) = (bin.join("rustc"), bin.join("cargo"));
    let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
    let core = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if !core.is_file() || !works(&cargo) {
        return None;
    }
    let about = output(Command::new(&rustc).arg("-vV"))?;
    let version = field(&about, "release: ")?.to_owned();
    let llvm = field(&about, "LLVM version: ")?.split('.').next()?.parse().ok()?;
    let new_enough = major_minor(&version)? >= OLDEST_RUSTC;
    (new_enough && BPF_LINKER_LLVM.contains(&llvm)).then_some(Compiler { rustc, cargo, version, llvm })
}

fn install_compiler() -> Result<Compiler> {
    let from_rustup = install_from_rustup();
    if let Err(reason) = &from_rustup {
        println!("rustup can't provide it: {reason:#}");
        apt_install(&DEBIAN_COMPILER).with_context(|| {
            format!(
                "no compiler with the source of `core` (what bpfel-unknown-none is built from).\n\
                 Next step: `rustup toolchain install {NIGHTLY} --profile minimal --component rust-src` where rustup \
                 can fetch, or on Debian `sudo apt-get install {}`; then run this again",
                DEBIAN_COMPILER.join(" ")
            )
        })?;
    }
    find_compiler().context(
        "a compiler was installed, but none has both the source of `core` and a fitting LLVM; \
         compare `rustc -vV` with what this file pins (xtask/src/setup.rs)",
    )
}

fn install_from_rustup() -> Result<()> {
    // rustup's own variable for "install nothing unless I say so".
    if env::var("RUSTUP_AUTO_INSTALL").is_ok_and(|value| value == "0") {
        bail!("RUSTUP_AUTO_INSTALL=0 says that it shall install nothing by itself");
    }
    let args = [
        "toolchain",
        "install",
        NIGHTLY,
        "--profile",
        "minimal",
        "--component",
        "rust-src",
        "--no-self-update",
    ];
    run(Command::new("rustup").args(args))
}

/// Builds bpf-linker for that LLVM. Only the compiler's own LLVM reads the bitcode it writes.
fn install_linker(llvm: u32) -> Result<()> {
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if !works(&prefix.join("bin/llvm-config")) {
        let packages = [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")];
        let packages = [packages[0].as_str(), &packages[1], "zlib1g-dev", "libzstd-dev"];
        apt_install(&packages).with_context(|| {
            format!(
                "bpf-linker needs LLVM {llvm}'s libraries, which {} doesn't hold.\n\
                 Next step: on Debian `sudo apt-get install {}`; elsewhere install LLVM {llvm} with its development \
                 files, link its prefix there, and run this again",
                prefix.display(),
                packages.join(" ")
            )
        })?;
    }
    let feature = format!("llvm-{llvm}");
    let root = linker_root(llvm)?;
    println!("building bpf-linker {BPF_LINKER_VERSION} for LLVM {llvm} (about a minute)");
    run(Command::new("cargo")
        .args(["install", "bpf-linker", "--quiet", "--locked", "--force", "--version", BPF_LINKER_VERSION])
        .args(["--no-default-features", "--features", &feature, "--root"])
        .arg(root)
        .env("LLVM_PREFIX", prefix)
        // Outside the workspace: its configuration is not for this build.
        .current_dir(env::temp_dir())
        .env_remove("CARGO_TARGET_DIR"))
}

/// Where our bpf-linker lives: one place per version and LLVM, outside the workspace so that clones share it.
fn linker_root(llvm: u32) -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set: no place for bpf-linker. Set one of them")?;
    Ok(cache.join(format!("weir/toolchain/bpf-linker-{BPF_LINKER_VERSION}-llvm-{llvm}")))
}

/// Installs Debian packages, through sudo where this isn't root. Never removes a package.
pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    if !works(Path::new("apt-get")) {
        bail!("this system has no apt-get");
    }
    println!("installing Debian packages: {}", packages.join(" "));
    let mut args = vec!["install", "--quiet", "--yes", "--no-install-recommends", "--no-remove"];
    args.extend(packages);
    if !missing_from_lists(packages) && apt(&args).is_ok() {
        return Ok(());
    }
    // No lists, or old ones that name versions which are gone. If this fails, installing says more about it.
    let _ = apt(&["update", "--quiet"]);
    apt(&args)
}

/// A fresh machine has no package lists.
fn missing_from_lists(packages: &[&str]) -> bool {
    output(Command::new("apt-cache").arg("policy").args(packages))
        .is_none_or(|text| packages.iter().any(|package| !text.contains(&format!("{package}:"))))
}

fn apt(args: &[&str]) -> Result<()> {
    let mut command = if is_root()? {
        Command::new("apt-get")
    } else if works(Path::new("sudo")) {
        println!("asking for sudo: apt-get {}", args.join(" "));
        let mut sudo = Command::new("sudo");
        sudo.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        sudo
    } else {
        bail!("not root, and there is no sudo");
    };
    run(command.env("DEBIAN_FRONTEND", "noninteractive").args(args))
}

pub(crate) fn is_root() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status").context("can't read /proc/self/status")?;
    let effective = field(&status, "Uid:").and_then(|ids| ids.split_whitespace().nth(1));
    Ok(effective == Some("0"))
}

/// Does it start and exit with 0 when asked for its version?
pub(crate) fn works(program: &Path) -> bool {
    output(Command::new(program).arg("--version")).is_some()
}

/// Standard output of a command that succeeds; what it writes to standard error is of no interest.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let args = command.get_args().collect::<Vec<_>>().join(OsStr::new(" "));
    let shown = format!("{name} {}", args.to_string_lossy());
    let status = command.status().with_context(|| format!("can't start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
