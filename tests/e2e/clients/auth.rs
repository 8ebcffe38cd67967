//! The 407 dance of clients that people use: each is served with the right credentials, and says so with the wrong ones.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use weir_tests::scripts;
use weir_tests::site::Site;
use weir_tests::venv;

/// A site whose weir requires credentials, and those of a context: `name`, `password`.
fn site() -> (Site, String, String) {
    let site = Site::start("security: {auth: {mode: required}}");
    let made = site.weir.command(&["context", "create", "--json"]).output().expect("weir runs");
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    let (name, password) = (text("username"), text("password"));
    (site, name, password)
}

/// Runs a script to its end without a complaint; what the context's flows were.
#[track_caller]
fn check(interpreter: &Path, script: &str, client: &str) {
    let (site, name, password) = site();
    let mut command = Command::new(interpreter);
    command.arg(scripts::path(script)).arg(client).arg(venv::node_modules());
    let places = ["{proxy}", "{node}", "{nodes}", "{ca}"];
    command.args(places.map(|place| site.fill(place))).args([&name, &password]);
    command.env("HOME", site.weir.folder()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_CACHE_HOME");
    assert_eq!(scripts::stdout(&mut command), "all well", "{client}\n{}", site.weir.log());
    let flows = site.weir.flows(2);
    assert!(flows.iter().any(|flow| flow["user"] == name.as_str()), "{flows:?}");
    assert!(!site.weir.log().contains(&password));
}

#[test]
fn python_httpx() {
    check(&venv::python(), "clients/auth.py", "httpx");
}

#[test]
fn python_requests() {
    check(&venv::python(), "clients/auth.py", "requests");
}

#[test]
fn python_aiohttp() {
    check(&venv::python(), "clients/auth.py", "aiohttp");
}

#[test]
fn node_undici() {
    check(Path::new("node"), "clients/auth.mjs", "undici");
}

#[test]
fn node_http() {
    check(Path::new("node"), "clients/auth.mjs", "http");
}

#[test]
fn chromium() {
    check(Path::new("node"), "clients/auth.mjs", "chromium");
}
