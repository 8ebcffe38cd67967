//! Interception of captured TLS: programs that know of no proxy, and the stores that have them trust weir.

use std::process::Command;

use weir_tests::background::Background;
use weir_tests::intercepting::{Intercepting, serve};
use weir_tests::nginx::Nginx;
use weir_tests::weir::{Weir, new_cgroup};
use weir_tests::{netns, scripts};

const ALL: &str = "rules: [{name: all, action: intercept}]";

fn capturing(intercept: &str, overlay: &str) -> Intercepting {
    let authority = weir_tests::certificates::Authority::new();
    let weir = Weir::capturing_in(new_cgroup(), &Intercepting::overlay(&authority, intercept, overlay));
    Intercepting { weir, authority }
}

/// curl that goes to the test's own address, whatever the URL's name is.
fn curl(site: &Intercepting, port: &str, more: &[&str]) -> Command {
    let to = format!("::{}:{port}", netns::V4);
    let trusted = site.trusted().display().to_string();
    let words = ["curl", "-sS", "--noproxy", "*", "--connect-to", &to, "--cacert", &trusted];
    site.weir.exec(&[&words[..], more].concat())
}

#[test]
fn a_captured_program_is_intercepted_where_it_was_going() {
    netns::enter();
    let site = capturing(
        ALL,
        "cache: {enabled: true}\nsecurity: {header_rules: [{direction: request, set: ['X-Added: yes']}]}",
    );
    let (_server, port) =
        serve(&site.authority.issue("server", "DNS:shop.example"), &["-", &format!("host={}", netns::V4)]);
    let url = format!("https://shop.example:{port}/fresh");
    let first = scripts::stdout(&mut curl(&site, &port, &[&url]));
    assert!(first.contains("X-Added: yes") && first.contains("Via: 1.1 weir-"), "{first}");
    assert_eq!(scripts::stdout(&mut curl(&site, &port, &[&url])), first, "from the cache");
    let status = |arguments: &[&str]| {
        scripts::stdout(curl(&site, &port, arguments).args(["-o", "/dev/null", "-w", "%{http_code}"]))
    };
    assert_eq!(status(&["-H", "Host: other.example", &url]), "421");
    // What the server's certificate is not for.
    assert_eq!(status(&[&format!("https://other.example:{port}/")]), "502");
    let flows = site.weir.flows(8);
    let inside: Vec<_> = flows.iter().filter(|flow| flow["method"] == "GET").collect();
    assert!(
        inside.iter().all(|flow| flow["front"] == "captured" && flow["intercepted"] == true),
        "{flows:?}"
    );
    assert!(inside.iter().all(|flow| flow["process"]["comm"] == "curl"), "{flows:?}");
    assert!(flows.iter().any(|flow| flow["cache"] == "hit"), "{flows:?}");
}

#[test]
fn a_captured_program_speaks_http2_with_a_server_that_does() {
    netns::enter();
    let site = capturing(ALL, "");
    let nginx = Nginx::start(&site.authority.issue("server", "DNS:shop.example"), &[]);
    // nginx listens on loopback, which is not captured.
    let mut forward = Command::new("python3");
    let script = "import asyncio, sys\n\
        async def pump(reader, writer):\n\
        \x20   while more := await reader.read(65536):\n\
        \x20       writer.write(more)\n\
        \x20       await writer.drain()\n\
        \x20   writer.close()\n\
        async def serve(reader, writer):\n\
        \x20   there, away = await asyncio.open_connection('127.0.0.1', int(sys.argv[2]))\n\
        \x20   await asyncio.gather(pump(reader, away), pump(there, writer), return_exceptions=True)\n\
        async def main():\n\
        \x20   server = await asyncio.start_server(serve, sys.argv[1], 0)\n\
        \x20   print(server.sockets[0].getsockname()[1], flush=True)\n\
        \x20   await server.serve_forever()\n\
        asyncio.run(main())\n";
    forward.args(["-c", script, netns::V4, &nginx.tls_port.to_string()]);
    let forward = Background::run(forward);
    let url = format!("https://shop.example:{}/shown", forward.port);
    let told = scripts::stdout(&mut curl(&site, &forward.port, &["-w", " %{http_version}", &url]));
    assert!(told.starts_with("HTTP/2.0 GET /shown via=2 weir-") && told.ends_with(" 2"), "{told}");
    let told = scripts::stdout(&mut curl(&site, &forward.port, &["--http1.1", &url]));
    assert!(told.starts_with("HTTP/1.1 GET /shown via=1.1 weir-"), "{told}");
}

#[test]
fn what_a_rule_does_not_want_is_not_touched() {
    netns::enter();
    let site = capturing("rules: [{domains: [shop.example], action: intercept}]", "");
    let (_server, port) = serve(
        &site.authority.issue("server", "DNS:shop.example,DNS:bank.example"),
        &["-", &format!("host={}", netns::V4)],
    );
    let own = site.authority.certificate().display().to_string();
    let url = format!("https://bank.example:{port}/seen");
    let told = scripts::stdout(&mut curl(&site, &port, &["--cacert", &own, &url]));
    assert!(!told.contains("Via:"), "{told}");
    let told = scripts::stdout(&mut curl(&site, &port, &[&format!("https://shop.example:{port}/seen")]));
    assert!(told.contains("Via:"), "{told}");
}

#[test]
fn the_systems_store_is_changed_and_changed_back() {
    netns::enter();
    let site = capturing(ALL, "");
    let (_server, port) =
        serve(&site.authority.issue("server", "DNS:shop.example"), &["-", &format!("host={}", netns::V4)]);
    // In a mount namespace with folders of its own, so that nobody else's store is touched.
    let weir = weir_tests::weir::binary();
    let folder = site.authority.folder().join("weir-ca");
    let script = format!(
        "set -eu\n\
         mount -t tmpfs none /usr/local/share/ca-certificates\n\
         cp -a /etc/ssl/certs /tmp/certs-$$; mount -t tmpfs none /etc/ssl/certs\n\
         cp -a /tmp/certs-$$/. /etc/ssl/certs; rm -r /tmp/certs-$$\n\
         update-ca-certificates --fresh >/dev/null 2>&1\n\
         before=$(ls /etc/ssl/certs | sort | sha256sum)\n\
         {weir} ca trust --folder {folder}\n\
         {weir} ca trust --folder {folder}\n\
         curl -sS --noproxy '*' --connect-to ::{address}:{port} https://shop.example:{port}/seen >&2\n\
         {weir} ca untrust --folder {folder}\n\
         {weir} ca untrust --folder {folder}\n\
         [ \"$before\" = \"$(ls /etc/ssl/certs | sort | sha256sum)\" ]\n\
         ! curl -sS --noproxy '*' --connect-to ::{address}:{port} https://shop.example:{port}/seen >&2\n",
        weir = weir.display(),
        folder = folder.display(),
        address = netns::V4
    );
    let mut unshare = site.weir.exec(&["unshare", "--mount", "sh", "-c", &script]);
    let said = scripts::stdout(&mut unshare);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "the system's store trusts weir's authority now",
            "the system's store trusted weir's authority already",
            "the system's store no longer trusts weir's authority",
            "the system's store did not know weir's authority",
        ]
    );
}
