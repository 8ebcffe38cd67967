//! git through weir: what one clone pushes another one fetches, by every kind of proxy that git knows.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use weir_tests::background::Background;
use weir_tests::certificates::Authority;
use weir_tests::intercepting::Intercepting;
use weir_tests::pattern::Pattern;
use weir_tests::scripts;
use weir_tests::weir::Weir;

/// Longer than what git sends in one piece (`http.postBuffer`, 1 MiB): it comes in chunks.
const FILE: usize = 3 << 20;

struct Hub {
    weir: Weir,
    authority: Authority,
    folder: TempDir,
    plain: Background,
    secure: Background,
}

impl Hub {
    fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// With more of weir's configuration.
    fn start_with(overlay: impl FnOnce(&Authority) -> String) -> Self {
        let authority = Authority::new();
        let identity = authority.issue("localhost", "DNS:localhost,IP:127.0.0.1");
        let (certificate, key) = (identity.certificate.display(), identity.key.display());
        let folder = TempDir::new().expect("a temporary folder");
        let root = folder.path().display().to_string();
        let hub = Self {
            weir: Weir::explicit(&format!(
                "server: {{tls: {{enabled: true, cert: '{certificate}', key: '{key}'}}}}\n{}",
                overlay(&authority)
            )),
            plain: Background::start("git_server.py", &["127.0.0.1", &root]),
            secure: Background::start(
                "git_server.py",
                &["127.0.0.1", &root, &certificate.to_string(), &key.to_string()],
            ),
            authority,
            folder,
        };
        hub.git(&[], &["init", "-q", "--bare", "-b", "main", "origin.git"]);
        hub.git(&[], &["-C", "origin.git", "config", "http.receivepack", "true"]);
        hub
    }

    fn url(&self, scheme: &str) -> String {
        match scheme {
            "http" => format!("http://127.0.0.1:{}/origin.git", self.plain.port),
            _ => format!("https://localhost:{}/origin.git", self.secure.port),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// git in the folder of this hub, without the settings of whoever runs this.
    #[track_caller]
    fn git(&self, environment: &[(&str, &str)], arguments: &[&str]) -> String {
        let who = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
        let mut command = Command::new("git");
        command.current_dir(self.folder.path()).args(arguments).envs(who.map(|name| (name, "test")));
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_SSL_CAINFO", self.authority.certificate())
            .env("GIT_PROXY_SSL_CAINFO", self.authority.certificate())
            .envs(environment.iter().copied());
        scripts::stdout(&mut command)
    }

    /// One clone commits and pushes a file, another one fetches it; each by the proxy of the environment.
    #[track_caller]
    fn check(&self, nth: usize, scheme: &str, environment: &[(&str, &str)]) {
        let (writer, reader) = (format!("writer-{nth}"), format!("reader-{nth}"));
        let url = self.url(scheme);
        let writing = |arguments: &[&str]| self.git(environment, &[&["-C", &writer], arguments].concat());
        self.git(environment, &["clone", "-q", &url, &writer]);
        self.git(environment, &["clone", "-q", &url, &reader]);
        writing(&["checkout", "-q", "-B", "main"]);
        let content = Pattern::bytes(nth as u64, FILE);
        std::fs::write(self.path(&writer).join("file"), &content).expect("a folder of ours");
        writing(&["add", "file"]);
        writing(&["commit", "-qm", "a file"]);
        writing(&["push", "-q", "origin", "main"]);
        self.git(environment, &["-C", &reader, "pull", "-q", "origin", "main"]);
        assert!(std::fs::read(self.path(&reader).join("file")).is_ok_and(|there| there == content));
        self.git(&[], &["-C", &reader, "fsck", "--full"]);
        assert_eq!(self.git(&[], &["-C", &reader, "rev-parse", "HEAD"]), writing(&["rev-parse", "HEAD"]));
        for folder in [&writer, &reader] {
            remove(&self.path(folder));
        }
    }
}

fn remove(folder: &Path) {
    std::fs::remove_dir_all(folder).expect("a folder of ours");
}

#[test]
fn clone_push_and_pull() {
    let hub = Hub::start();
    let (address, port) = (hub.weir.proxy.to_string(), hub.weir.proxy.port());
    let proxies = [
        // What goes to an http:// URL is forwarded, all else is tunnelled.
        ("http", "http_proxy", format!("http://{address}"), false),
        ("https", "https_proxy", format!("http://{address}"), true),
        ("http", "http_proxy", format!("https://localhost:{port}"), false),
        // Not https:// by that proxy: in TLS within TLS, the libcurl that Debian's git has (with GnuTLS) waits for bytes
        // that it has read already, whoever the proxy is.
        ("http", "ALL_PROXY", format!("socks5h://{address}"), true),
        ("https", "ALL_PROXY", format!("socks5://{address}"), true),
    ];
    for (nth, (scheme, name, proxy, tunnelled)) in proxies.iter().enumerate() {
        let before = (hub.weir.metric("http_requests_total"), hub.weir.metric("tunnels_total"));
        hub.check(nth, scheme, &[(name, proxy)]);
        let requests = hub.weir.metric("http_requests_total") - before.0;
        let tunnels = hub.weir.metric("tunnels_total") - before.1;
        assert_eq!((requests > 0, tunnels > 0), (!tunnelled, *tunnelled), "{scheme} by {proxy}");
    }
}

#[test]
fn what_passes_over_tls_is_intercepted() {
    let rules = "rules: [{name: all, action: intercept}]";
    let hub = Hub::start_with(|authority| Intercepting::overlay(authority, rules, ""));
    let trusted = hub.authority.folder().join("weir-ca/ca.crt").display().to_string();
    let proxy = format!("http://{}", hub.weir.proxy);
    hub.check(0, "https", &[("https_proxy", &proxy), ("GIT_SSL_CAINFO", &trusted)]);
    assert!(hub.weir.metric("intercepted_total") > 0 && hub.weir.metric("http_requests_total") > 4);
    assert_eq!(hub.weir.metric("tunnels_total"), 0);
}

#[test]
fn settings_and_refusals() {
    let hub = Hub::start();
    let proxy = format!("http.proxy=http://{}", hub.weir.proxy);
    let list = |environment: &[(&str, &str)], settings: &[&str]| {
        let before = hub.weir.metric("http_requests_total");
        hub.git(environment, &[settings, &["ls-remote", &hub.url("http")]].concat());
        hub.weir.metric("http_requests_total") - before
    };
    assert!(list(&[], &["-c", &proxy]) > 0);
    // The setting for a URL goes before the general one.
    let direct = format!("http.{}.proxy=", hub.url("http"));
    assert_eq!(list(&[], &["-c", &proxy, "-c", &direct]), 0);
    assert_eq!(list(&[("no_proxy", "127.0.0.1")], &["-c", &proxy]), 0);
    let mut refused = Command::new("git");
    refused.args(["-c", &proxy, "ls-remote", "https://127.0.0.1:1/origin.git"]);
    let said = refused.env("GIT_CONFIG_GLOBAL", "/dev/null").env("no_proxy", "").output().expect("git");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("response 502"), "{said}");
}
