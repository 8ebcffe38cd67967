//! `cargo xtask kernels`: weir on the kernels of Debian's releases, each booted by qemu. What is asked there is in
//! `kernels/guest.sh`; the answers become docs/kernels.md. Not part of `cargo xtask test`: a
//! guest without KVM takes a minute or two.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::guest::{self, Allowance, Apt, Report, version};
use crate::workspace;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only kernels whose versions begin like these, such as 5.10.
    only: Vec<String>,
    /// Only the oldest and the newest.
    #[arg(long, conflicts_with = "only")]
    short: bool,
    /// Write docs/kernels.md.
    #[arg(long)]
    write: bool,
}

const ALLOWANCE: Allowance = Allowance { seconds: 240, mebibytes: 768 };
const REFERENCE: &str = "docs/kernels.md";

pub(crate) fn kernels(options: &Options) -> Result<()> {
    let reports = ask(options)?;
    if options.write {
        fs::write(workspace().join(REFERENCE), table(&reports))?;
        println!("{REFERENCE} is written");
    }
    match reports.iter().filter(|report| !report.passed()).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} kernels failed", reports.len()),
    }
}

fn ask(options: &Options) -> Result<Vec<Report>> {
    let folder = guest::folder()?;
    let apt = Apt::update(&folder)?;
    let hooks = fs::read_to_string(workspace().join("proxy-userspace/src/redirect/hooks.rs"))?;
    let hooks = hooks.matches("    Hook { name: ").count();
    let init = include_str!("kernels/guest.sh").replace("HOOKS", &hooks.to_string());
    let files =
        [("client.pl", include_str!("kernels/client.pl")), ("dns.pl", include_str!("kernels/dns.pl"))];
    let initrd = guest::initrd(&folder, "kernels", &init, &files)?;
    let mut reports = Vec::new();
    let mut packages = apt.newest()?;
    if !options.short {
        packages.insert(0, apt.too_old()?);
    }
    for package in chosen(options, packages)? {
        let vmlinuz = apt.vmlinuz(&package)?;
        let report = guest::boot(version(&package), &vmlinuz, &initrd, &ALLOWANCE)?;
        report.print();
        reports.push(report);
    }
    Ok(reports)
}

/// Of the packages, oldest first.
fn chosen(options: &Options, packages: Vec<String>) -> Result<Vec<String>> {
    let none = "no kernel of that version is to be had";
    if options.short {
        let (Some(oldest), Some(newest)) = (packages.first(), packages.last()) else { bail!(none) };
        return Ok(vec![oldest.clone(), newest.clone()]);
    }
    let wanted = |package: &String| {
        options.only.is_empty() || options.only.iter().any(|only| version(package).starts_with(only.as_str()))
    };
    let packages: Vec<_> = packages.into_iter().filter(wanted).collect();
    Some(packages).filter(|packages| !packages.is_empty()).context(none)
}

fn table(reports: &[Report]) -> String {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in reports.iter().flat_map(|report| &report.results) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = String::from(
        "# Kernels\n\nWhat `cargo xtask kernels --write` found: weir on Debian's kernels, in a guest of qemu without KVM. The questions\n\
         are in `xtask/src/kernels/guest.sh`. Linux 5.4 (Ubuntu's) is too old, and is only asked whether weir refuses it.\n\n",
    );
    let versions = reports.iter().map(|report| report.version.clone());
    text += &row(std::iter::once("Linux".to_owned()).chain(versions).collect());
    text += &row(vec!["---".to_owned(); reports.len() + 1]);
    for name in names {
        let cell = |report: &Report| match report.results.iter().find(|(of, _)| of == name) {
            Some((_, None)) => "yes".to_owned(),
            Some((_, Some(_))) => "**no**".to_owned(),
            None => "not asked".to_owned(),
        };
        text += &row(std::iter::once(name.clone()).chain(reports.iter().map(cell)).collect());
    }
    text
}
