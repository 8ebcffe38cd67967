//! The command line, beside a running weir and without one.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{Weir, binary, connect};

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    text(&command.output().expect("weir runs"))
}

/// One request through weir.
fn request(weir: &Weir, origin: &Origin, path: &str) {
    let mut stream = connect(weir.proxy);
    write!(stream, "GET http://{}{path} HTTP/1.1\r\nHost: x\r\n\r\n", origin.address).expect("weir takes it");
    read_answer(&mut stream, "GET").expect("an answer");
}

fn ok_origin() -> Origin {
    Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

#[test]
fn status_for_people_and_for_programs() {
    let weir = Weir::explicit("");
    let (code, out, _) = run(&mut weir.command(&["status"]));
    assert_eq!(code, Some(0));
    let url = format!("http://{}", weir.proxy);
    assert!(out.contains(&url) && out.contains("capture") && out.contains("capture.mode is off"), "{out}");
    let (code, out, _) = run(&mut weir.command(&["status", "--json"]));
    let status: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &status["proxy_url"]), (Some(0), &url.into()), "{status}");
    // By URL instead of by socket.
    let (code, out, _) =
        run(Command::new(binary()).args(["--admin", &format!("http://{}", weir.admin), "status"]));
    assert_eq!(code, Some(0), "{out}");
}

#[test]
fn flows_are_listed() {
    let (weir, origin) = (Weir::explicit(""), ok_origin());
    for path in ["/one", "/two", "/three"] {
        request(&weir, &origin, path);
    }
    weir.flows(3);
    let (code, out, _) = run(&mut weir.command(&["flows"]));
    assert_eq!((code, out.lines().count()), (Some(0), 3), "{out}");
    assert!(["/one", "/two", "/three"].iter().all(|path| out.contains(path)), "{out}");
    let (_, out, _) = run(&mut weir.command(&["flows", "--json", "-n", "2"]));
    let flows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(flows.len(), 2, "{out}");
    assert!(flows.iter().all(|flow| flow["status"] == 200 && flow["upstream"] == origin.address.to_string()));
}

#[test]
fn flows_can_be_followed() {
    let (weir, origin) = (Weir::explicit(""), ok_origin());
    request(&weir, &origin, "/before");
    weir.flows(1);
    let mut follower = weir
        .command(&["flows", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("weir runs");
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    // What was there already comes first; from then on the follower hears of every new one.
    let first = lines.next().expect("a line").expect("text");
    assert!(first.contains("/before"), "{first}");
    for path in ["/live-1", "/live-2"] {
        request(&weir, &origin, path);
        let line = lines.next().expect("a line").expect("text");
        assert!(line.contains(path), "{line}");
    }
    drop(weir);
    assert!(lines.next().is_none(), "the end of weir ends it");
    assert!(follower.wait().expect("a child").code().is_some());
}

#[test]
fn explain_names_the_rule() {
    let weir = Weir::explicit("");
    let (code, out, _) = run(&mut weir.command(&["explain", "169.254.169.254:80"]));
    assert_eq!(code, Some(0));
    assert!(out.contains("deny") && out.contains("security.acl.destinations.metadata"), "{out}");
    let (code, out, _) = run(&mut weir.command(&["explain", "127.0.0.1:80"]));
    assert!(code == Some(0) && out.contains("allow"), "{out}");
    let pid = std::process::id().to_string();
    let (code, out, _) = run(&mut weir.command(&["explain", "--pid", &pid, "127.0.0.1:80"]));
    assert!(code == Some(0) && out.contains("direct: capture.mode is off"), "{out}");
    let (code, _, error) = run(&mut weir.command(&["explain", "nonsense"]));
    assert!(code == Some(2) && error.contains("nonsense") && error.contains("port"), "{error}");
}

#[test]
fn without_a_weir_the_exit_code_is_3_and_a_hint_is_given() {
    let folder = TempDir::new().expect("a temporary folder");
    let socket = folder.path().join("admin.sock").display().to_string();
    for command in [
        &["status"][..],
        &["flows"],
        &["flows", "--follow"],
        &["explain", "127.0.0.1:80"],
        &["exec", "--", "true"],
    ] {
        for admin in [&socket, "http://127.0.0.1:1"] {
            let (code, out, error) = run(Command::new(binary()).args(["--admin", admin]).args(command));
            assert_eq!((code, out.as_str()), (Some(3), ""), "{command:?}: {error}");
            assert!(error.contains("weir serve") && error.contains("--admin"), "{command:?}: {error}");
        }
    }
}

#[test]
fn doctor_looks_without_a_weir() {
    let folder = TempDir::new().expect("a temporary folder");
    let nothing = folder.path().join("none.yaml");
    std::fs::write(&nothing, "capture: {mode: off}\n").expect("a file");
    let file = nothing.display().to_string();
    let (code, out, error) = run(Command::new(binary()).args(["doctor", "--config", &file]));
    assert_eq!(code, Some(0), "{error}");
    let last = out.lines().last().unwrap_or_default();
    assert!(last.starts_with("weir can"), "{out}");
    let (_, out, _) = run(Command::new(binary()).args(["doctor", "--json", "--config", &file]));
    let checks: Value = serde_json::from_str(&out).expect("JSON");
    let checks = checks.as_array().expect("checks");
    assert!(checks.iter().any(|check| check["name"] == "kernel"), "{checks:?}");
    assert!(checks.iter().all(|check| check["detail"].as_str().is_some_and(|text| !text.is_empty())));
}

/// Checks a configuration: the exit code, and what must be said of it.
#[track_caller]
fn check_config(yaml: &str, arguments: &[&str], code: i32, words: &[&str]) {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("proxy.yaml");
    std::fs::write(&file, yaml).expect("a file");
    let config = file.display().to_string();
    let (status, out, error) =
        run(Command::new(binary()).args(["config", "check", "--config", &config]).args(arguments));
    let said = if code == 0 { out } else { error };
    assert_eq!(status, Some(code), "{yaml}: {said}");
    for word in words {
        assert!(said.contains(word), "{yaml}: `{word}` is missing in: {said}");
    }
    // `serve` refuses in the same way, before it listens anywhere.
    if code != 0 {
        let (status, _, error) =
            run(Command::new(binary()).args(["serve", "--config", &config]).args(arguments));
        assert_eq!((status, error), (Some(code), said));
    }
}

#[test]
fn a_bad_configuration_is_explained_with_its_place() {
    check_config("server: {port: 8080}\n", &[], 0, &["right"]);
    check_config(
        "server:\n  prot: 8080\n",
        &[],
        2,
        &["proxy.yaml:2:3", "server.prot", "did you mean `port`"],
    );
    check_config("server:\n  port: many\n", &[], 2, &["proxy.yaml:2:9", "server.port"]);
    check_config("server:\n  port: 70000\n", &[], 2, &["proxy.yaml:2:9", "65535"]);
    check_config(
        "server: {timeouts: {idle: 5 parsecs}}\n",
        &[],
        2,
        &["proxy.yaml:1:", "server.timeouts.idle"],
    );
    check_config("sever: {}\n", &[], 2, &["proxy.yaml:1:1", "did you mean `server`"]);
    check_config("server:\n\tport: 1\n", &[], 2, &["proxy.yaml:2:"]);
    check_config("server: [1\n", &[], 2, &["proxy.yaml:"]);
    check_config("admin: {host: 0.0.0.0}\n", &[], 2, &["admin.host", "loopback"]);
    check_config(
        "a: 1\nb: 2\nserver: {c: 3}\n",
        &[],
        2,
        &["proxy.yaml:1:1", "proxy.yaml:2:1", "proxy.yaml:3:"],
    );
}

#[test]
fn keys_can_be_set_on_the_command_line() {
    check_config("server: {port: 70000}\n", &["--set", "server.port=1"], 0, &["right"]);
    check_config("", &["--set", "server.prot=1"], 2, &["--set server.prot", "did you mean `port`"]);
    check_config("", &["--set", "server.port=x"], 2, &["--set server.port"]);
    check_config("", &["--set", "nonsense"], 2, &["nonsense"]);
    check_config("", &["--config", "/nonexistent/weir.yaml"], 2, &["/nonexistent/weir.yaml"]);
}

#[test]
fn what_a_configuration_names_is_looked_up_before_it_is_called_right() {
    let folder = TempDir::new().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let secret = |name: &str, text: &str, mode: u32| {
        std::fs::write(at(name), text).expect("a file");
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).expect("a file of ours");
    };
    secret("open", "0123456789abcdef", 0o644);
    secret("short", "0123", 0o600);
    secret("good", "0123456789abcdef", 0o600);
    let rule = |asks: &str| format!("capture.rules=[{{name: r, {asks}, action: bypass}}]");
    for (settings, word) in [
        (vec![format!("admin.token_file={}", at("missing"))], "admin.token_file"),
        (vec![format!("admin.token_file={}", at("open"))], "others may read"),
        (vec![format!("admin.token_file={}", at("short"))], "fewer than"),
        (vec![rule("users: [no-such-user]")], "there is no user no-such-user"),
        (vec![rule(&format!("destination_files: ['{}']", at("missing")))], "the destinations in"),
        (vec![rule(&format!("domain_files: ['{}']", at("missing")))], "the domains in"),
        (vec![format!("upstream.tls.roots=['{}']", at("missing"))], "upstream.tls"),
        (vec!["server.user=no-such-user".to_owned()], "server.user"),
        (vec!["cli.enabled=true".to_owned(), "cli.user=no-such-user".to_owned()], "cli.user"),
    ] {
        let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let (status, _, error) = run(Command::new(binary()).args(["config", "check"]).args(&arguments));
        assert_eq!(status, Some(2), "{settings:?}: {error}");
        assert!(error.contains(word), "{settings:?}: {error}");
    }
    let good = format!("admin.token_file={}", at("good"));
    let commands = format!("cli.allowed_commands=[{{path: '{}'}}]", at("missing"));
    let (status, out, error) = run(Command::new(binary())
        .args(["config", "check", "--set", &good, "--set", "cli.enabled=true", "--set", &commands])
        .args(["--set", &rule("users: [root]")]));
    assert_eq!(status, Some(0), "{error}");
    assert!(out.contains("warning: cli.allowed_commands") && out.contains("is no program"), "{out}");
    // Nothing was made.
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 3);
}

#[test]
fn a_destination_that_is_none_is_a_wrong_command_line() {
    for arguments in [
        &["nonsense"][..],
        &["example.com:99999"],
        &["example.com"],
        &["--url", "example.com"],
        &["--url", "http://example.com:99999/"],
        &["--gateway", "https://example.com/"],
    ] {
        let (status, _, error) = run(Command::new(binary()).arg("explain").args(arguments));
        assert_eq!(status, Some(2), "{arguments:?}: {error}");
    }
}
