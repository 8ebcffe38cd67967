//! curl through weir, with every option that concerns proxies, and with what else a transfer can be.

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use weir_tests::pattern::Pattern;
use weir_tests::site::{LARGE, LINES, Passed, Site, header};
use weir_tests::weir::Weir;

/// By which way a request reached its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forwarded,
    Tunnelled,
    Direct,
}

use Way::{Direct, Forwarded, Tunnelled};

/// curl's proxy options by which it asks for the same.
const PROXIES: [(Way, &str); 14] = [
    (Forwarded, "-x http://{proxy}"),
    (Forwarded, "-x {proxy}"),
    (Forwarded, "--proxy HTTP://{proxy}/"),
    (Forwarded, "--proxy1.0 {proxy}"),
    (Forwarded, "-x https://localhost:{proxyport} --proxy-cacert {ca}"),
    (Forwarded, "-x https://{proxy} --proxy-insecure --proxy-tlsv1"),
    (Tunnelled, "-x http://{proxy} --proxytunnel"),
    (Tunnelled, "--proxy1.0 {proxy} -p"),
    (Tunnelled, "-x https://localhost:{proxyport} --proxy-cacert {ca} -p --suppress-connect-headers"),
    (Tunnelled, "-x socks5://{proxy}"),
    (Tunnelled, "-x socks5h://{proxy}"),
    (Tunnelled, "--socks5 {proxy}"),
    (Tunnelled, "--socks5-hostname {proxy} --socks5-basic"),
    (Tunnelled, "--socks5-hostname {proxy} -U somebody:secret"),
];

/// curl with these words as arguments, whatever settings this process has inherited.
fn curl(site: &Site, words: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["-q", "-sS", "--max-time", "60"]);
    command.args(site.fill(words).split(' ').filter(|word| !word.is_empty()));
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
}

/// Runs a transfer that must succeed, and looks by which way it went; what curl printed.
#[track_caller]
fn fetched(site: &Site, way: Way, command: &mut Command) -> Vec<u8> {
    let before = site.passed();
    let output = command.output().expect("curl is installed");
    assert!(output.status.success(), "{command:?}: {}", shown(&output));
    let after = site.passed();
    let passed =
        Passed { requests: after.requests - before.requests, tunnels: after.tunnels - before.tunnels };
    let expected = match way {
        Forwarded => Passed { requests: 1, tunnels: 0 },
        Tunnelled => Passed { requests: 0, tunnels: 1 },
        Direct => Passed { requests: 0, tunnels: 0 },
    };
    assert_eq!(passed, expected, "{command:?}");
    output.stdout
}

fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stderr), text(&output.stdout))
}

/// What node's `/echo` says has arrived.
#[track_caller]
fn seen(site: &Site, way: Way, words: &str) -> Value {
    json(&fetched(site, way, &mut curl(site, words)))
}

#[track_caller]
fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

#[track_caller]
fn text(site: &Site, way: Way, words: &str) -> String {
    String::from_utf8(fetched(site, way, &mut curl(site, words))).expect("text")
}

/// A transfer that fails with this exit code; all that curl printed.
#[track_caller]
fn refused(site: &Site, code: i32, words: &str) -> String {
    let mut command = curl(site, words);
    let output = command.output().expect("curl is installed");
    assert_eq!(output.status.code(), Some(code), "{command:?}: {}", shown(&output));
    shown(&output)
}

#[test]
fn every_kind_of_proxy() {
    let site = Site::start("");
    for (way, proxy) in PROXIES {
        let arrived = seen(&site, way, &format!("{proxy} http://{{node}}/echo?a=b"));
        assert_eq!(arrived["path"], "/echo?a=b", "{proxy}");
        assert_eq!(header(&arrived, "host"), Some(site.node.as_str()), "{proxy}");
        assert_eq!(header(&arrived, "via").is_some(), way == Forwarded, "{proxy}: {arrived}");
        assert_eq!(header(&arrived, "proxy-connection"), None, "{proxy}");
        assert_eq!(header(&arrived, "proxy-authorization"), None, "{proxy}");
        // TLS with the server is curl's own: a tunnel by whatever proxy.
        let arrived = seen(&site, Tunnelled, &format!("{proxy} --cacert {{ca}} https://{{nodes}}/echo"));
        assert_eq!(arrived["version"], "2.0", "{proxy}");
        let one =
            seen(&site, Tunnelled, &format!("{proxy} --http1.1 --cacert {{ca}} https://{{nodes}}/echo"));
        assert_eq!(one["version"], "1.1", "{proxy}");
    }
}

#[test]
fn one_proxy_behind_another() {
    let (site, second) = (Site::start(""), Weir::explicit(""));
    for pre in ["socks5", "socks5h"] {
        let words = format!("--preproxy {pre}://{{proxy}} -x http://{} http://{{node}}/echo", second.proxy);
        let arrived = seen(&site, Tunnelled, &words);
        assert!(header(&arrived, "via").is_some(), "{pre}: {arrived}");
    }
    let words = format!(
        "--preproxy socks5h://{{proxy}} -x http://{} --cacert {{ca}} https://{{nodes}}/echo",
        second.proxy
    );
    assert_eq!(seen(&site, Tunnelled, &words)["version"], "2.0");
    assert_eq!(second.metric("http_requests_total"), 2);
    assert_eq!(second.metric("tunnels_total"), 1);
}

#[test]
fn settings_in_the_environment() {
    let site = Site::start("");
    let proxy = site.fill("http://{proxy}");
    let (plain, secure) = ("http://{node}/echo", "--cacert {ca} https://{nodes}/echo");
    for (way, name, words) in [
        (Forwarded, "http_proxy", plain),
        // Not this one: a CGI program's clients could set it.
        (Direct, "HTTP_PROXY", plain),
        (Forwarded, "all_proxy", plain),
        (Forwarded, "ALL_PROXY", plain),
        (Tunnelled, "https_proxy", secure),
        (Tunnelled, "HTTPS_PROXY", secure),
        (Tunnelled, "ALL_PROXY", secure),
        (Direct, "https_proxy", plain),
    ] {
        fetched(&site, way, curl(&site, words).env(name, &proxy));
    }
    for (way, excepted) in [
        (Direct, "127.0.0.1"),
        (Direct, "*"),
        (Direct, "other.example,127.0.0.0/8"),
        (Forwarded, "other.example"),
        (Forwarded, "10.0.0.0/8"),
    ] {
        for name in ["no_proxy", "NO_PROXY"] {
            fetched(&site, way, curl(&site, plain).env("http_proxy", &proxy).env(name, excepted));
        }
        fetched(&site, way, &mut curl(&site, &format!("-x {proxy} --noproxy {excepted} {plain}")));
    }
    // The option counts, not the environment.
    let words = format!("-x {proxy} --noproxy other.example {plain}");
    fetched(&site, Forwarded, curl(&site, &words).env("no_proxy", "*"));
}

#[test]
fn names_and_addresses_of_ones_own() {
    let site = Site::start("");
    for (way, words) in [
        (Forwarded, "--resolve proxy.example:{proxyport}:127.0.0.1 -x http://proxy.example:{proxyport}"),
        (Forwarded, "-x http://{proxy} --connect-to ::127.0.0.1:{nodeport}"),
        (Tunnelled, "--socks5-hostname {proxy} --connect-to ::127.0.0.1:{nodeport}"),
        // The client resolves, as socks5:// says.
        (Tunnelled, "--socks5 {proxy} --resolve 127.0.0.1:{nodeport}:127.0.0.1"),
    ] {
        let arrived = seen(&site, way, &format!("{words} http://127.0.0.1:{{nodeport}}/echo"));
        assert_eq!(header(&arrived, "host"), Some(site.node.as_str()), "{words}");
    }
    let words =
        "--socks5 {proxy} --resolve site.example:{nodeport}:127.0.0.1 http://site.example:{nodeport}/echo";
    let arrived = seen(&site, Tunnelled, words);
    assert_eq!(header(&arrived, "host"), Some(site.fill("site.example:{nodeport}").as_str()));
    // Another server than the one asked for is reached through a tunnel.
    let words = "-x {proxy} --connect-to site.example:80:127.0.0.1:{nodeport} http://site.example/echo";
    assert_eq!(header(&seen(&site, Tunnelled, words), "host"), Some("site.example"));
}

#[test]
fn what_is_for_the_proxy_stays_there() {
    let site = Site::start("");
    for method in ["basic", "anyauth", "digest", "ntlm"] {
        let credentials = format!("-x {{proxy}} -U somebody:secret --proxy-{method}");
        for (way, url) in [
            (Forwarded, "http://{node}/echo"),
            (Tunnelled, "-p http://{node}/echo"),
            (Tunnelled, "--cacert {ca} https://{nodes}/echo"),
        ] {
            let arrived = seen(&site, way, &format!("{credentials} {url}"));
            assert!(!arrived.to_string().contains("roxy-"), "{method}: {arrived}");
        }
    }
    let words =
        "-x {proxy} --proxy-header X-For-Proxy:1 -H X-For-Server:1 --cacert {ca} https://{nodes}/echo";
    let arrived = seen(&site, Tunnelled, words);
    assert_eq!((header(&arrived, "x-for-proxy"), header(&arrived, "x-for-server")), (None, Some("1")));
    let words =
        "-x {proxy} --proxy-header Proxy-Thing:1 -H Connection:close,X-Hop -H X-Hop:1 http://{node}/echo";
    let arrived = seen(&site, Forwarded, words);
    assert_eq!(header(&arrived, "x-hop"), None, "{arrived}");
    let written = text(&site, Tunnelled, "-x {proxy} -p -o /dev/null -w %{http_connect} http://{node}/echo");
    assert_eq!(written, "200");
}

#[test]
fn what_can_not_be_is_said_so() {
    let site = Site::start("");
    for (code, words, expected) in [
        (0, "-x {proxy} --haproxy-protocol http://{node}/echo", "PROXY protocol"),
        (0, "-x {proxy} ftp://{node}/file", "only http:// and https:// URLs"),
        (97, "--socks4 {proxy} http://{node}/echo", "SOCKS4"),
        (97, "--socks4a {proxy} http://{node}/echo", "SOCKS4"),
        (56, "-x {proxy} -p http://127.0.0.1:1/", "response 502"),
        (22, "-x {proxy} --fail http://127.0.0.1:1/", "error: 502"),
        (0, "-x {proxy} http://127.0.0.1:1/", "Connection refused"),
        (0, "-x {proxy} http://169.254.169.254/latest/meta-data", "metadata"),
        (97, "--socks5 {proxy} http://127.0.0.1:1/", "SOCKS5"),
        (0, "-x {proxy} http://nothing.invalid/", "nothing.invalid"),
        (0, "-x {proxy} http://{proxy}/", "itself"),
        // The certificate is the authority's; without that curl does not trust the proxy.
        (60, "-x https://localhost:{proxyport} http://{node}/echo", "certificate"),
    ] {
        let said = refused(&site, code, words);
        assert!(said.contains(expected), "{words}: {said}");
    }
    // Through a tunnel that header goes to the server, which does not know it either.
    let said = refused(&site, 0, "-x {proxy} -p --haproxy-protocol -w %{http_code} http://{node}/echo");
    assert!(said.ends_with("400"), "{said}");
    assert_eq!(site.weir.status()["running"], true);
}

#[test]
fn uploads() {
    let site = Site::start("");
    let file = site.weir.folder().join("upload");
    let content = Pattern::bytes(9, LARGE);
    std::fs::write(&file, &content).expect("a folder of ours");
    let sum = Command::new("sha256sum").arg(&file).output().expect("coreutils").stdout;
    let sum = String::from_utf8_lossy(&sum[..64]).into_owned();
    let file = file.display().to_string();
    for (way, proxy) in PROXIES {
        for (method, upload) in [
            ("PUT", format!("-T {file}")),
            // Longer than a megabyte: curl waits for 100 (Continue).
            ("POST", format!("--data-binary @{file}")),
            ("POST", format!("--data-binary @{file} -H Expect: -H Transfer-Encoding:chunked")),
            ("PUT", format!("-T {file} -H Expect:100-continue --expect100-timeout 30")),
        ] {
            let arrived = seen(&site, way, &format!("{proxy} {upload} http://{{node}}/echo"));
            assert_eq!(arrived["method"], method, "{proxy} {upload}");
            assert_eq!(arrived["sha256"], sum.as_str(), "{proxy} {upload}: {arrived}");
        }
    }
    let mut piped = curl(&site, "-x {proxy} -T - http://{node}/echo");
    piped.stdin(Stdio::from(std::fs::File::open(&file).expect("a file")));
    let arrived = json(&fetched(&site, Forwarded, &mut piped));
    assert_eq!((&arrived["sha256"], header(&arrived, "transfer-encoding")), (&sum.into(), Some("chunked")));
    let form = format!("-x {{proxy}} -F field=value -F file=@{file} http://{{node}}/echo");
    let arrived = seen(&site, Forwarded, &form);
    assert!(arrived["length"].as_u64() > Some(LARGE as u64), "{arrived}");
    // Refused before its content is sent.
    let words = format!("-x {{proxy}} -T {file} -H Expect:100-continue --expect100-timeout 30");
    let words = format!("{words} -w %{{http_code}}/%{{size_upload}} http://{{node}}/refused");
    assert_eq!(text(&site, Forwarded, &words), "not wanted403/0");
}

#[test]
fn downloads() {
    let site = Site::start("");
    let content = Pattern::bytes(5, LARGE);
    for (way, proxy) in PROXIES {
        let get = |way, words: &str| fetched(&site, way, &mut curl(&site, &format!("{proxy} {words}")));
        assert!(get(way, "http://{nginx}/large.bin") == content, "{proxy}");
        assert!(get(Tunnelled, "--cacert {ca} https://{nginxs}/large.bin") == content, "{proxy}");
        assert_eq!(get(way, "-r 1000-1999 http://{nginx}/large.bin"), content[1000..2000], "{proxy}");
        assert_eq!(get(way, "-r -10 http://{nginx}/large.bin"), content[LARGE - 10..], "{proxy}");
    }
    let parts = text(&site, Forwarded, "-x {proxy} -i -r 0-1,5-6 -o - --http1.1 http://{nginx}/page.txt");
    assert!(parts.contains("206 Partial Content") && parts.contains("multipart/byteranges"), "{parts}");
    let part = site.weir.folder().join("part");
    std::fs::write(&part, &content[..LARGE / 2]).expect("a folder of ours");
    let words = format!("-x {{proxy}} -C - -o {} http://{{nginx}}/large.bin", part.display());
    fetched(&site, Forwarded, &mut curl(&site, &words));
    assert!(std::fs::read(&part).expect("a file") == content, "the resumed file is another");
    let head = text(&site, Forwarded, "-x {proxy} -I http://{nginx}/large.bin");
    assert!(head.contains(&format!("Content-Length: {LARGE}\r\n")), "{head}");
    let page = "a line of a page\n".repeat(LINES);
    assert_eq!(text(&site, Forwarded, "-x {proxy} --compressed http://{nginx}/page.txt"), page);
    let coded = text(&site, Forwarded, "-x {proxy} --compressed -o /dev/null -D - http://{nginx}/page.txt");
    assert!(coded.contains("Content-Encoding: gzip\r\n"), "{coded}");
    let tag = site.weir.folder().join("tag").display().to_string();
    let code = "-o /dev/null -w %{http_code} http://{nginx}/large.bin";
    assert_eq!(text(&site, Forwarded, &format!("-x {{proxy}} --etag-save {tag} {code}")), "200");
    assert_eq!(text(&site, Forwarded, &format!("-x {{proxy}} --etag-compare {tag} {code}")), "304");
}

#[test]
fn messages_of_every_form() {
    let site = Site::start("");
    let hints = text(&site, Forwarded, "-x {proxy} -i http://{node}/hints");
    assert!(hints.starts_with("HTTP/1.1 103 Early Hints\r\n") && hints.ends_with("after hints"), "{hints}");
    assert_eq!(text(&site, Forwarded, "-x {proxy} http://{node}/trailers"), "with trailers");
    let old = seen(&site, Forwarded, "-x {proxy} --http1.0 http://{node}/echo");
    assert!(header(&old, "via").is_some_and(|via| via.starts_with("1.0 ")), "{old}");
    let cut = refused(&site, 56, "-x {proxy} http://{node}/cut");
    assert!(cut.contains("reset by peer") && cut.ends_with("half of it"), "{cut}");
    for method in ["DELETE", "PATCH", "OPTIONS", "PROPFIND"] {
        let arrived = seen(&site, Forwarded, &format!("-x {{proxy}} -X {method} http://{{node}}/echo"));
        assert_eq!(arrived["method"], method);
    }
    let before = site.passed();
    let output = curl(&site, "-x {proxy} -L http://{node}/moved").output().expect("curl is installed");
    assert_eq!(json(&output.stdout)["path"], "/echo");
    // A redirection, and what it leads to, over one connection.
    assert_eq!(site.passed().requests - before.requests, 2);
}

#[test]
fn connections_are_used_again() {
    let site = Site::start("");
    let one = "-o /dev/null http://{node}/echo";
    let words = format!("-x {{proxy}} -w %{{num_connects}} {one} {one} {one} {one}");
    let output = curl(&site, &words).output().expect("curl is installed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1000", "{}", shown(&output));
    let before = site.passed();
    let secure = "-o /dev/null https://{nodes}/echo";
    let words = format!("-x {{proxy}} --cacert {{ca}} -w %{{num_connects}} {secure} {secure} {secure}");
    let output = curl(&site, &words).output().expect("curl is installed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "100", "{}", shown(&output));
    assert_eq!(site.passed().tunnels - before.tunnels, 1);

    let before = site.passed();
    let words = "-x {proxy} --parallel --parallel-max 20 http://{nginx}/shown?[1-60]";
    let output = curl(&site, words).output().expect("curl is installed");
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("via=1.1 weir-").count(), 60);
    assert_eq!(site.passed().requests - before.requests, 60);
}
