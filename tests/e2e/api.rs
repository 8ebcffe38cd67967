//! The admin API as its OpenAPI document has it: every operation, hostile callers, a foreign page in a browser.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;
use weir_tests::origin::Origin;
use weir_tests::weir::{Weir, binary};
use weir_tests::{http, scripts, venv};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A weir whose proxy reaches nothing, with a token.
fn weir() -> Weir {
    let weir = Weir::explicit("security: {filtering: {mode: allowlist}}\nlogging: {access: false}");
    let path = weir.folder().join("token");
    std::fs::write(&path, TOKEN).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    weir.reload(&format!(
        "security: {{filtering: {{mode: allowlist}}}}\nlogging: {{access: false}}\nadmin: {{token_file: '{}'}}",
        path.display()
    ));
    weir
}

#[test]
fn a_client_that_knows_the_document_alone_calls_everything() {
    let weir = weir();
    let mut script = Command::new(venv::control_python());
    script.arg(scripts::path("api_client.py")).args([&format!("http://{}", weir.admin), TOKEN]);
    let said = scripts::stdout(&mut script);
    assert!(said.lines().count() > 30, "{said}");
    for row in
        ["GET /proxy/status 200", "POST /proxy/start 200", "POST /proxy/stop 200", "POST /proxy/test 200"]
    {
        assert!(said.lines().any(|line| line == row), "{row} in\n{said}");
    }
    for row in ["GET /health/readiness 200", "GET /metrics 200", "POST /upgrade 403", "GET /docs 200"] {
        assert!(said.lines().any(|line| line == row), "{row} in\n{said}");
    }
}

/// Every row of the reference is an operation, and the other way round.
#[test]
fn the_reference_has_every_operation() {
    let weir = Weir::explicit("");
    let document = http::get(weir.admin, "/openapi.json").expect("an answer").json();
    let reference =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/admin.md")).expect("a file");
    let rows: String =
        reference.lines().filter(|line| line.starts_with("| `")).collect::<Vec<_>>().join("\n");
    for (path, operations) in document["paths"].as_object().expect("paths") {
        let name = path.rsplit('/').next().expect("a name");
        assert!(
            rows.contains(path.as_str()) || rows.contains(&format!("`/{name}`")),
            "{path} is not in docs/admin.md"
        );
        for (method, operation) in operations.as_object().expect("operations") {
            assert!(
                operation["summary"].is_string() && operation["responses"].is_object(),
                "{method} {path}"
            );
        }
    }
}

/// schemathesis makes requests of all kinds out of the document, wrong ones too.
#[test]
fn made_up_requests_get_documented_answers() {
    let weir = weir();
    let schemathesis = venv::control_python().with_file_name("schemathesis");
    let mut command = Command::new(schemathesis);
    command
        .args(["run", &format!("http://{}/openapi.json", weir.admin)])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
        // These look names up, or go on for ever, or answer 503 to everybody where nothing is captured or configured.
        .args([
            "--exclude-path-regex",
            "^/(explain|flows|capture/(events|existing|exec|recapture|reload)|proxy/configure-system)$",
        ])
        .args(["--max-examples", "20", "--seed", "1", "--phases", "examples,coverage,fuzzing", "--no-color"])
        .args(["--suppress-health-check", "all", "--request-timeout", "30"])
        .current_dir(weir.folder());
    let output = command.output().expect("schemathesis runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    // It is the same as before.
    assert_eq!(weir.api("POST", "/proxy/start", None).0, 200);
    assert_eq!(http::get(weir.admin, "/health/readiness").expect("an answer").status, 200);
}

#[test]
fn a_foreign_page_can_neither_read_nor_change_anything() {
    let page = "<!doctype html><title>foreign</title><body>hello</body>";
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
    let (weir, origin) = (weir(), Origin::fixed(&answer));
    let before = weir.status()["config"].clone();
    let mut script = Command::new("node");
    script
        .arg(scripts::path("foreign_page.mjs"))
        .arg(venv::node_modules())
        .args([&format!("http://{}/", origin.address), &weir.admin.port().to_string()])
        .env("HOME", weir.folder());
    let said = scripts::stdout(&mut script);
    assert!(said.ends_with(" attempts, all well"), "{said}");
    let status = weir.status();
    assert_eq!((&status["running"], &status["config"]), (&Value::Bool(true), &before), "{status}");
}

#[test]
fn an_assistant_sees_and_steers_it() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let weir = Weir::explicit("");
    let mut script = Command::new(venv::control_python());
    script
        .arg(scripts::path("mcp_client.py"))
        .arg(binary())
        .args([format!("http://{}/", origin.address), weir.proxy.port().to_string()])
        .env("WEIR_ADMIN", weir.folder().join("state/admin.sock"));
    assert_eq!(scripts::stdout(&mut script), "all well");
}

#[test]
fn shells_and_man_know_the_commands() {
    let run = |arguments: &[&str]| {
        let output = Command::new(binary()).args(arguments).output().expect("weir runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for (shell, checked) in [("bash", Some(["bash", "-n"])), ("zsh", None), ("fish", None)] {
        let script = run(&["completions", shell]);
        assert!(script.contains("recapture") && script.contains("hash-password"), "{shell}");
        let Some([program, option]) = checked else { continue };
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("script");
        std::fs::write(&path, script).expect("a file");
        assert!(Command::new(program).arg(option).arg(&path).status().expect("a shell").success());
    }
    let page = run(&["man"]);
    assert!(page.contains(".TH weir 1") && page.contains("no weir answers"), "{page}");
    let folder = tempfile::TempDir::new().expect("a folder");
    run(&["man", "--folder", &folder.path().display().to_string()]);
    assert!(folder.path().join("weir-config-show.1").exists());
}
