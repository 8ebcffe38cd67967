//! The admin API: what it says, to whom, and what it keeps to itself.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use weir_tests::http::{self, Answer};
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{Weir, binary, connect, eventually, free_port};

fn ok_origin() -> Origin {
    Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
}

/// Sends requests over one connection.
fn request(weir: &Weir, origin: &Origin, count: usize) {
    let mut stream = connect(weir.proxy);
    for _ in 0..count {
        let fields = "Host: x\r\nContent-Length: 3\r\n";
        write!(stream, "POST http://{}/ HTTP/1.1\r\n{fields}\r\nabc", origin.address).expect("weir takes it");
        assert_eq!(read_answer(&mut stream, "POST").expect("an answer").text(), "hello");
    }
}

/// Asks the Unix socket.
fn over_socket(weir: &Weir, request: &str) -> Answer {
    let mut stream = UnixStream::connect(weir.folder().join("state/admin.sock")).expect("the admin socket");
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .expect("weir takes it");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.as_bytes().to_vec() }
}

#[test]
fn status_tells_what_was_done() {
    let (weir, origin) = (Weir::explicit(""), ok_origin());
    request(&weir, &origin, 3);
    let kept = connect(weir.proxy);
    // The client has its answer a moment before weir has counted it.
    let status = eventually("what was done is counted", || {
        let status = weir.status();
        (status["active_connections"] == 1 && status["bytes_forwarded"] == 24).then_some(status)
    });
    assert_eq!(status["running"], true, "{status}");
    assert_eq!(status["port"], weir.proxy.port(), "{status}");
    assert_eq!(status["proxy_url"], format!("http://{}", weir.proxy), "{status}");
    assert_eq!((&status["request_count"], &status["bytes_forwarded"]), (&3.into(), &24.into()), "{status}");
    assert!(status["uptime_seconds"].is_u64() && status["version"].is_string(), "{status}");
    assert_eq!(status["pid"], weir.pid().as_raw(), "{status}");
    assert_eq!(status["capture"]["state"], "off", "{status}");
    assert!(status["capture"]["reason"].as_str().is_some_and(|why| why.contains("capture.mode")), "{status}");
    drop(kept);
    let again: Value = over_socket(&weir, "GET /proxy/status").json();
    assert_eq!(again["port"], status["port"], "the socket says the same");
}

#[test]
fn a_request_is_sent_through_the_proxy() {
    let (weir, origin) = (Weir::explicit(""), ok_origin());
    let test = |body: &str| {
        let mut stream =
            UnixStream::connect(weir.folder().join("state/admin.sock")).expect("the admin socket");
        let fields = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json";
        let length = body.len();
        write!(stream, "POST /proxy/test HTTP/1.1\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{body}")
            .expect("weir takes it");
        http::read_to_end(&mut stream).expect("an answer")
    };
    let answer = test(&format!(r#"{{"url": "http://{}/"}}"#, origin.address)).json();
    assert_eq!(answer["success"], true, "{answer}");
    assert_eq!((&answer["status_code"], &answer["body"]), (&200.into(), &"hello".into()), "{answer}");
    assert_eq!(answer["proxy_url"], format!("http://{}", weir.proxy), "{answer}");
    // It went the way of everything else.
    let flow = &weir.flows(1)[0];
    assert_eq!((&flow["front"], &flow["status"]), (&"explicit".into(), &200.into()), "{flow}");

    // What an origin says is no failure of the proxy's.
    let failing = Origin::fixed("HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\noh");
    let answer = test(&format!(r#"{{"url": "http://{}/"}}"#, failing.address)).json();
    assert_eq!((&answer["success"], &answer["status_code"]), (&true.into(), &500.into()), "{answer}");
    let answer = test(&format!(r#"{{"url": "http://127.0.0.1:{}/"}}"#, free_port())).json();
    assert_eq!((&answer["success"], &answer["status_code"]), (&false.into(), &502.into()), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("refused")), "{answer}");

    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    let answer = test(&format!(r#"{{"url": "http://{}/"}}"#, Origin::fixed(&large).address)).json();
    assert_eq!(answer["body"].as_str().map(str::len), Some(65_536));
    assert_eq!(answer["body_truncated"], true);
    for (body, status) in [
        (r#"{"url": "ftp://x/"}"#, 400),
        (r#"{"url": "/x"}"#, 400),
        (r#"{"url": "http://user:secret@x/"}"#, 400),
        (r#"{"url": "http://x/\r\nX: y"}"#, 400),
        (r#"{"url": 1}"#, 422),
        (r#"{"address": "x"}"#, 422),
        ("{", 400),
    ] {
        assert_eq!(test(body).status, status, "{body}");
    }
}

#[test]
fn health_is_told() {
    let weir = Weir::explicit("");
    for (path, status) in [("liveness", "alive"), ("readiness", "ready"), ("startup", "started")] {
        let answer = http::get(weir.admin, &format!("/health/{path}")).expect("an answer");
        assert_eq!((answer.status, &answer.json()["status"]), (200, &status.into()), "{path}");
        assert_eq!(answer.field("content-type"), Some("application/json"), "{path}");
    }
}

/// Those with labels, which promtool looks at.
const FAMILIES: [&str; 2] = ["weir_http_request_duration_seconds", "weir_http_responses_total"];

/// All other metrics, checked for form: HELP, TYPE, one sample, in this order, each name once.
fn metrics(weir: &Weir) -> HashMap<String, f64> {
    let answer = http::get(weir.admin, "/metrics").expect("an answer");
    assert_eq!(answer.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    assert!(text.ends_with('\n'), "the last line must end");
    let mut samples = HashMap::new();
    let is_of_family = |line: &&str| FAMILIES.iter().any(|family| line.contains(family));
    let lines: Vec<_> = text.lines().filter(|line| !is_of_family(line)).collect();
    for group in lines.chunks(3) {
        let [help, kind, sample] = group else { panic!("no whole metric: {group:?}") };
        let (name, value) = sample.split_once(' ').expect("a name and a value");
        let form = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.starts_with("weir_") && name.chars().all(form), "{name}");
        let words = help.strip_prefix(&format!("# HELP {name} ")).unwrap_or_default();
        assert!(!words.is_empty(), "{help}");
        let kind = kind.strip_prefix(&format!("# TYPE {name} ")).expect("a type");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {sample}"));
        assert!(samples.insert(name.to_owned(), value).is_none(), "{name} stands there twice");
    }
    samples
}

#[test]
fn metrics_are_well_formed_and_grow_by_what_happened() {
    let (weir, origin) = (Weir::explicit(""), ok_origin());
    let before = metrics(&weir);
    request(&weir, &origin, 7);
    let refused = format!("CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\n", weir.proxy);
    assert_eq!(http::send(weir.proxy, refused.as_bytes()).expect("an answer").status, 403);
    eventually("all connections ended", || (weir.status()["active_connections"] == 0).then_some(()));
    let after = metrics(&weir);
    let growth: Vec<_> = after
        .iter()
        .map(|(name, value)| (name.as_str(), value - before[name]))
        .filter(|(name, growth)| *growth != 0.0 && *name != "weir_uptime_seconds")
        .collect();
    let expected = HashSet::from([
        ("weir_http_requests_total", 7),
        ("weir_explicit_connections_total", 2),
        ("weir_closed_connections_total", 2),
        ("weir_upstream_connects_total", 1),
        ("weir_upstream_requests_total", 7),
        ("weir_upstream_reuses_total", 6),
        ("weir_sent_bytes_total", 21),
        ("weir_received_bytes_total", 35),
        ("weir_denied_total", 1),
    ]);
    let growth: HashSet<_> = growth.into_iter().map(|(name, growth)| (name, growth as i64)).collect();
    assert_eq!(growth, expected);
}

#[test]
fn what_is_not_there_is_a_problem_document() {
    let weir = Weir::explicit("");
    for (request, status) in [
        ("GET /", 404),
        ("GET /nothing/here", 404),
        ("POST /proxy/status", 405),
        ("GET /explain", 400),
        ("GET /explain?destination=nowhere", 400),
        // These are answered over the socket alone.
        ("POST /capture/exec", 403),
        ("GET /flows", 403),
    ] {
        let bytes = format!(
            "{request} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            weir.admin
        );
        let answer = http::send(weir.admin, bytes.as_bytes()).expect("an answer");
        assert_eq!(answer.status, status, "{request}: {}", answer.text());
        assert_eq!(
            answer.field("content-type"),
            Some("application/problem+json"),
            "{request}: {}",
            answer.text()
        );
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{request}: {problem}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{request}: {problem}");
    }
    let answer = over_socket(&weir, "POST /capture/exec");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("capture.mode is off"), "{}", answer.text());
}

#[test]
fn web_pages_are_kept_out() {
    let weir = Weir::explicit("");
    let port = weir.admin.port();
    for (fields, status) in [
        (format!("Host: 127.0.0.1:{port}\r\n"), 200),
        (format!("Host: localhost:{port}\r\n"), 200),
        (format!("Host: LOCALHOST:{port}\r\n"), 200),
        (format!("Host: [::1]:{port}\r\n"), 200),
        ("Host: 127.0.0.1\r\n".into(), 403),
        (format!("Host: rebound.example:{port}\r\n"), 403),
        (format!("Host: 127.0.0.1:{port}.example\r\n"), 403),
        (format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n"), 200),
        (format!("Host: localhost:{port}\r\nOrigin: http://evil.example\r\n"), 403),
        (format!("Host: localhost:{port}\r\nOrigin: https://localhost:{port}\r\n"), 403),
        (format!("Host: localhost:{port}\r\nOrigin: null\r\n"), 403),
        (format!("Host: localhost:{port}\r\nSec-Fetch-Site: same-origin\r\n"), 200),
        (format!("Host: localhost:{port}\r\nSec-Fetch-Site: none\r\n"), 200),
        (format!("Host: localhost:{port}\r\nSec-Fetch-Site: same-site\r\n"), 403),
        (format!("Host: localhost:{port}\r\nSec-Fetch-Site: cross-site\r\n"), 403),
    ] {
        for path in ["/proxy/status", "/capture", "/metrics", "/nothing"] {
            let request = format!("GET {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
            let answer = http::send(weir.admin, request.as_bytes()).expect("an answer");
            let expected = if (status, path) == (200, "/nothing") { 404 } else { status };
            assert_eq!(answer.status, expected, "{path} with {fields}");
            assert_eq!(answer.field("access-control-allow-origin"), None, "{path} with {fields}");
            assert!(status == 200 || answer.json()["status"] == 403, "{}", answer.text());
        }
    }
}

#[test]
fn the_socket_is_its_owners_alone() {
    let weir = Weir::explicit("");
    let mode = |path: &str| {
        let file = std::fs::metadata(weir.folder().join(path)).expect("a file");
        file.permissions().mode() & 0o777
    };
    assert_eq!(mode("state/admin.sock"), 0o600);
    assert_eq!(mode("state") & 0o022, 0, "others must not be able to replace the socket");
}

#[test]
fn json_logs_are_json() {
    let (weir, origin) = (Weir::explicit("logging: {format: json}"), ok_origin());
    request(&weir, &origin, 2);
    weir.flows(2);
    let lines = eventually("two flows in the log", || {
        let log = weir.log();
        let lines: Result<Vec<Value>, _> = log.lines().map(serde_json::from_str).collect();
        lines.ok().filter(|lines| lines.iter().filter(|line| line["method"] == "POST").count() == 2)
    });
    assert!(lines.iter().any(|line| line["level"] == "INFO" && line["message"].is_string()), "{lines:?}");
    let flow = lines.iter().find(|line| line["method"] == "POST").expect("a flow");
    assert_eq!(flow["url"], format!("http://{}/", origin.address), "{flow}");
}

#[test]
fn secrets_are_neither_logged_nor_shown() {
    let (weir, origin) = (Weir::explicit("logging: {level: trace}"), ok_origin());
    let server = origin.address;
    let basic = "Authorization: Basic s3cret\r\nProxy-Authorization: Basic s3cret\r\nCookie: sid=s3cret\r\n";
    let bodies = "Content-Length: 6\r\nHost: x\r\n\r\ns3cret";
    let requests = [
        format!("POST http://{server}/?token=s3cret&page=2 HTTP/1.1\r\n{basic}{bodies}"),
        format!("POST http://{server}/?a=b&X-Amz-Signature=s3cret&client_secret=s3cret HTTP/1.1\r\n{bodies}"),
        format!("POST http://{server}/?PASSWORD=s3cret&pwd=s3cret&pass=s3cret HTTP/1.1\r\n{bodies}"),
        // What goes wrong is explained without them, too.
        "GET http://user:s3cret@x/ HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET http://a..b/?token=s3cret HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET x?token=s3cret HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "CONNECT user:s3cret@x:443 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /?token=s3cret HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ];
    for request in &requests {
        let mut stream = connect(weir.proxy);
        stream.write_all(request.as_bytes()).expect("weir takes it");
        read_answer(&mut stream, "GET").expect("an answer");
    }
    let flows = weir.flows(requests.len());
    let log = eventually("a flow in the log", || Some(weir.log()).filter(|log| log.contains("page=2")));
    for text in [format!("{flows:?}"), log] {
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("page=2"), "what is no secret is shown: {text}");
    }
    assert_eq!(origin.requests()[0].field("authorization"), Some("Basic s3cret"), "but it is passed on");
}

#[test]
fn no_url_commands_a_terminal() {
    let (weir, origin) = (Weir::explicit(""), ok_origin());
    let mut stream = connect(weir.proxy);
    // U+009B is what ESC [ is in ASCII.
    write!(stream, "GET http://{}/a\u{9b}1mb HTTP/1.1\r\nHost: x\r\n\r\n", origin.address)
        .expect("weir takes it");
    read_answer(&mut stream, "GET").expect("an answer");
    weir.flows(1);
    let listed = weir.command(&["flows"]).output().expect("weir runs").stdout;
    let logged = eventually("the flow in the log", || Some(weir.log()).filter(|log| log.contains("/a")));
    for text in [String::from_utf8_lossy(&listed).into_owned(), logged] {
        assert!(!text.contains('\u{9b}'), "{text:?}");
    }
}

#[test]
fn a_file_in_the_sockets_place_is_left_alone() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("precious");
    std::fs::write(&file, "data").expect("a file");
    let (port, admin) = (free_port(), free_port());
    let settings = [
        "capture.mode=off".to_owned(),
        format!("server.port={port}"),
        format!("server.port_range={port}-{port}"),
        format!("admin.port={admin}"),
        format!("admin.state_dir={}", folder.path().display()),
        format!("admin.socket={}", file.display()),
    ];
    let mut command = Command::new("timeout");
    command.arg("10").arg(binary()).arg("serve");
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    let output = command.output().expect("coreutils are installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("precious") && error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "data");
}

/// A process that ends with the test at the latest.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended on its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_access_log_that_nobody_reads_blocks_nothing() {
    let (folder, origin) = (TempDir::new().expect("a temporary folder"), ok_origin());
    let (port, admin) = (free_port(), free_port());
    let settings = [
        "capture.mode=off".to_owned(),
        "security.acl.destinations.loopback=allow".to_owned(),
        format!("server.port={port}"),
        format!("server.port_range={port}-{port}"),
        format!("admin.port={admin}"),
        format!("admin.state_dir={}", folder.path().join("state").display()),
    ];
    let mut command = Command::new(binary());
    command.arg("serve").args(settings.iter().flat_map(|setting| ["--set", setting]));
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut weir = Process(command.spawn().expect("weir starts"));
    let pid = Pid::from_raw(i32::try_from(weir.0.id()).expect("a pid"));
    let admin = SocketAddr::from(([127, 0, 0, 1], admin));
    eventually("weir is ready", || {
        http::get(admin, "/health/readiness").is_ok_and(|answer| answer.status == 200).then_some(())
    });
    let mut stream = connect(([127, 0, 0, 1], port).into());
    let request = format!("GET http://{}/{} HTTP/1.1\r\nHost: x\r\n\r\n", origin.address, "x".repeat(500));
    // Far more than a pipe holds.
    for _ in 0..1000 {
        stream.write_all(request.as_bytes()).expect("weir takes it");
        assert_eq!(read_answer(&mut stream, "GET").expect("an answer").status, 200);
    }
    assert_eq!(http::get(admin, "/health/liveness").expect("an answer").status, 200);
    kill(pid, Signal::SIGTERM).expect("weir runs");
    let ended = eventually("weir ends", || weir.0.try_wait().expect("a child of ours"));
    assert!(ended.success(), "{ended}");
}
