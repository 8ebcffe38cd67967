//! `cargo xtask kernels`: weir on the kernels of Debian's releases, each booted by qemu, with a guest that is nothing but
//! busybox, weir, bpftool and perl. What is asked there is in `kernels/guest.sh`; the answers become docs/kernels.md.
//!
//! Nothing is installed: packages are downloaded and unpacked in the target folder. Without KVM a kernel takes about
//! half a minute.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{cargo, setup, target_dir, workspace};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only kernels whose versions begin like these, such as 5.10.
    only: Vec<String>,
    /// Write docs/kernels.md.
    #[arg(long)]
    write: bool,
}

/// Where Debian has kernels; the newest of each series is taken.
const SUITES: &[&str] = &["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid"];
/// They are the smallest, and boot the fastest.
const FLAVOUR: &str = "-cloud-amd64";
/// Debian has none of these any more that could be fetched; they are refused by their number alone, a unit test of
/// `redirect::support`.
const UNAVAILABLE: &str = "5.4";
/// How long a guest may take, in seconds.
const GUEST_LIMIT: &str = "240";
const PERL_MODULES: &str = "/usr/lib/x86_64-linux-gnu/perl-base";
const REFERENCE: &str = "docs/kernels.md";

pub(crate) fn kernels(options: &Options) -> Result<()> {
    for program in ["qemu-system-x86_64", "busybox", "bpftool", "dpkg-deb", "apt-get"] {
        if setup::output(Command::new("sh").args(["-c", "command -v \"$0\"", program])).is_none() {
            bail!("{program} is missing: apt-get install qemu-system-x86 busybox-static bpftool dpkg apt");
        }
    }
    let folder = target_dir().join("kernels");
    let apt = Apt::update(&folder)?;
    let initrd = initrd(&folder)?;
    let mut reports = Vec::new();
    for package in apt.newest()? {
        if !options.only.is_empty()
            && !options.only.iter().any(|only| version(&package).starts_with(only.as_str()))
        {
            continue;
        }
        let vmlinuz = apt.vmlinuz(&package)?;
        let report = boot(version(&package), &vmlinuz, &initrd)?;
        report.print();
        reports.push(report);
    }
    if reports.is_empty() {
        bail!("no kernel of that version is to be had");
    }
    if options.write {
        fs::write(workspace().join(REFERENCE), table(&reports))?;
        println!("{REFERENCE} is written");
    }
    match reports.iter().filter(|report| !report.passed()).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} kernels failed", reports.len()),
    }
}

/// apt with lists of its own: the host's are neither read nor changed.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn update(folder: &Path) -> Result<Self> {
        let apt = Self { folder: folder.to_owned() };
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("cache/archives/partial"))?;
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let source =
            |suite: &&str| format!("deb [signed-by={keyring}] http://deb.debian.org/debian {suite} main\n");
        fs::write(folder.join("sources.list"), SUITES.iter().map(source).collect::<String>())?;
        // A suite that has gone is no reason to do without the others.
        let _ = setup::run(apt.command("apt-get").arg("--quiet=2").arg("update"));
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let folder = self.folder.display();
        command.current_dir(&self.folder);
        for option in [
            format!("Dir::Etc::sourcelist={folder}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={folder}/lists"),
            format!("Dir::Cache={folder}/cache"),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }

    /// The newest package of each series: 5.10, 6.1 and so on. One holds the kernel's image.
    fn newest(&self) -> Result<Vec<String>> {
        let pattern = format!("^linux-(image|binary)-[0-9].*{FLAVOUR}(-unsigned)?$");
        let found = setup::output(self.command("apt-cache").args(["search", "--names-only", &pattern]))
            .context("apt-cache finds no kernels")?;
        let mut packages: Vec<&str> = found.lines().filter_map(|line| line.split(' ').next()).collect();
        // Of two that hold the same kernel, the one that holds its image comes last.
        packages.sort_by_key(|package| {
            (numbers(version(package)), package.ends_with("-unsigned"), package.contains("-binary-"))
        });
        let series: BTreeSet<Vec<u32>> = packages.iter().map(|package| series(package)).collect();
        let newest = |wanted: &Vec<u32>| packages.iter().rev().find(|package| series_is(package, wanted));
        Ok(series.iter().filter_map(newest).map(|package| (*package).to_owned()).collect())
    }

    fn vmlinuz(&self, package: &str) -> Result<PathBuf> {
        let unpacked = self.folder.join(package);
        if !unpacked.exists() {
            setup::run(self.command("apt-get").args(["--quiet=2", "download", package]))?;
            let start = format!("{package}_");
            let mut archives = fs::read_dir(&self.folder)?.flatten().map(|entry| entry.path());
            let archive = archives
                .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)));
            let archive = archive.with_context(|| format!("{package} was not downloaded"))?;
            setup::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
            fs::remove_file(archive)?;
        }
        let found =
            setup::output(Command::new("find").arg(&unpacked).args(["-name", "vmlinuz*", "-type", "f"]));
        let first = found.as_deref().and_then(|found| found.lines().next()).map(PathBuf::from);
        first.with_context(|| format!("{package} holds no kernel image"))
    }
}

fn version(package: &str) -> &str {
    let version = package.trim_start_matches("linux-image-").trim_start_matches("linux-binary-");
    version.split(FLAVOUR).next().unwrap_or(version)
}

fn numbers(version: &str) -> Vec<u32> {
    version.split(|letter: char| !letter.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

fn series(package: &str) -> Vec<u32> {
    numbers(version(package)).into_iter().take(2).collect()
}

fn series_is(package: &str, wanted: &[u32]) -> bool {
    series(package) == wanted
}

/// busybox, weir, bpftool and perl, with the libraries that they want.
fn initrd(folder: &Path) -> Result<PathBuf> {
    setup::run(cargo("build").args(["--locked", "--bin", "weir"]))?;
    let root = folder.join("root");
    let _ = fs::remove_dir_all(&root);
    for directory in ["bin", "proc", "sys", "dev", "run", "tmp", "etc", "sys/fs/cgroup"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n")?;
    let hooks = fs::read_to_string(workspace().join("proxy-userspace/src/redirect/hooks.rs"))?;
    let hooks = hooks.matches("    Hook { name: ").count();
    let script = include_str!("kernels/guest.sh").replace("HOOKS", &hooks.to_string());
    let init = root.join("init");
    fs::write(&init, script)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let weir = root.join("bin/weir");
    setup::run(Command::new("strip").arg("-o").arg(&weir).arg(target_dir().join("debug/weir")))?;
    for (program, name) in [("busybox", "busybox"), ("bpftool", "bpftool"), ("/usr/bin/perl", "perl")] {
        let path =
            setup::output(Command::new("sh").args(["-c", "command -v \"$0\"", program])).context(program)?;
        fs::copy(path.trim(), root.join("bin").join(name))?;
    }
    fs::write(root.join("client.pl"), include_str!("kernels/client.pl"))?;
    fs::write(root.join("dns.pl"), include_str!("kernels/dns.pl"))?;
    // perl-base: what every Debian has, and enough for sockets.
    let modules = root.join("usr/lib/x86_64-linux-gnu");
    fs::create_dir_all(&modules)?;
    setup::run(Command::new("cp").arg("-r").arg(PERL_MODULES).arg(&modules))?;
    for program in ["bin/weir", "bin/bpftool", "bin/perl"] {
        let libraries = setup::output(Command::new("ldd").arg(root.join(program))).context("ldd")?;
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let copy = root.join(library.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().context("a library lies in a folder")?)?;
            fs::copy(library, copy)?;
        }
    }
    let archive = folder.join("initrd");
    let pack = "cd \"$0\" && find . | busybox cpio -o -H newc | gzip -1 >\"$1\"";
    setup::run(Command::new("sh").args(["-c", pack]).arg(&root).arg(&archive))?;
    Ok(archive)
}

struct Report {
    version: String,
    /// The name of each question, and what was wrong with the answer.
    results: Vec<(String, Option<String>)>,
    done: bool,
    console: String,
}

impl Report {
    fn passed(&self) -> bool {
        self.done && self.results.iter().all(|(_, failure)| failure.is_none())
    }

    fn print(&self) {
        let right = self.results.iter().filter(|(_, failure)| failure.is_none()).count();
        println!(
            "Linux {}: {right} of {} right{}",
            self.version,
            self.results.len(),
            if self.done { "" } else { ", did not end" }
        );
        for (name, failure) in &self.results {
            if let Some(failure) = failure {
                println!("  {name}: {failure}");
            }
        }
        if !self.done {
            let lines: Vec<&str> = self.console.lines().collect();
            lines.iter().skip(lines.len().saturating_sub(15)).for_each(|line| println!("  | {line}"));
        }
    }
}

fn boot(version: &str, vmlinuz: &Path, initrd: &Path) -> Result<Report> {
    print!("Linux {version} ... ");
    std::io::stdout().flush()?;
    let output = Command::new("timeout")
        .args([GUEST_LIMIT, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off"])
        .args([
            "-m",
            "768",
            "-smp",
            "2",
            "-nographic",
            "-no-reboot",
            "-nodefaults",
            "-serial",
            "stdio",
            "-kernel",
        ])
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check"])
        .stdin(Stdio::null())
        .output()?;
    println!();
    let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let said: Vec<&str> = console.lines().filter_map(|line| line.strip_prefix("RESULT ")).collect();
    let results = said.iter().filter_map(|line| {
        if let Some(name) = line.strip_prefix("ok ") {
            return Some((name.to_owned(), None));
        }
        let (name, why) = line.strip_prefix("FAIL ")?.split_once(": ")?;
        Some((name.to_owned(), Some(why.to_owned())))
    });
    Ok(Report {
        version: version.to_owned(),
        results: results.collect(),
        done: said.contains(&"done"),
        console: console.clone(),
    })
}

fn table(reports: &[Report]) -> String {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in reports.iter().flat_map(|report| &report.results) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = format!(
        "# Kernels\n\nWhat `cargo xtask kernels --write` found: weir on Debian's kernels, in a guest of qemu without KVM. The questions\n\
         are in `xtask/src/kernels/guest.sh`. Linux {UNAVAILABLE} and older are refused by their number.\n\n"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_versions_and_series() {
        let package = "linux-image-6.12.107+deb13-cloud-amd64-unsigned";
        assert_eq!(version(package), "6.12.107+deb13");
        assert_eq!(series(package), [6, 12]);
        assert_eq!(series("linux-binary-7.2.13+deb14-cloud-amd64"), [7, 2]);
        assert!(numbers("6.12.107+deb13") > numbers("6.12.94+deb13"));
    }
}
