//! `weir config`: what is told of a configuration, to people, to programs, and without secrets.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use weir_tests::weir::binary;
use weir_tests::{scripts, venv};

/// `weir config ...` without any variable of this process, and with these files in its folder.
struct Files(TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("a file in a temporary folder");
        }
        Self(folder)
    }

    fn config(&self, arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
        let mut command = Command::new(binary());
        command.arg("config").args(arguments).current_dir(self.0.path()).env_clear();
        let output = command.envs(variables.iter().copied()).output().expect("weir runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    fn json(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Value {
        let (_, out, errors) = self.config(arguments, variables);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{errors}"))
    }
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

#[test]
fn the_schema_admits_what_is_right_and_refuses_what_is_wrong() {
    let mut script = Command::new(venv::control_python());
    script.arg(scripts::path("schema.py")).arg(binary()).arg(shipped());
    let said = scripts::stdout(&mut script);
    assert!(said.starts_with("shipped files are valid\n") && said.ends_with(" mutations refused"), "{said}");
}

#[test]
fn every_value_has_an_origin() {
    let files = Files::new(&[
        ("proxy.yaml", "server:\n  port: 1\n  host: 127.0.0.2\nlogging: {level: debug}\n"),
        ("proxy.prod.yaml", "server: {port: 2, workers: 3}\n"),
    ]);
    let shown = files.json(
        &[
            "show",
            "--json",
            "--origin",
            "-c",
            "proxy.yaml",
            "-c",
            "proxy.prod.yaml",
            "--set",
            "relay.pipe_size=64KiB",
        ],
        &[("PROXY_PORT", "4"), ("WEIR__SERVER__TIMEOUTS__IDLE", "2min"), ("LOG_FORMAT", "json")],
    );
    for (key, value, origin) in [
        ("server.host", Value::from("127.0.0.2"), "proxy.yaml:3:9"),
        ("server.port", 4.into(), "environment variable PROXY_PORT"),
        ("server.workers", 3.into(), "proxy.prod.yaml:1:28"),
        ("server.timeouts.idle", "2min".into(), "environment variable WEIR__SERVER__TIMEOUTS__IDLE"),
        ("server.timeouts.read", "30s".into(), "default"),
        ("relay.pipe_size", "64KiB".into(), "--set relay.pipe_size"),
        ("logging.level", "debug".into(), "proxy.yaml:4:18"),
        ("logging.format", "json".into(), "environment variable LOG_FORMAT"),
        ("cache.enabled", false.into(), "default"),
    ] {
        assert_eq!((&shown[key]["value"], &shown[key]["origin"]), (&value, &origin.into()), "{key}");
    }
    let (code, out, _) = files.config(&["show", "--origin", "-c", "proxy.yaml"], &[]);
    assert_eq!(code, Some(0));
    assert!(out.contains("\n  port: 1  # proxy.yaml:2:9\n"), "{out}");
}

#[test]
fn each_short_name_sets_its_key() {
    let files = Files::new(&[]);
    for (name, value, key) in [
        ("PROXY_HOST", "127.0.0.3", "/server/host"),
        ("PROXY_PORT", "8123", "/server/port"),
        ("LOG_LEVEL", "warn", "/logging/level"),
        ("LOG_FORMAT", "json", "/logging/format"),
        ("CACHE_ENABLED", "true", "/cache/enabled"),
        ("CACHE_MAX_MEMORY", "64MB", "/cache/max_memory"),
        ("RATE_LIMIT_ENABLED", "true", "/security/rate_limiting/enabled"),
        ("RATE_LIMIT_RPS", "7", "/security/rate_limiting/requests_per_second"),
        ("CLI_ENABLED", "true", "/cli/enabled"),
        ("CLI_MAX_CONCURRENT", "3", "/cli/max_concurrent"),
        ("DEFAULT_BACKEND", "http://127.0.0.1:8080", "/routing/default_backend"),
    ] {
        let shown = files.json(&["show", "--json"], &[(name, value)]);
        let found = shown.pointer(key).unwrap_or_else(|| panic!("{key} in {shown}"));
        assert_eq!(found.as_str().map_or_else(|| found.to_string(), str::to_owned), value, "{name}");
        // Wrong, it is told by the variable's name.
        let (code, _, errors) = files.config(&["check"], &[(name, "\u{1}?")]);
        assert_eq!(code, Some(2), "{name}");
        assert!(errors.contains(&format!("environment variable {name}: ")), "{errors}");
    }
}

#[test]
fn what_is_shown_is_a_configuration_again() {
    let rules = "capture: {mode: off, targets: ['label:a=b', 'unit:x.service'], rules: [{name: a, action: deny, \
                 ports: [1-2, 53], destinations: ['2001:db8::/32']}]}\n\
                 security: {header_rules: [{name: '5', direction: response, set: ['X-A: \"b\", ''c'' # d']}]}\n\
                 logging: {level: 'info,weir::relay=debug'}\nserver: {limits: {body: 0}}\n";
    let files = Files::new(&[("a.yaml", rules)]);
    let first = files.json(&["show", "--json", "-c", "a.yaml"], &[]);
    let (code, out, errors) = files.config(&["show", "-c", "a.yaml"], &[]);
    assert_eq!(code, Some(0), "{errors}");
    std::fs::write(files.0.path().join("b.yaml"), &out).expect("a file");
    let again = files.json(&["show", "--json", "-c", "b.yaml"], &[]);
    assert_eq!(first, again, "{out}");
    assert_eq!(again["capture"]["rules"][0]["ports"], serde_json::json!(["1-2", 53]));
}

#[test]
fn secrets_are_not_shown() {
    let (_, hash, _) = {
        let mut command = Command::new("sh");
        command.args(["-c", "echo s3cret-of-alice | \"$0\" config hash-password"]).arg(binary());
        let output = command.output().expect("a shell");
        (0, String::from_utf8_lossy(&output.stdout).trim().to_owned(), 0)
    };
    let yaml = format!(
        "upstream: {{parent: 'http://me:s3cret-parent@127.0.0.1:3128'}}\n\
         cache: {{redis: {{url: 'redis://u:s3cret-redis@127.0.0.1/1'}}}}\n\
         security:\n  auth: {{users: [{{name: alice, password_hash: '{hash}'}}]}}\n\
         \x20 header_rules: [{{direction: request, set: ['Authorization: Bearer s3cret-header', 'X-Api-Key: s3cret-key']}}]\n"
    );
    let files = Files::new(&[("a.yaml", &yaml)]);
    for arguments in
        [&["show"][..], &["show", "--origin"], &["show", "--json"], &["show", "--json", "--origin"]]
    {
        let (code, out, errors) = files.config(&[arguments, &["-c", "a.yaml"]].concat(), &[]);
        assert_eq!(code, Some(0), "{errors}");
        assert!(!out.contains("s3cret") && !out.contains("argon2") && out.contains("***@127.0.0.1"), "{out}");
        assert!(out.contains("Authorization: ***"), "{out}");
    }
    // Nor where they are wrong.
    let (code, out, errors) = files.config(&["check", "--set", "upstream.parent=ftp://me:s3cret@x"], &[]);
    assert_eq!(code, Some(2));
    assert!(!format!("{out}{errors}").contains("s3cret"), "{out}{errors}");
}

#[test]
fn mistakes_are_told_to_programs() {
    let files = Files::new(&[
        ("a.yaml", "server:\n  prot: 1\n"),
        ("over.yaml", "logging: {level: info, formt: json}\n"),
    ]);
    let told = files.json(&["check", "--json", "-c", "a.yaml", "-c", "over.yaml"], &[("LOG_LEVEL", "loud")]);
    assert_eq!(told["valid"], false);
    let errors = told["errors"].as_array().expect("a list");
    let find =
        |key: &str| errors.iter().find(|error| error["key"] == key).unwrap_or_else(|| panic!("{told}"));
    let first = find("server.prot");
    assert_eq!((&first["file"], &first["line"], &first["column"]), (&"a.yaml".into(), &2.into(), &3.into()));
    assert_eq!(first["nearest"], "port");
    let overlay = find("logging.formt");
    assert_eq!((&overlay["file"], &overlay["nearest"]), (&"over.yaml".into(), &"format".into()));
    assert_eq!(find("logging.level")["origin"], "environment variable LOG_LEVEL");
    let right = files.json(&["check", "--json"], &[("PROXY_HOST", "0.0.0.0")]);
    assert_eq!(right["valid"], true);
    assert!(
        right["warnings"][0].as_str().is_some_and(|text| text.contains("not a loopback address")),
        "{right}"
    );
}
