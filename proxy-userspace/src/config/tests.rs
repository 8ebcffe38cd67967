//! The errors a user sees, as data; the shipped files; and that no input panics.

mod capture;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Loads files of these contents, named a.yaml, b.yaml, …; paths in messages lose their folder.
pub(crate) fn load_files(
    texts: &[&[u8]],
    environment: &[(&str, &str)],
    flags: &[&str],
) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let write = |(name, text): (char, &&[u8])| {
        let path = folder.path().join(format!("{name}.yaml"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let sources = Sources {
        files: ('a'..).zip(texts).map(write).collect(),
        fallback: None,
        environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        overrides: flags.iter().map(|&flag| flag.to_owned()).collect(),
    };
    load(&sources).map_err(|errors| errors.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

/// The errors of one file, exactly.
#[track_caller]
pub(super) fn check(yaml: &str, expected: &str) {
    let shown = load_files(&[yaml.as_bytes()], &[], &[]).map_or_else(|errors| errors, |_| String::new());
    assert_eq!(shown, expected, "for:\n{yaml}");
}

#[test]
fn unknown_keys() {
    check("server:\n  prot: 1\n", "a.yaml:2:3: server.prot: unknown key (did you mean `port`?)");
    check("servers:\n  port: 1\n", "a.yaml:1:1: servers: unknown key (did you mean `server`?)");
    check("server:\n  Port: 1\n", "a.yaml:2:3: server.Port: unknown key (did you mean `port`?)");
    check(
        "server:\n  tunnel_idle: 1h\n",
        "a.yaml:2:3: server.tunnel_idle: unknown key (did you mean `server.timeouts.tunnel_idle`?)",
    );
    check(
        "relay:\n  colour: 1\n",
        "a.yaml:2:3: relay.colour: unknown key; known here: pipe_size, socket_buffer",
    );
    check(
        "security: {acl: {destinations: {privat: deny}}}",
        "a.yaml:1:33: security.acl.destinations.privat: unknown key (did you mean `private`?)",
    );
    check(
        "plugins:\n  enabled: true\n",
        "a.yaml:1:1: plugins: unknown key; known here: \
         server, capture, security, cache, compression, routing, forwarded, services, upstream, tls, relay, admin, metrics, cli, \
         flows, \
         logging",
    );
}

#[test]
fn wrong_values() {
    for (line, expected) in [
        ("port: many", "9: server.port: `many` is not a whole number"),
        ("port: 70000", "9: server.port: `70000` is outside 0 to 65535"),
        ("port: -1", "9: server.port: `-1` is outside 0 to 65535"),
        (
            "port: 99999999999999999999999999999999999999999",
            "9: server.port: `99999999999999999999999999999999999999999` is not a whole number",
        ),
        ("port:", "3: server.port: no value; leave the key out for its default"),
        ("port: ~", "3: server.port: no value; leave the key out for its default"),
        ("port: [1, 2]", "9: server.port: a list where a single value belongs"),
        ("port: {first: 1}", "9: server.port: keys below it, where a single value belongs"),
        (
            "port_range: 22189-22180",
            "15: server.port_range: the range `22189-22180` runs backwards (did you mean `22180-22189`?)",
        ),
        ("port_range: 0-5", "15: server.port_range: `0` is outside 1 to 65535"),
        ("workers: 0", "12: server.workers: `0` is outside 1 to 1024, nor `auto`"),
        ("host: localhost", "9: server.host: `localhost` is not an IP address (did you mean `127.0.0.1`?)"),
        ("timeouts: 30s", "13: server.timeouts: not a section; write its keys below it, as `key: value`"),
        (
            "timeouts: {read: 30}",
            "20: server.timeouts.read: `30` needs a unit: ms, s, min, h or d (did you mean `30s`?)",
        ),
        (
            "timeouts: {read: 30sec}",
            "20: server.timeouts.read: `30sec` has an unknown unit; known: ms, s, min, m, h, d",
        ),
        (
            "timeouts: {read: 0.5s}",
            "20: server.timeouts.read: `0.5s` is a fraction; use a smaller unit and a whole number",
        ),
        ("timeouts: {read: fast}", "20: server.timeouts.read: `fast` is not a duration such as 500ms or 30s"),
        ("timeouts: {read: 0s}", "20: server.timeouts.read: `0s` is outside 10ms to 1d"),
        (
            "limits: {head: 16K}",
            "18: server.limits.head: `16K` has an unknown unit; known: B, kB, KiB, MB, MiB, GB, GiB (did you mean `16kB`?)",
        ),
        ("limits: {head: 1GiB}", "18: server.limits.head: `1GiB` is outside 1KiB to 1MiB"),
        (
            "limits: {head: 99999999999999999GiB}",
            "18: server.limits.head: `99999999999999999GiB` is outside 1KiB to 1MiB",
        ),
    ] {
        check(&format!("server:\n  {line}\n"), &format!("a.yaml:2:{expected}"));
    }
    for (line, expected) in [
        ("mode: of", "9: capture.mode: `of` is not one of auto, required, off (did you mean `off`?)"),
        ("cgroup: weir", "11: capture.cgroup: `weir` is not an absolute path; begin it with /, nor `auto`"),
        ("heartbeat_timeout: 199ms", "22: capture.heartbeat_timeout: `199ms` is outside 200ms to 10s"),
        ("heartbeat_timeout: 11s", "22: capture.heartbeat_timeout: `11s` is outside 200ms to 10s"),
        (
            "server_first_ports: 22",
            "23: capture.server_first_ports: not a list; write [a, b] or a line `- a` for each entry",
        ),
        (
            "server_first_ports: [22, ssh, 0]",
            "28: capture.server_first_ports: `ssh` is not a whole number\n\
          a.yaml:2:33: capture.server_first_ports: `0` is outside 1 to 65535",
        ),
        ("kernel_log: on", "15: capture.kernel_log: `on` is not one of true, false (did you mean `true`?)"),
    ] {
        check(&format!("capture:\n  {line}\n"), &format!("a.yaml:2:{expected}"));
    }
    check(
        "logging:\n  level: inof\n",
        "a.yaml:2:10: logging.level: `inof` is not one of off, error, warn, info, debug, trace \
         (did you mean `info`?)",
    );
}

#[test]
fn clashes() {
    check(
        "admin:\n  host: 0.0.0.0\n",
        "a.yaml:2:9: admin.host: 0.0.0.0 is not a loopback address, and the admin API controls this \
         machine's traffic; use 127.0.0.1 or ::1, and reach it through ssh -L",
    );
    check(
        "server:\n  port: 22140\n",
        "a.yaml:2:9: server.port: server and admin both want port 22140; give one of them another",
    );
    check("server: {port: 0}\nadmin: {port: 0}\n", "");
    check(
        &format!("admin:\n  state_dir: /{}\n", "d".repeat(100)),
        &format!(
            "a.yaml:2:14: admin.state_dir: the socket path /{}/admin.sock has 112 bytes, and Linux takes \
             107; shorten it",
            "d".repeat(100)
        ),
    );
    check(
        "server:\n  limits: {url: 32KiB}\n",
        "a.yaml:2:17: server.limits.url: server.limits.url (32768) is larger than server.limits.head \
         (16384), which holds the URL too; raise head or lower url",
    );
}

#[test]
fn structure() {
    check("", "");
    check("# nothing\n---\n", "");
    check("server:\n", "");
    check("\u{feff}server:\n  prot: 1\n", "a.yaml:2:3: server.prot: unknown key (did you mean `port`?)");
    check("server:\n  port: 1\n  port: 2\n", "a.yaml:3:3: server.port: given twice; first at a.yaml:2:3");
    check("- server\n", "a.yaml:1:1: not a section; write its keys below it, as `key: value`");
    check(
        "server: {port: 1",
        "a.yaml:2:1: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'",
    );
    check("server: *x\n", "a.yaml:1:9: not valid YAML: while parsing node, found unknown anchor");
    check(
        "server: &x\n  port: 1\n",
        "a.yaml:1:9: server: anchors (`&name`) and tags (`!name`) are not supported",
    );
    check(
        "server:\n  port: !!int 1\n",
        "a.yaml:2:9: server.port: anchors (`&name`) and tags (`!name`) are not supported",
    );
    check("server:\n  [1]: 2\n", "a.yaml:2:3: server: a key must be a plain word");
    check("server: {}\n---\nadmin: {}\n", "a.yaml:2:1: a second document; one file holds one");
    check(&format!("x: {}", "[".repeat(100)), "a.yaml:1:20: x: nested too deeply");
}

#[test]
fn all_errors_at_once_in_file_order() {
    check(
        "server:\n  prot: 1\n  workers: 0\nadmin:\n  host: 8.8.8.8\nlogging:\n  format: xml\n",
        "a.yaml:2:3: server.prot: unknown key (did you mean `port`?)\n\
         a.yaml:3:12: server.workers: `0` is outside 1 to 1024, nor `auto`\n\
         a.yaml:5:9: admin.host: 8.8.8.8 is not a loopback address, and the admin API controls this \
         machine's traffic; use 127.0.0.1 or ::1, and reach it through ssh -L\n\
         a.yaml:7:11: logging.format: `xml` is not one of text, json",
    );
}

#[test]
fn unreadable_files() {
    let sources = Sources { files: vec!["/nonexistent/proxy.yaml".into()], ..Sources::default() };
    assert_eq!(
        load(&sources).unwrap_err().to_string(),
        "/nonexistent/proxy.yaml: can't be read: No such file or directory (os error 2)"
    );
    assert_eq!(
        load_files(&[b"server:\n  \xc3\xa9\xff"], &[], &[]).unwrap_err(),
        "a.yaml:2:4: not UTF-8 text"
    );
    let large = vec![b' '; (1 << 20) + 1];
    assert!(load_files(&[&large], &[], &[]).unwrap_err().contains("larger than 1048576 bytes"));
}

#[test]
fn a_missing_fallback_means_defaults() {
    let sources = Sources { fallback: Some("/nonexistent/proxy.yaml".into()), ..Sources::default() };
    assert_eq!(load(&sources), Ok(Config::default()));
}

#[test]
fn later_sources_win() {
    let base = b"server: {port: 1, host: 10.0.0.1, workers: 3}\ncapture: {server_first_ports: [1, 2]}\n";
    let overlay = b"server:\n  port: 2\ncapture: {server_first_ports: [3]}\nadmin:\n";
    let port = |files: &[&[u8]], env: &[(&str, &str)], flags: &[&str]| {
        load_files(files, env, flags).unwrap().server.port
    };
    assert_eq!(port(&[base], &[], &[]), 1);
    assert_eq!(port(&[base, overlay], &[], &[]), 2);
    assert_eq!(port(&[base, overlay], &[("PROXY_PORT", "3")], &[]), 3);
    assert_eq!(port(&[base, overlay], &[("PROXY_PORT", "3"), ("WEIR__SERVER__PORT", "4")], &[]), 4);
    assert_eq!(port(&[base, overlay], &[("WEIR__SERVER__PORT", "")], &[]), 2);
    assert_eq!(port(&[base, overlay], &[("PROXY_PORT", "3")], &["server.port=5"]), 5);
    assert_eq!(port(&[base, overlay], &[], &["server.port=5", "server.port=6"]), 6);

    let config = load_files(&[base, overlay], &[], &[]).unwrap();
    assert_eq!(config.server.workers, 3);
    assert_eq!(config.capture.server_first_ports, [3]);
    let config = load_files(&[base], &[("WEIR__SERVER__TIMEOUTS__IDLE", "2min")], &[]).unwrap();
    assert_eq!(config.server.timeouts.idle, Duration::from_secs(120));
    let config = load_files(&[base], &[], &["capture.server_first_ports=[7, 8]"]).unwrap();
    assert_eq!(config.capture.server_first_ports, [7, 8]);
    let short = [("PROXY_HOST", "::1"), ("LOG_LEVEL", "warn"), ("LOG_FORMAT", "json")];
    let config = load_files(&[], &short, &[]).unwrap();
    assert_eq!(config.server.host, "::1".parse::<IpAddr>().unwrap());
    assert_eq!(config.logging, Logging { level: "warn".into(), format: LogFormat::Json, access: true });
}

#[test]
fn errors_outside_files_name_their_source() {
    for (environment, flags, expected) in [
        (
            &[("PROXY_PORT", "x")][..],
            &[][..],
            "environment variable PROXY_PORT: server.port: `x` is not a whole number",
        ),
        (
            &[("WEIR__SERVER__PROT", "1")],
            &[],
            "environment variable WEIR__SERVER__PROT: server.prot: unknown key (did you mean `port`?)",
        ),
        (&[("WEIR__", "1")], &[], "environment variable WEIR__: not a key; write section.key"),
        (&[], &["server.prot=1"], "--set server.prot: server.prot: unknown key (did you mean `port`?)"),
        (&[], &["server.port"], "--set server.port: no `=`; write key.path=value"),
        (
            &[],
            &["server.port="],
            "--set server.port: server.port: no value; leave the key out for its default",
        ),
        (&[], &["server=1"], "--set server: server: a value here, but keys below it at a.yaml:1:9"),
        (
            &[],
            &["server.port.x=1"],
            "--set server.port.x: server.port: keys below it here, but a value at a.yaml:1:16",
        ),
    ] {
        let errors = load_files(&[b"server: {port: 1}"], environment, flags).unwrap_err();
        assert_eq!(errors.lines().next().unwrap(), expected);
    }
}

#[test]
fn an_open_listener_is_warned_of() {
    assert_eq!(warnings(&Config::default()), Vec::<String>::new());
    let open = load_files(&[b"server: {host: 0.0.0.0}"], &[], &[]).unwrap();
    assert!(warnings(&open)[0].starts_with("server.host 0.0.0.0 is not a loopback address"));
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name)
}

#[test]
fn shipped_files() {
    let base = shipped("proxy.yaml");
    let load = |files| load(&Sources { files, ..Sources::default() });
    assert_eq!(load(vec![base.clone()]), Ok(Config::default()));
    for overlay in ["proxy.dev.yaml", "proxy.prod.yaml", "recipes/packages.yaml"] {
        let config = load(vec![base.clone(), shipped(overlay)]).unwrap();
        assert_ne!(config, Config::default(), "{overlay}");
    }
}

/// config/proxy.yaml is the reference: each key is there, with its range, and the default as the value.
#[test]
fn the_reference_is_complete() {
    let text = std::fs::read_to_string(shipped("proxy.yaml")).unwrap();
    let mut documented = BTreeMap::new();
    let (mut path, mut comment) = (Vec::<&str>::new(), String::new());
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(text) = trimmed.strip_prefix('#') {
            comment = format!("{comment} {}", text.trim());
            continue;
        }
        if let Some((key, value)) = trimmed.split_once(':') {
            path.truncate((line.len() - line.trim_start().len()) / 2);
            path.push(key);
            documented.insert(path.join("."), (value.trim(), std::mem::take(&mut comment)));
        }
        comment.clear();
    }
    let keys = keys();
    assert_eq!(documented.len(), keys.len());
    for key in keys {
        let (value, comment) = &documented[&key];
        let section = value.is_empty();
        assert!(
            section || comment.contains(&format!("Default: {value}. Range: ")),
            "{key}: {value}: {comment}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = load_files(&[&bytes], &[], &[]);
    }

    /// Made of what YAML and our kinds treat specially.
    #[test]
    fn no_text_panics(
        words in prop::collection::vec(prop::sample::select(vec![
            "server", "capture", "timeouts", "port", "host", "workers", "read", "level", ":", ": ", "- ", "\n",
            "\n  ", "\n    ", "[", "]", "{", "}", ",", "&a", "*a", "!!str ", "|", ">-", "'", "\"", "#", "%", "---",
            "...", "?", "~", "0", "-1", "22180-", "30s", "é", "\u{2028}", "\t", "auto", "1..2", "9999999999999GiB",
        ]), 0..40),
        flag in "[a-z.=\\[\\], é]{0,20}",
        value in "\\PC{0,20}",
    ) {
        let environment = [("WEIR__SERVER__TIMEOUTS__READ", value.as_str()), ("WEIR__LOGGING__LEVEL", &value)];
        let _ = load_files(&[words.concat().as_bytes()], &environment, &[&flag]);
    }
}
