//! `weir ca`: the authority's certificate for whoever is to trust it, and the stores of this user.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use weir_tests::{scripts, weir};

fn ca(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(weir::binary());
    command.arg("ca").args(words).arg("--folder").arg(folder.join("ca")).env("HOME", folder);
    command.output().expect("weir runs")
}

#[track_caller]
fn said(folder: &Path, words: &[&str]) -> String {
    let output = ca(folder, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_certificate_is_exported_and_the_key_is_not() {
    let folder = TempDir::new().expect("a temporary folder");
    let pem = said(folder.path(), &["export"]);
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n") && !pem.contains("PRIVATE"), "{pem}");
    let file = folder.path().join("weir.der");
    said(folder.path(), &["export", "--der", "-o", &file.display().to_string()]);
    let mut openssl = Command::new("openssl");
    openssl.args([
        "x509",
        "-inform",
        "der",
        "-noout",
        "-fingerprint",
        "-sha256",
        "-ext",
        "basicConstraints,keyUsage",
    ]);
    let shown = scripts::stdout(openssl.arg("-in").arg(&file));
    let told = said(folder.path(), &["show"]);
    let fingerprint =
        told.lines().find_map(|line| line.strip_prefix("SHA-256")).expect("a fingerprint").trim();
    assert!(shown.replace(':', "").to_lowercase().contains(fingerprint), "{shown}\n{told}");
    assert!(shown.contains("CA:TRUE, pathlen:0") && shown.contains("Certificate Sign"), "{shown}");
}

/// Four times: it is done, it was done, it is undone, there is nothing to undo.
#[track_caller]
fn check_store(folder: &Path, words: &[&str], knows: impl Fn() -> bool) {
    for (what, expected, known) in [
        ("trust", "trusts weir's authority now", true),
        ("trust", "trusted weir's authority already", true),
        ("untrust", "no longer trusts weir's authority", false),
        ("untrust", "did not know weir's authority", false),
    ] {
        let told = said(folder, &[&[what][..], words].concat());
        assert!(told.trim_end().ends_with(expected), "{told}");
        assert_eq!(knows(), known, "{what}");
    }
}

#[test]
fn databases_of_nss_are_changed_and_changed_back() {
    let folder = TempDir::new().expect("a temporary folder");
    let database = folder.path().join("own");
    let listed = |database: &Path| {
        let mut certutil = Command::new("certutil");
        let output = certutil.arg("-L").arg("-d").arg(format!("sql:{}", database.display())).output();
        String::from_utf8_lossy(&output.expect("certutil is installed").stdout).contains("weir-ca-")
    };
    check_store(folder.path(), &["--nss", &database.display().to_string()], || listed(&database));
    // Without a folder: that of Chromium, which is made.
    said(folder.path(), &["trust", "--nss"]);
    assert!(listed(&folder.path().join(".pki/nssdb")));
}

#[test]
fn a_keystore_of_java_is_changed_and_changed_back() {
    let folder = TempDir::new().expect("a temporary folder");
    let store = folder.path().join("store.p12");
    let listed = || {
        let mut keytool = Command::new("keytool");
        let output = keytool.args(["-list", "-storepass", "changeit", "-keystore"]).arg(&store).output();
        String::from_utf8_lossy(&output.expect("keytool is installed").stdout).contains("weir-ca-")
    };
    check_store(folder.path(), &["--java", &store.display().to_string()], listed);
}

#[test]
fn what_can_not_be_done_is_said() {
    let folder = TempDir::new().expect("a temporary folder");
    let output = ca(folder.path(), &["trust", "--container", "no-such-container-here"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && errors.contains("no-such-container-here"), "{errors}");
    let output = ca(folder.path(), &["trust", "--nss", "/proc/nowhere"]);
    assert_eq!(output.status.code(), Some(1));
}
