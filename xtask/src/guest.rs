//! Guests of qemu that are nothing but a kernel of Debian's, busybox, weir, bpftool and perl, and what is asked there.
//!
//! Nothing is installed: packages are downloaded and unpacked in the target folder. Without KVM a kernel takes about
//! half a minute.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cargo, setup, target_dir};

/// Where Debian has kernels; the newest of each series is taken.
const SUITES: &[&str] = &["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid"];
/// They are the smallest, and boot the fastest.
const FLAVOUR: &str = "-cloud-amd64";
/// One that weir refuses. Debian has none so old any more; Ubuntu keeps its first ones.
const TOO_OLD: &str = "linux-image-5.4.0-1009-kvm";
const TOO_OLD_SUITE: &str = "focal";
/// Its archive's. Debian has no package of Ubuntu's keys.
const TOO_OLD_SHA256: &str = "f667c524877e0316d1d5b8185e63c346d209e25a53aa85868ad4d0999c58f0c2";
const PERL_MODULES: &str = "/usr/lib/x86_64-linux-gnu/perl-base";

/// What a guest needs of this machine, and the Debian packages it comes from.
pub(crate) const PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("bpftool", "bpftool"),
    ("dpkg-deb", "dpkg"),
    ("apt-get", "apt"),
];

/// Where kernels, lists and guests are kept.
pub(crate) fn folder() -> Result<PathBuf> {
    for (program, package) in PROGRAMS {
        if setup::output(Command::new("sh").args(["-c", "command -v \"$0\"", program])).is_none() {
            bail!("{program} is missing: apt-get install {package}");
        }
    }
    Ok(target_dir().join("kernels"))
}

/// apt with lists of its own: the host's are neither read nor changed.
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    pub(crate) fn update(folder: &Path) -> Result<Self> {
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

    /// A package of a kernel that is too old.
    pub(crate) fn too_old(&self) -> Result<String> {
        let source = format!("deb [trusted=yes] http://archive.ubuntu.com/ubuntu {TOO_OLD_SUITE} main\n");
        let list = self.folder.join("sources.list");
        fs::write(&list, fs::read_to_string(&list)? + &source)?;
        // The kernel is found or it isn't.
        let _ = setup::run(self.command("apt-get").arg("--quiet=2").arg("update"));
        Ok(TOO_OLD.to_owned())
    }

    /// The newest package of each series: 5.10, 6.1 and so on. One holds the kernel's image.
    pub(crate) fn newest(&self) -> Result<Vec<String>> {
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

    pub(crate) fn vmlinuz(&self, package: &str) -> Result<PathBuf> {
        let unpacked = self.unpacked(package)?;
        let found =
            setup::output(Command::new("find").arg(&unpacked).args(["-name", "vmlinuz*", "-type", "f"]));
        let first = found.as_deref().and_then(|found| found.lines().next()).map(PathBuf::from);
        first.with_context(|| format!("{package} holds no kernel image"))
    }

    /// Where the contents of a package lie.
    fn unpacked(&self, package: &str) -> Result<PathBuf> {
        let unpacked = self.folder.join(package);
        if !unpacked.exists() {
            setup::run(self.command("apt-get").args(["--quiet=2", "download", package]))?;
            let start = format!("{package}_");
            let mut archives = fs::read_dir(&self.folder)?.flatten().map(|entry| entry.path());
            let archive = archives
                .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)));
            let archive = archive.with_context(|| format!("{package} was not downloaded"))?;
            if package == TOO_OLD {
                let sum = setup::output(Command::new("sha256sum").arg(&archive)).unwrap_or_default();
                ensure!(sum.starts_with(TOO_OLD_SHA256), "{package} is not the one that it should be: {sum}");
            }
            setup::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
            fs::remove_file(archive)?;
        }
        Ok(unpacked)
    }
}

pub(crate) fn version(package: &str) -> &str {
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

/// busybox, weir, bpftool and perl, with the libraries that they want. `name` tells it from other guests' that run at the
/// same time; `init` is the guest's first process; `files` lie beside it.
pub(crate) fn initrd(folder: &Path, name: &str, init: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    setup::run(cargo("build").args(["--locked", "--bin", "weir"]))?;
    let root = folder.join(format!("{name}.root"));
    let _ = fs::remove_dir_all(&root);
    for directory in ["bin", "proc", "sys", "dev", "run", "tmp", "etc", "sys/fs/cgroup"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n")?;
    let first = root.join("init");
    fs::write(&first, init)?;
    fs::set_permissions(&first, fs::Permissions::from_mode(0o755))?;
    let weir = root.join("bin/weir");
    setup::run(Command::new("strip").arg("-o").arg(&weir).arg(target_dir().join("debug/weir")))?;
    for (program, name) in [("busybox", "busybox"), ("bpftool", "bpftool"), ("/usr/bin/perl", "perl")] {
        let path =
            setup::output(Command::new("sh").args(["-c", "command -v \"$0\"", program])).context(program)?;
        fs::copy(path.trim(), root.join("bin").join(name))?;
    }
    for (name, text) in files {
        fs::write(root.join(name), text)?;
    }
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
    let archive = folder.join(format!("{name}.initrd"));
    let pack = "cd \"$0\" && find . | busybox cpio -o -H newc | gzip -1 >\"$1\"";
    setup::run(Command::new("sh").args(["-c", pack]).arg(&root).arg(&archive))?;
    Ok(archive)
}

/// What a guest said.
pub(crate) struct Report {
    pub(crate) version: String,
    /// The name of each question, and what was wrong with the answer.
    pub(crate) results: Vec<(String, Option<String>)>,
    done: bool,
    console: String,
}

impl Report {
    pub(crate) fn passed(&self) -> bool {
        self.done && self.results.iter().all(|(_, failure)| failure.is_none())
    }

    /// What it has to say beside that: lines that begin with `SAID`.
    pub(crate) fn said(&self) -> impl Iterator<Item = &str> {
        self.console.lines().filter_map(|line| line.strip_prefix("SAID "))
    }

    pub(crate) fn print(&self) {
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

/// What a guest may take.
pub(crate) struct Allowance {
    pub(crate) seconds: u32,
    pub(crate) mebibytes: u32,
}

/// Boots a guest, and waits for its end. It says `RESULT ok NAME`, `RESULT FAIL NAME: why`, and last `RESULT done`.
pub(crate) fn boot(version: &str, vmlinuz: &Path, initrd: &Path, allowance: &Allowance) -> Result<Report> {
    print!("Linux {version} ... ");
    std::io::stdout().flush()?;
    let output = Command::new("timeout")
        .args([
            &allowance.seconds.to_string(),
            "qemu-system-x86_64",
            "-accel",
            "tcg,thread=single",
            "-cpu",
            "max,la57=off,cx16=off",
        ])
        .args(["-m", &allowance.mebibytes.to_string(), "-smp", "2", "-nographic", "-no-reboot"])
        .args(["-nodefaults", "-serial", "stdio", "-kernel"])
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initrd)
        .args([
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check random.trust_cpu=on",
        ])
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
