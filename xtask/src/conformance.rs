//! `cargo xtask conformance cache`: the public HTTP caching test suite against weir, as a forward proxy and as a gateway.
//! A test that is not passed, and is not known not to be, fails the run; so does one that is known and passes. The suite
//! waits for lifetimes of seconds to pass, so what a busy machine may have caused is tried again: what counts is what
//! comes out every time.

use std::collections::BTreeMap;
use std::fmt;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use serde_json::Value;

use crate::{cargo, target_dir, workspace};

#[derive(Parser)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The HTTP cache: npm's http-cache-tests. Needs node and npm.
    Cache(CacheOptions),
}

#[derive(Parser)]
struct CacheOptions {
    /// A checkout of the suite instead of the published package.
    #[arg(long)]
    suite: Option<PathBuf>,
    /// A weir that is built already; else the workspace's is, for debugging.
    #[arg(long)]
    weir: Option<PathBuf>,
}

/// The suite as npm has it. Its source is ahead of that; docs/conformance.md tells the difference.
const PACKAGE: &str = "http-cache-tests@0.4.5";

const MODES: [&str; 2] = ["forward", "gateway"];

/// Runs of the suite before a result that is not as it should be counts.
const ATTEMPTS: usize = 3;

/// How long one run of the suite may take; it is done within a minute or two.
const LIMIT_SECONDS: u32 = 400;

pub(crate) fn conformance(options: &Options) -> anyhow::Result<()> {
    let What::Cache(options) = &options.what;
    let weir = match &options.weir {
        Some(weir) => weir.clone(),
        None => {
            ensure!(
                cargo("build").args(["--locked", "--bin", "weir"]).status()?.success(),
                "weir does not build"
            );
            built_weir()
        }
    };
    cache(options.suite.clone(), &weir)
}

/// The published suite against the weir that the tests have built.
pub(crate) fn published_cache_suite() -> anyhow::Result<()> {
    cache(None, &built_weir())
}

fn built_weir() -> PathBuf {
    workspace().join(target_dir()).join("debug/weir")
}

fn cache(suite: Option<PathBuf>, weir: &Path) -> anyhow::Result<()> {
    let suite = match suite {
        Some(suite) => suite,
        None => install()?,
    };
    let known = known_failures(!suite.join("test-engine").exists())?;
    let mut unexpected = Vec::new();
    for mode in MODES {
        unexpected.extend(persistent(|| {
            let rows = run(&suite, weir, mode)?;
            sum(mode, &rows);
            Ok(compare(mode, &rows, &known))
        })?);
    }
    for wrong in &unexpected {
        println!("{wrong}");
    }
    ensure!(unexpected.is_empty(), "{} results are not as conformance/known.json has them", unexpected.len());
    Ok(())
}

/// What comes out wrong in each of several runs.
fn persistent(mut run: impl FnMut() -> anyhow::Result<Vec<Wrong>>) -> anyhow::Result<Vec<Wrong>> {
    let mut wrong = run()?;
    for _ in 1..ATTEMPTS {
        if wrong.is_empty() {
            break;
        }
        println!("{} results are not as they should be; again:", wrong.len());
        let again = run()?;
        wrong.retain(|one| again.iter().any(|other| (&other.id, other.passed) == (&one.id, one.passed)));
    }
    Ok(wrong)
}

/// Test id → why it is not passed. `id@package` is one of the published package only, whose tests are older.
fn known_failures(package: bool) -> anyhow::Result<BTreeMap<String, String>> {
    let path = workspace().join("xtask/src/conformance/known.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let known: BTreeMap<String, String> =
        serde_json::from_slice(&text).with_context(|| format!("{} is not a map of texts", path.display()))?;
    let of_this = known.into_iter().filter_map(|(id, reason)| match id.strip_suffix("@package") {
        Some(id) => package.then(|| (id.to_owned(), reason)),
        None => Some((id, reason)),
    });
    Ok(of_this.collect())
}

fn install() -> anyhow::Result<PathBuf> {
    let folder = target_dir().join("conformance");
    let suite = folder.join("node_modules/http-cache-tests");
    if !suite.exists() {
        std::fs::create_dir_all(&folder)?;
        let status = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--no-save", "--prefix"])
            .arg(&folder)
            .arg(PACKAGE)
            .status()
            .context("npm does not run; install Debian's nodejs and npm, or name a checkout with --suite")?;
        ensure!(status.success(), "npm could not install {PACKAGE}");
    }
    Ok(suite)
}

/// A weir that ends with the run.
struct Weir(Child);

impl Drop for Weir {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(suite: &Path, weir: &Path, mode: &str) -> anyhow::Result<Vec<Value>> {
    let (origin, proxy) = (free_port()?, free_port()?);
    let state = tempfile::TempDir::new()?;
    let mut settings = vec![
        "capture.mode=off".to_owned(),
        format!("server.port={proxy}"),
        format!("server.port_range={proxy}-{proxy}"),
        "admin.port=0".to_owned(),
        format!("admin.state_dir={}", state.path().display()),
        "cache.enabled=true".to_owned(),
        "security.acl.destinations.loopback=allow".to_owned(),
        "logging.access=false".to_owned(),
        "logging.level=warn".to_owned(),
    ];
    if mode == "gateway" {
        settings.push(format!("routing.default_backend=http://127.0.0.1:{origin}"));
    }
    let mut command = Command::new(weir);
    command.arg("serve").args(settings.iter().flat_map(|setting| ["--set", setting]));
    let weir =
        command.stdin(Stdio::null()).spawn().with_context(|| format!("{} does not run", weir.display()))?;
    let _weir = Weir(weir);
    wait_for(proxy)?;
    let script = workspace().join("xtask/src/conformance/cache.mjs");
    let output = Command::new("timeout")
        .args(["--kill-after=10", &LIMIT_SECONDS.to_string(), "node", "--no-warnings"])
        .arg(script)
        .arg(suite)
        .args([mode, &origin.to_string(), &proxy.to_string()])
        .stderr(Stdio::null())
        .output()
        .context("node does not run; install Debian's nodejs")?;
    ensure!(output.status.code() != Some(124), "the suite was not done after {LIMIT_SECONDS} s");
    ensure!(output.status.success(), "the suite ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("the suite printed no results")
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait_for(port: u16) -> anyhow::Result<()> {
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("weir does not listen on port {port}; its messages are above")
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

fn sum(mode: &str, rows: &[Value]) {
    for (kind, name) in
        [("required", "required"), ("optimal", "optional"), ("check", "behaviour, neither right nor wrong")]
    {
        for (cdn, of) in [(false, ""), (true, " of the CDN tests")] {
            let these: Vec<_> =
                rows.iter().filter(|row| text(row, "kind") == kind && row["cdn"] == cdn).collect();
            let passed = these.iter().filter(|row| row["passed"] == true).count();
            if !these.is_empty() {
                println!("{mode}: {passed} of {} {name}{of}", these.len());
            }
        }
    }
}

/// A result that is not as it should be.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    mode: String,
    id: String,
    passed: bool,
    reason: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, id, .. } = self;
        match self.passed {
            true => write!(text, "{mode}: {id} is known to fail, and passes"),
            false => write!(text, "{mode}: {id} failed: {}", self.reason),
        }
    }
}

/// What did not come out as it should. As a forward proxy, weir is no CDN: those tests are for the gateway.
fn compare(mode: &str, rows: &[Value], known: &BTreeMap<String, String>) -> Vec<Wrong> {
    let counts = |row: &&Value| text(row, "kind") != "check" && (mode == "gateway" || row["cdn"] != true);
    let wrong = rows.iter().filter(counts).filter_map(|row| {
        let (id, passed) = (text(row, "id"), row["passed"] == true);
        (passed == known.contains_key(id)).then(|| Wrong {
            mode: mode.to_owned(),
            id: id.to_owned(),
            passed,
            reason: text(row, "reason").to_owned(),
        })
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_may_fail() {
        let rows: Vec<Value> = serde_json::from_str(
            r#"[{"id": "a", "kind": "required", "cdn": false, "passed": false, "reason": "r"},
                {"id": "b", "kind": "optimal", "cdn": false, "passed": false, "reason": "r"},
                {"id": "c", "kind": "check", "cdn": false, "passed": false, "reason": "r"},
                {"id": "d", "kind": "required", "cdn": true, "passed": false, "reason": "r"},
                {"id": "e", "kind": "required", "cdn": false, "passed": true, "reason": ""}]"#,
        )
        .unwrap();
        let known = |ids: &[&str]| ids.iter().map(|id| ((*id).to_owned(), String::new())).collect();
        let told = |mode, ids: &[&str]| {
            compare(mode, &rows, &known(ids)).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told("forward", &["b"]), ["forward: a failed: r"]);
        assert_eq!(told("gateway", &["a", "b"]), ["gateway: d failed: r"]);
        assert_eq!(told("forward", &["a", "b", "e"]), ["forward: e is known to fail, and passes"]);
    }

    #[test]
    fn what_a_busy_machine_causes_once_does_not_count() {
        let wrong = |ids: &[&str]| {
            let wrong = ids.iter().map(|id| Wrong {
                mode: String::new(),
                id: (*id).to_owned(),
                passed: false,
                reason: String::new(),
            });
            wrong.collect::<Vec<_>>()
        };
        let check = |runs: &[&[&str]], expected: &[&str], used: usize| {
            let mut left = runs.iter();
            let found = persistent(|| Ok(wrong(left.next().unwrap()))).unwrap();
            assert_eq!((found, runs.len() - left.len()), (wrong(expected), used));
        };
        check(&[&[]], &[], 1);
        check(&[&["a", "b"], &["b", "c"], &["b"]], &["b"], 3);
        check(&[&["a"], &["c"]], &[], 2);
    }

    #[test]
    fn every_known_failure_has_a_reason() {
        assert!(known_failures(true).unwrap().values().all(|reason| reason.len() > 20));
    }
}
