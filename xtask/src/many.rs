//! `cargo xtask many`: more captured connections at one time than one port of weir's has room for, in a guest of qemu:
//! each takes weir two descriptors, and the limits of this machine may forbid so many. The same with fewer ports is part
//! of `cargo xtask test` (`tests/e2e/many.rs`).

use anyhow::{Context as _, Result, ensure};

use crate::guest::{self, Allowance, Apt, version};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many at one time. Each takes about 25 KiB of the guest's memory.
    #[arg(long, default_value_t = 32_000)]
    connections: u32,
    /// The kernel's version begins so.
    #[arg(long, default_value = "6.12")]
    kernel: String,
}

/// The guest without connections, in MiB.
const GUEST: u32 = 768;
const KIB_A_CONNECTION: u32 = 64;
/// Connections that are made and used in a second, at the least, and how long a boot may take.
const A_SECOND: u32 = 50;
const BOOT_SECONDS: u32 = 120;

pub(crate) fn many(options: &Options) -> Result<()> {
    let folder = guest::folder()?;
    let apt = Apt::update(&folder)?;
    let packages = apt.newest()?;
    let package = packages.iter().find(|package| version(package).starts_with(&options.kernel));
    let package = package.with_context(|| format!("there is no kernel {}", options.kernel))?;
    let init = include_str!("many/guest.sh").replace("CONNECTIONS", &options.connections.to_string());
    let initrd = guest::initrd(&folder, "many", &init, &[("many.pl", include_str!("many/many.pl"))])?;
    let allowance = Allowance {
        seconds: BOOT_SECONDS + options.connections / A_SECOND,
        mebibytes: GUEST + options.connections / 1024 * KIB_A_CONNECTION,
    };
    let report = guest::boot(version(package), &apt.vmlinuz(package)?, &initrd, &allowance)?;
    report.print();
    report.said().for_each(|line| println!("  {line}"));
    ensure!(report.passed(), "{} connections could not be held", options.connections);
    Ok(())
}
