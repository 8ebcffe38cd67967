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

#[test]
fn chromium() {
    let site = Site::start("");
    let home = trusting_home(&site);
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
        .args([format!("127.0.0.1:{}", plain.port), format!("localhost:{}", secure.port)])
        .env("HOME", &home)
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_CACHE_HOME");
    assert_eq!(scripts::stdout(&mut script), "all well");
    // Through the https proxy Chromium spoke HTTP/2 with weir.
    assert!(site.weir.metric("http2_connections_total") > 0);
    let passed = site.passed();
    assert!(passed.requests > 2 * 120 && passed.tunnels > 6, "{passed:?}");
}
