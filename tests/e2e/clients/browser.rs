//! Chromium through weir: pages, WebSockets and downloads, in the clear and over TLS, by each kind of proxy that it knows.

use std::path::Path;
use std::process::Command;

use weir_tests::background::Background;
use weir_tests::scripts;
use weir_tests::site::Site;
use weir_tests::venv;

/// A home folder whose certificate database trusts the site's authority.
fn trusting_home(site: &Site) -> String {
    let home = site.weir.folder().join("home");
    let database = home.join(".pki/nssdb");
    std::fs::create_dir_all(&database).expect("a folder of ours");
    let database = format!("sql:{}", database.display());
    scripts::stdout(Command::new("certutil").args(["-d", &database, "-N", "--empty-password"]));
    scripts::stdout(
        Command::new("certutil")
            .args(["-d", &database, "-A", "-t", "C,,", "-n", "authority", "-i"])
            .arg(site.authority.certificate()),
    );
    home.display().to_string()
}

/// Runs the script that does all that a browser does. `via`: whether what it asks for over TLS passes weir's hands.
#[track_caller]
fn browse(site: &Site, home: &str, via: bool) {
    let (certificate, key) =
        (site.identity.certificate.display().to_string(), site.identity.key.display().to_string());
    let plain = Background::start_with(&venv::python(), "websocket_server.py", &[]);
    let secure = Background::start_with(&venv::python(), "websocket_server.py", &[&certificate, &key]);
    let mut script = Command::new(Path::new("node"));
    script
        .arg(scripts::path("clients/browser.mjs"))
        .arg(venv::node_modules())
        .arg(format!("{home}/downloads"))
        .args(["{proxy}", "{node}", "{nodes}"].map(|place| site.fill(place)))
        .args([format!("127.0.0.1:{}", plain.port), format!("localhost:{}", secure.port), via.to_string()])
        .env("HOME", home)
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_CACHE_HOME");
    assert_eq!(scripts::stdout(&mut script), "all well");
}

#[test]
fn chromium() {
    let site = Site::start("");
    let home = trusting_home(&site);
    browse(&site, &home, false);
    // Through the https proxy Chromium spoke HTTP/2 with weir.
    assert!(site.weir.metric("http2_connections_total") > 0);
    let passed = site.passed();
    assert!(passed.requests > 2 * 120 && passed.tunnels > 6, "{passed:?}");
}

#[test]
fn chromium_intercepted() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let authority = folder.path().join("ca");
    let site = Site::start(&format!(
        "tls: {{intercept: {{enabled: true, folder: '{}', rules: [{{name: all, action: intercept}}]}}}}",
        authority.display()
    ));
    let home = trusting_home(&site);
    let mut trust = site.weir.command(&["ca", "trust", "--nss", "--folder"]);
    let said = scripts::stdout(trust.arg(&authority).env("HOME", &home));
    assert!(said.ends_with("trusts weir's authority now"), "{said}");
    browse(&site, &home, true);
    let intercepted = site.weir.metric("intercepted_total");
    assert!(intercepted >= 6 && site.weir.metric("intercept_distrusted_total") == 0, "{intercepted}");
    // By two proxies in the clear, by all three over TLS.
    let passed = site.passed();
    assert!(passed.requests > 5 * 120, "{passed:?}");
}
