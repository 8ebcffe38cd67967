//! The HTTP libraries that programs are made with, through weir: those of Python, and those of node.

use std::path::Path;
use std::process::Command;

use weir_tests::background::Background;
use weir_tests::scripts;
use weir_tests::site::Site;
use weir_tests::venv;

/// Runs the part of a script that tries one client, to its end without a complaint.
#[track_caller]
fn check(interpreter: &Path, script: &str, words: &[&str]) -> Site {
    let site = Site::start("");
    let websocket = Background::start_with(&venv::python(), "websocket_server.py", &[]);
    let mut command = Command::new(interpreter);
    command.arg(scripts::path(script)).args(words);
    let places = ["{proxy}", "{node}", "{nodes}", "{nginx}", "{nginxs}", "{ca}"];
    command.args(places.map(|place| site.fill(place))).arg(format!("127.0.0.1:{}", websocket.port));
    assert_eq!(scripts::stdout(&mut command), "all well", "{words:?}");
    site
}

#[track_caller]
fn python(client: &str) -> Site {
    check(&venv::python(), "clients/python.py", &[client])
}

#[track_caller]
fn node(client: &str) -> Site {
    let modules = venv::node_modules().display().to_string();
    check(Path::new("node"), "clients/node.mjs", &[client, &modules])
}

/// That much at least went through weir.
#[track_caller]
fn assert_passed(site: &Site, requests: u64, tunnels: u64) {
    let passed = site.passed();
    assert!(passed.requests >= requests && passed.tunnels >= tunnels, "{passed:?}");
}

#[test]
fn python_httpx() {
    assert_passed(&python("httpx_sync"), 18, 8);
}

#[test]
fn python_httpx_async() {
    assert_passed(&python("httpx_async"), 94, 2);
}

#[test]
fn python_requests() {
    assert_passed(&python("requests"), 16, 6);
}

#[test]
fn python_urllib3() {
    assert_passed(&python("urllib3"), 129, 4);
}

#[test]
fn python_aiohttp() {
    assert_passed(&python("aiohttp"), 86, 4);
}

#[test]
fn node_undici_proxy_agent() {
    assert_passed(&node("proxyAgent"), 0, 8);
}

#[test]
fn node_undici_by_the_environment() {
    // Those that no_proxy names went direct.
    let passed = node("environment").passed();
    assert_eq!((passed.requests, passed.tunnels), (0, 2));
}

#[test]
fn node_undici_websocket() {
    assert_passed(&node("websocket"), 0, 1);
}

#[test]
fn node_http() {
    assert_passed(&node("http"), 11, 0);
}

#[test]
fn node_connect() {
    assert_passed(&node("connect"), 0, 2);
}

#[test]
fn node_http2() {
    let site = node("http2");
    assert_passed(&site, 80, 2);
    assert_eq!(site.weir.metric("http2_connections_total"), 2);
}
