//! The recipe for package downloads: real clients, each twice through weir and each time with a cache of its own that
//! is empty. The second time nothing reaches the origin.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weir_tests::background::Background;
use weir_tests::certificates::Authority;
use weir_tests::intercepting::Intercepting;
use weir_tests::scripts;
use weir_tests::weir::Weir;

const RECIPE: &str = include_str!("../../config/recipes/packages.yaml");

/// What an answer of a distant index takes, in milliseconds.
const LATENCY: &str = "50";

/// The commands by which one client downloads into an empty folder.
type Download = fn(weir: &Weir, base: &str, folder: &Path) -> Vec<Command>;

#[test]
fn pip_is_served_from_the_cache_the_second_time() {
    // pip has an index validated each time.
    twice(&["/pip/demo/"], |weir, base, folder| {
        let index = format!("{base}/pip/");
        let mut pip = Command::new("pip3");
        pip.args(["download", "--quiet", "--no-cache-dir", "--no-deps", "--disable-pip-version-check"])
            .args(["--index-url", &index, "--trusted-host", "127.0.0.1", "--dest"])
            .arg(folder)
            .args(["--proxy", &proxy(weir), "demo"]);
        vec![pip]
    });
}

#[test]
fn npm_is_served_from_the_cache_the_second_time() {
    twice(&[], |weir, base, folder| {
        let mut npm = Command::new("npm");
        npm.current_dir(folder)
            .args(["pack", "demo", "--silent", "--no-update-notifier", "--registry", &format!("{base}/npm/")])
            .args(["--proxy", &proxy(weir), "--noproxy=", "--cache"])
            .arg(folder.join("cache"));
        vec![npm]
    });
}

#[test]
fn cargo_is_served_from_the_cache_the_second_time() {
    twice(&[], |weir, base, folder| {
        fs::create_dir(folder.join("src")).expect("a folder");
        fs::write(folder.join("src/lib.rs"), "").expect("a file");
        let manifest = "[package]\nname = \"user\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\
                        [dependencies]\ndemo = { version = \"1\", registry = \"local\" }\n[workspace]\n";
        fs::write(folder.join("Cargo.toml"), manifest).expect("a file");
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(folder)
            .args(["fetch", "--quiet"])
            .env("CARGO_HOME", folder.join("home"))
            .env("CARGO_REGISTRIES_LOCAL_INDEX", format!("sparse+{base}/cargo/"))
            .env("CARGO_HTTP_PROXY", proxy(weir));
        vec![cargo]
    });
}

#[test]
fn apt_is_served_from_the_cache_the_second_time() {
    // So does apt, with each of its lists.
    twice(&["/apt/InRelease", "/apt/Release", "/apt/Packages.gz"], |weir, base, folder| {
        for name in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(name)).expect("a folder");
        }
        let sources = folder.join("sources.list");
        fs::write(&sources, format!("deb [trusted=yes] {base}/apt/ ./\n")).expect("a file");
        let set = |name: &str, value: &str| format!("{name}={value}");
        let inside = |name: &str| folder.join(name).display().to_string();
        let options = [
            set("Dir::Etc::SourceList", &inside("sources.list")),
            set("Dir::Etc::SourceParts", "-"),
            set("Dir::Etc::Main", "-"),
            set("Dir::Etc::Parts", "-"),
            set("Dir::State::Lists", &inside("lists")),
            set("Dir::Cache", &inside("")),
            set("Dir::Cache::Archives", &inside("archives")),
            set("Acquire::http::Proxy", &proxy(weir)),
            set("Acquire::Languages", "none"),
            set("APT::Sandbox::User", ""),
        ];
        [&["update"][..], &["download", "demo"]]
            .map(|words| {
                let mut apt = Command::new("apt-get");
                apt.current_dir(folder)
                    .arg("--quiet=2")
                    .args(options.iter().flat_map(|option| ["-o", option]));
                apt.args(words);
                apt
            })
            .into()
    });
}

#[test]
fn pip_and_npm_are_served_from_the_cache_through_intercepted_tls() {
    let authority = Authority::new();
    let identity = authority.issue("registry", "DNS:localhost");
    let overlay = Intercepting::overlay(&authority, "rules: [{name: packages, action: intercept}]", RECIPE);
    let site = Intercepting { weir: Weir::explicit(&overlay), authority };
    let trusted = site.trusted().display().to_string();
    let folder = TempDir::new().expect("a temporary folder");
    let files = [&identity.certificate, &identity.key].map(|path| path.display().to_string());
    let words = [&folder.path().display().to_string(), "0", &files[0], &files[1]];
    let mut origin = Background::start("package_origin.py", &words);
    let base = format!("https://localhost:{}", origin.port);
    let run = || {
        let folder = TempDir::new().expect("a temporary folder");
        let mut pip = Command::new("pip3");
        pip.args(["download", "--quiet", "--no-cache-dir", "--no-deps", "--disable-pip-version-check"])
            .args(["--index-url", &format!("{base}/pip/"), "--cert", &trusted, "--dest"])
            .arg(folder.path())
            .args(["--proxy", &proxy(&site.weir), "demo"])
            // What requests reads goes before what pip is told.
            .env("REQUESTS_CA_BUNDLE", &trusted)
            .env_remove("CURL_CA_BUNDLE");
        let mut npm = Command::new("npm");
        npm.current_dir(folder.path())
            .args(["pack", "demo", "--silent", "--no-update-notifier", "--registry", &format!("{base}/npm/")])
            .args(["--proxy", &proxy(&site.weir), "--https-proxy", &proxy(&site.weir), "--noproxy="])
            .args(["--cafile", &trusted, "--cache"])
            .arg(folder.path().join("cache"));
        for mut command in [pip, npm] {
            scripts::stdout(command.env_remove("NO_PROXY").env_remove("no_proxy").env("HOME", folder.path()));
        }
    };
    run();
    let before = counts(&mut origin);
    run();
    for (path, count) in counts(&mut origin) {
        // pip has an index validated each time.
        let expected = before.get(&path).copied().unwrap_or(0) + u64::from(path == "/pip/demo/");
        assert_eq!(count, expected, "{path}, asked of the origin the second time");
    }
    assert!(site.weir.metric("cache_hits_total") >= 2);
    assert!(site.weir.flows(4).iter().any(|flow| flow["cache"] == "hit" && flow["intercepted"] == true));
}

fn proxy(weir: &Weir) -> String {
    format!("http://{}", weir.proxy)
}

/// `validated`: what the client does not take from a cache unasked.
fn twice(validated: &[&str], download: Download) {
    let weir = Weir::explicit(RECIPE);
    let folder = TempDir::new().expect("a temporary folder");
    let mut origin = Background::start("package_origin.py", &[&folder.path().display().to_string(), LATENCY]);
    let base = format!("http://127.0.0.1:{}", origin.port);
    let run = || -> Duration {
        let folder = TempDir::new().expect("a temporary folder");
        let began = Instant::now();
        for mut command in download(&weir, &base, folder.path()) {
            scripts::stdout(command.env_remove("NO_PROXY").env_remove("no_proxy").env("HOME", folder.path()));
        }
        began.elapsed()
    };
    let first = run();
    let before = counts(&mut origin);
    let stored = weir.metric("cache_stores_total");
    let second = run();
    for (path, count) in counts(&mut origin) {
        let expected =
            before.get(&path).copied().unwrap_or(0) + u64::from(validated.contains(&path.as_str()));
        assert_eq!(count, expected, "{path}, asked of the origin the second time");
    }
    assert!(stored >= 2, "an index and a package are stored: {stored}");
    let (hits, renewed) = (weir.metric("cache_hits_total"), weir.metric("cache_revalidations_total"));
    assert!(hits >= 1 && renewed == validated.len() as u64, "{hits} hits, {renewed} validated");
    println!("{first:.2?}, then {second:.2?}; {hits} hits, {renewed} validated; {before:?}");
}

/// How often each path was asked of the origin.
fn counts(origin: &mut Background) -> BTreeMap<String, u64> {
    serde_json::from_str(&origin.ask("")).expect("an object of numbers")
}
