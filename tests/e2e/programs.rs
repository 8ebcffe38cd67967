//! Programs that people use, unchanged: what they do alone they do through `weir exec`, and the flows show it.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use weir_tests::background::Background;
use weir_tests::weir::{Weir, eventually, free_port};
use weir_tests::{http, netns, scripts};

/// A busy machine lets a client's first bytes come late; what they are is to be seen all the same.
const PATIENT: &str = "capture: {detect_timeout: 2s}";

/// Runs a captured program that must succeed.
#[track_caller]
fn captured(weir: &Weir, program: &[&str]) -> String {
    scripts::stdout(&mut weir.exec(program))
}

#[test]
fn http_clients_work() {
    netns::enter();
    let server = http::server(netns::V4, |mut stream| {
        http::read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    });
    let weir = Weir::capturing(PATIENT);
    let url = format!("http://{server}/path");
    let urllib = format!("import urllib.request as u; print(u.urlopen('{url}').read().decode())");
    let programs: [&[&str]; 3] =
        [&["curl", "-sS", &url], &["wget", "-q", "-O", "-", &url], &scripts::python(&urllib)];
    for (nth, program) in (1..).zip(programs) {
        assert_eq!(captured(&weir, program), "hello", "{program:?}");
        let flow = weir.flows(nth).pop().expect("a flow");
        assert_eq!(
            (&flow["protocol"], &flow["status"], &flow["url"]),
            (&"http1".into(), &200.into(), &url.as_str().into())
        );
    }
}

/// A throwaway certificate for `tls.example` and the server's address.
fn certificate(folder: &Path) -> (String, String) {
    let path = |name: &str| folder.join(name).display().to_string();
    let (certificate, key) = (path("certificate"), path("key"));
    let names = format!("subjectAltName=DNS:tls.example,IP:{}", netns::V4);
    let request =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let output = ["-subj", "/CN=tls.example", "-addext", &names, "-keyout", &key, "-out", &certificate];
    let output = Command::new("openssl").args(request).args(output).output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (certificate, key)
}

#[test]
fn tls_clients_work_and_the_server_name_is_shown() {
    netns::enter();
    let folder = TempDir::new().expect("a temporary folder");
    let (certificate, key) = certificate(folder.path());
    let server = Background::start("tls_server.py", &[netns::V4, &certificate, &key]);
    let weir = Weir::capturing(PATIENT);
    let port = &server.port;
    let named = format!("https://tls.example:{port}/");
    let by_address = format!("https://{}:{port}/", netns::V4);
    let resolve = format!("tls.example:{port}:{}", netns::V4);
    let urllib = format!(
        "import urllib.request as u, ssl; \
         print(u.urlopen('{by_address}', context=ssl.create_default_context(cafile='{certificate}')).read().decode())"
    );
    let programs: [(&[&str], Option<String>); 3] = [
        (
            &["curl", "-sS", "--cacert", &certificate, "--resolve", &resolve, &named],
            Some(format!("tls.example:{port}")),
        ),
        // RFC 6066 §3: an address is no server name.
        (&["wget", "-q", "-O", "-", "--ca-certificate", &certificate, &by_address], None),
        (&scripts::python(&urllib), None),
    ];
    for (nth, (program, name)) in (1..).zip(programs) {
        assert_eq!(captured(&weir, program), "over TLS", "{program:?}");
        let flow = weir.flows(nth).pop().expect("a flow");
        assert_eq!(flow["protocol"], "tls", "{flow:#}");
        assert_eq!(flow["authority"].as_str().map(str::to_owned), name, "{flow:#}");
    }
}

/// git without the settings of whoever runs this.
fn git(command: &mut Command, arguments: &[&str]) -> String {
    let who = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
    let command =
        command.args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    scripts::stdout(command.envs(who.map(|name| (name, "test"))))
}

#[test]
fn git_clones_over_http_and_its_own_protocol() {
    netns::enter();
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let repository = path("repository");
    let local = |arguments: &[&str]| git(&mut Command::new("git"), arguments);
    local(&["init", "-q", &repository]);
    // More than fits into a small message.
    let content: String = (0..100_000).map(|line| format!("{line}\n")).collect();
    std::fs::write(folder.path().join("repository/file"), content).expect("a folder of ours");
    local(&["-C", &repository, "add", "file"]);
    local(&["-C", &repository, "commit", "-qm", "first"]);
    let head = local(&["-C", &repository, "rev-parse", "HEAD"]);

    let smart = Background::start("git_server.py", &[netns::V4, &path("")]);
    let daemon = GitDaemon::start(&path(""));
    let weir = Weir::capturing(PATIENT);
    let urls = [
        format!("http://{}:{}/repository/.git", netns::V4, smart.port),
        format!("git://{}/repository/.git", daemon.address),
    ];
    for (url, (clone, protocol)) in urls.iter().zip([("by-http", "http1"), ("by-git", "opaque")]) {
        git(&mut weir.exec(&["git"]), &["clone", "-q", url, &path(clone)]);
        assert_eq!(local(&["-C", &path(clone), "rev-parse", "HEAD"]), head);
        local(&["-C", &path(clone), "fsck", "--full"]);
        assert_eq!(local(&["-C", &path(clone), "status", "--porcelain"]), "");
        let flow = eventually("a flow of that protocol", || {
            weir.flows(1).into_iter().find(|flow| flow["protocol"] == protocol)
        });
        assert_eq!(flow["end"], "complete", "{flow:#}");
    }
}

/// `git daemon` at a port of its own; ended when dropped.
struct GitDaemon {
    child: Child,
    address: SocketAddr,
}

impl GitDaemon {
    fn start(folder: &str) -> Self {
        let address = SocketAddr::new(netns::V4.parse().expect("an address"), free_port());
        // Not through `git`, which would leave the daemon behind when it is killed.
        let daemon = format!("{}/git-daemon", scripts::stdout(Command::new("git").arg("--exec-path")));
        let child = Command::new(daemon)
            .args(["--export-all", "--reuseaddr", &format!("--base-path={folder}")])
            .args([format!("--listen={}", address.ip()), format!("--port={}", address.port())])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("git has its daemon");
        let daemon = Self { child, address };
        eventually("git daemon listens", || TcpStream::connect(address).ok());
        daemon
    }
}

impl Drop for GitDaemon {
    fn drop(&mut self) {
        // Ended already, perhaps.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of a public registry: says the same alone and captured, and all it did there is seen as TLS to a name.
#[track_caller]
fn check_registry(program: &[&str]) {
    let mut alone = Command::new(program[0]);
    let expected = scripts::stdout(alone.args(&program[1..]));
    let weir = Weir::capturing(PATIENT);
    assert_eq!(captured(&weir, program), expected);
    let flows = weir.flows(1);
    let tls: Vec<&Value> = flows.iter().filter(|flow| flow["protocol"] == "tls").collect();
    assert!(!tls.is_empty(), "{flows:#?}");
    for flow in tls {
        let authority = flow["authority"].as_str().unwrap_or_default();
        assert!(authority.len() > ":443".len() && authority.ends_with(":443"), "{flow:#}");
        assert!(flow["received"].as_u64() > Some(0), "{flow:#}");
        assert_eq!(flow["front"], "captured");
    }
}

/// These two need the public registries, in whatever way this machine reaches them.
#[test]
fn pip_downloads() {
    let folder = TempDir::new().expect("a temporary folder");
    let folder = folder.path().display().to_string();
    let download = format!(
        "pip3 download -q --no-deps --no-cache-dir -d {folder}/new six && ls {folder}/new && rm -r {folder}/new"
    );
    check_registry(&["sh", "-c", &download]);
}

#[test]
fn npm_views() {
    let folder = TempDir::new().expect("a temporary folder");
    let view =
        format!("npm view --cache {0}/new is-number version && rm -r {0}/new", folder.path().display());
    check_registry(&["sh", "-c", &view]);
}
