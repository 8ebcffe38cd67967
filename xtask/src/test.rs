//! `cargo xtask test`: every check and every test, those that need root too, and one line that tells the sum.
//!
//! Nothing is skipped silently: what is missing on the machine is installed or named, and a stage in which
//! no test ran has failed. Root tests are the test targets that require the feature `root-tests`; cargo builds
//! them as the ordinary user and starts only the finished programs as root.

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::privilege::Privilege;
use crate::{build_ebpf, cargo, conformance, setup, target_dir, tidy, workspace};

/// What the tests start, and the Debian packages it comes from.
const PROGRAMS: &[(&str, &str)] = &[
    ("bpftool", "bpftool"),
    ("busybox", "busybox-static"),
    ("certutil", "libnss3-tools"),
    ("keytool", "default-jre-headless"),
    ("chromium", "chromium"),
    ("curl", "curl"),
    ("dbus-daemon", "dbus-daemon"),
    ("dconf", "dconf-cli"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("docker-compose", "docker-compose"),
    ("dockerd", "docker.io"),
    ("git", "git"),
    ("gsettings", "libglib2.0-bin"),
    ("ip", "iproute2"),
    ("kwriteconfig5", "libkf5config-bin"),
    ("NetworkManager", "network-manager"),
    ("nginx", "nginx-light"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("openssl", "openssl"),
    ("pip3", "python3-pip"),
    ("/usr/lib/podman/aardvark-dns", "aardvark-dns"),
    ("/usr/lib/podman/netavark", "netavark"),
    ("podman", "podman"),
    ("promtool", "prometheus"),
    ("python3", "python3"),
    ("redis-server", "redis-server"),
    ("runc", "runc"),
    ("tinyproxy", "tinyproxy-bin"),
    ("wget", "wget"),
];

/// Modules of Debian's Python that it leaves to packages of their own, and those.
const PYTHON_MODULES: &[(&str, &str)] = &[("ensurepip", "python3-venv")];

/// Files that tests need and no program stands for, and their packages.
const FILES: &[(&str, &str)] = &[
    ("/usr/share/glib-2.0/schemas/org.gnome.system.proxy.gschema.xml", "gsettings-desktop-schemas"),
    ("/usr/share/dbus-1/services/ca.desrt.dconf.service", "dconf-gsettings-backend"),
];

/// NetworkManager would take this machine's network in hand: linked to nothing, its service does not start. The tests start
/// it in a network namespace.
const NETWORK_MANAGER: &str = "/etc/systemd/system/NetworkManager.service";

/// Where programs for root are, which an ordinary user's PATH may leave out.
const SYSTEM_FOLDERS: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin"];

const ROOT_FEATURE: &str = "root-tests";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the checks and the tests that need neither root nor the kernel half.
    #[arg(long, conflicts_with = "root")]
    unprivileged: bool,
    /// Only the tests that need root.
    #[arg(long)]
    root: bool,
    /// Only tests whose name contains this; the static checks are left out.
    filter: Option<String>,
}

pub(crate) fn test(options: &Options) -> Result<()> {
    if !options.unprivileged {
        return test_with_root(options);
    }
    let mut summary = Summary::default();
    check_and_test_unprivileged(options, &mut summary);
    summary.finish(options.filter.is_some())
}

fn test_with_root(options: &Options) -> Result<()> {
    let privilege = Privilege::find("testing the kernel half")?;
    install_programs()?;
    let toolchain = setup::setup()?;
    build_ebpf::build(&toolchain, &build_ebpf::Options::default())?;

    let mut summary = Summary::default();
    if !options.root {
        check_and_test_unprivileged(options, &mut summary);
    }
    summary.tests("with root", options.filter.is_some(), || {
        libtest(root_tests(&root_targets()?, privilege)?, options.filter.as_deref())
    });
    summary.finish(options.filter.is_some())
}

fn check_and_test_unprivileged(options: &Options, summary: &mut Summary) {
    if options.filter.is_none() {
        summary.check("formatting", || setup::run(cargo("fmt").args(["--all", "--check"])));
        summary.check("clippy", || clippy(&["--all-targets", "--all-features"]));
        let bare = ["--package", "proxy-userspace", "--no-default-features"];
        summary.check("a build without its features", || clippy(&bare));
        summary.check("tidy", || tidy::run(&workspace()));
    }
    summary.tests("without privilege", options.filter.is_some(), || {
        libtest(cargo_test()?, options.filter.as_deref())
    });
    if options.filter.is_none() {
        // With the weir that the tests before have built.
        summary.check("conformance of the cache", conformance::published_cache_suite);
    }
}

fn clippy(what: &[&str]) -> Result<()> {
    setup::run(cargo("clippy").arg("--locked").args(what).args(["--", "-D", "warnings"]))
}

pub(crate) fn install_programs() -> Result<()> {
    let mut missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !is_installed(program)).collect();
    // Without an interpreter, the package is wanted for certain.
    missing.extend(PYTHON_MODULES.iter().filter(|(module, _)| !is_importable(module)));
    missing.extend(FILES.iter().filter(|(file, _)| !Path::new(file).exists()));
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    let has_systemd = Path::new(NETWORK_MANAGER).parent().is_some_and(Path::is_dir);
    if packages.contains(&"network-manager") && has_systemd && !Path::new(NETWORK_MANAGER).exists() {
        println!(
            "{NETWORK_MANAGER} is linked to /dev/null, so that NetworkManager is not started by being installed"
        );
        let privilege = Privilege::find("keeping NetworkManager from starting")?;
        let mut command = privilege.command("ln");
        setup::run(command.args(["-s", "/dev/null", NETWORK_MANAGER]))?;
    }
    setup::apt_install(&packages)
        .with_context(|| format!("the tests run programs that this machine lacks: {names}; install them"))?;
    let is_there = |name: &str| is_installed(name) || Path::new(name).is_file() || is_importable(name);
    match missing.iter().find(|(name, _)| !is_there(name)) {
        Some((name, package)) => bail!("{package} was installed, but there is no {name}"),
        None => Ok(()),
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = SYSTEM_FOLDERS.iter().map(Into::into);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}

fn is_importable(module: &str) -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", &format!("import {module}")]).stdin(Stdio::null()).stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

/// `cargo test`, after the binary that end-to-end tests start has been built.
pub(crate) fn cargo_test() -> Result<Command> {
    // No --package: with the same packages selected as by the tests, the dependencies are built once.
    setup::run(cargo("build").args(["--locked", "--bin", "weir"]))?;
    let mut command = cargo("test");
    command
        .args(["--locked", "--no-fail-fast"])
        .env("WEIR_BIN", workspace().join(target_dir()).join("debug/weir"));
    Ok(command)
}

/// (package, test target) of the workspace's tests that require the feature.
fn root_targets() -> Result<Vec<(String, String)>> {
    let output = cargo("metadata").args(["--format-version=1", "--no-deps", "--locked"]).output()?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(targets_that_require(ROOT_FEATURE, &serde_json::from_slice(&output.stdout)?))
}

fn targets_that_require(feature: &str, metadata: &Value) -> Vec<(String, String)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for package in list(&metadata["packages"]) {
        for target in list(&package["targets"]) {
            let has = |key: &str, wanted: &str| list(&target[key]).iter().any(|value| value == wanted);
            if has("kind", "test") && has("required-features", feature) {
                let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
                found.push((name(&package), name(&target)));
            }
        }
    }
    found
}

fn root_tests(targets: &[(String, String)], privilege: Privilege) -> Result<Command> {
    ensure!(!targets.is_empty(), "no test target has required-features = [\"{ROOT_FEATURE}\"]");
    let mut command = cargo_test()?;
    for (package, target) in targets {
        command.args(["--test", target]).arg("--features").arg(format!("{package}/{ROOT_FEATURE}"));
    }
    if let Some(runner) = runner(&privilege.prefix()) {
        command.arg("--config").arg(runner);
    }
    Ok(command)
}

/// cargo's setting that starts test programs through a command; each word is a TOML string.
fn runner(prefix: &[OsString]) -> Option<String> {
    let words: Vec<_> =
        prefix.iter().map(|word| Value::from(word.to_string_lossy().as_ref()).to_string()).collect();
    (!words.is_empty()).then(|| format!("target.'cfg(unix)'.runner = [{}]", words.join(", ")))
}

/// Runs cargo test, shows what it prints, and counts.
fn libtest(mut command: Command, filter: Option<&str>) -> Result<Counts> {
    if let Some(filter) = filter {
        command.arg("--").arg(filter);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("can't start cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut counts = Counts::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        counts.add(&line);
        writeln!(std::io::stdout(), "{line}")?;
    }
    counts.succeeded = child.wait()?.success();
    Ok(counts)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u32,
    failed: u32,
    ignored: u32,
    succeeded: bool,
}

impl Counts {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let words: Vec<_> = result.split([' ', ';']).collect();
        let count = |name| {
            let at = words.iter().position(|word| *word == name)?;
            words[at.checked_sub(1)?].parse::<u32>().ok()
        };
        self.passed += count("passed").unwrap_or(0);
        self.failed += count("failed").unwrap_or(0);
        self.ignored += count("ignored").unwrap_or(0);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// What ran, and what came of it. A failure does not keep the later stages from running.
#[derive(Default)]
struct Summary {
    lines: Vec<String>,
    total: Counts,
    failed_stages: usize,
}

impl Summary {
    fn check(&mut self, name: &str, run: impl FnOnce() -> Result<()>) {
        println!("==> {name}");
        match run() {
            Ok(()) => self.lines.push(format!("{name}: ok")),
            Err(error) => self.fail(name, &format!("{error:#}")),
        }
    }

    fn tests(&mut self, name: &str, filtered: bool, run: impl FnOnce() -> Result<Counts>) {
        println!("==> tests {name}");
        let name = format!("tests {name}");
        match run() {
            Err(error) => self.fail(&name, &format!("{error:#}")),
            Ok(counts) => self.add(&name, filtered, &counts),
        }
    }

    fn add(&mut self, name: &str, filtered: bool, counts: &Counts) {
        self.total.passed += counts.passed;
        self.total.failed += counts.failed;
        if !counts.succeeded && counts.failed == 0 {
            self.fail(name, &format!("{counts}, and cargo test failed; its message is above"));
        } else if counts.failed > 0 {
            self.fail(name, &counts.to_string());
        } else if counts.ignored > 0 {
            self.fail(name, &format!("{counts}, {} ignored; none may be", counts.ignored));
        } else if counts.passed == 0 && !filtered {
            self.fail(name, "no test ran");
        } else {
            self.lines.push(format!("{name}: {counts}"));
        }
    }

    fn fail(&mut self, name: &str, message: &str) {
        eprintln!("{name} FAILED: {message}");
        self.lines.push(format!("{name}: FAILED: {message}"));
        self.failed_stages += 1;
    }

    fn finish(mut self, filtered: bool) -> Result<()> {
        if filtered && self.total.passed + self.total.failed == 0 && self.failed_stages == 0 {
            self.fail("filter", "it matches no test");
        }
        println!("\n{}", self.lines.join("\n"));
        println!("{}", self.total);
        ensure!(self.failed_stages == 0, "{} of {} stages failed", self.failed_stages, self.lines.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u32, failed: u32, ignored: u32) -> Counts {
        Counts { passed, failed, ignored, succeeded: true }
    }

    #[test]
    fn results_are_counted() {
        let mut sum = counts(0, 0, 0);
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s",
            "test result: FAILED. 1 passed; 2 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            sum.add(line);
        }
        assert_eq!(sum, counts(4, 2, 4));
    }

    #[test]
    fn what_did_not_run_has_failed() {
        for (counts, filtered, failed_stages) in [
            (counts(1, 0, 0), false, 0),
            (counts(0, 0, 0), false, 1),
            (counts(0, 0, 0), true, 0),
            (counts(1, 1, 0), false, 1),
            (counts(1, 0, 1), false, 1),
            (Counts { succeeded: false, ..counts(1, 0, 0) }, false, 1),
        ] {
            let mut summary = Summary::default();
            summary.add("tests", filtered, &counts);
            assert_eq!(summary.failed_stages, failed_stages, "{counts:?}");
        }
        assert!(Summary::default().finish(true).is_err());
    }

    #[test]
    fn root_targets_are_found() {
        let metadata = serde_json::json!({"packages": [{"name": "p", "targets": [
            {"name": "a", "kind": ["test"], "required-features": ["root-tests"]},
            {"name": "b", "kind": ["test"], "required-features": ["other"]},
            {"name": "c", "kind": ["test"]},
            {"name": "d", "kind": ["bin"], "required-features": ["root-tests"]},
        ]}]});
        let found = targets_that_require("root-tests", &metadata);
        assert_eq!(found, [("p".to_owned(), "a".to_owned())]);
    }

    #[test]
    fn the_runner_survives_odd_paths() {
        assert_eq!(runner(&[]), None);
        let prefix = ["sudo".into(), "PATH=/a b:/c\"d".into()];
        assert_eq!(runner(&prefix).unwrap(), r#"target.'cfg(unix)'.runner = ["sudo", "PATH=/a b:/c\"d"]"#);
    }

    #[test]
    fn installed_programs_are_found() {
        assert!(is_installed("sh"));
        assert!(!is_installed("no-such-program-here"));
    }
}
