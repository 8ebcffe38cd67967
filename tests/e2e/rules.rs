//! `capture.rules` with real programs: a whole cgroup captured without `weir exec`, and rules that are read again.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use weir_tests::http::{self, Answer};
use weir_tests::netns::{self, Other};
use weir_tests::weir::{Weir, eventually, free_port};

/// curl in a cgroup that nothing has selected: its output, or its exit code.
fn curl_in(cgroup: &Path, url: &str) -> Result<String, i32> {
    let script = "echo $$ > \"$1/cgroup.procs\" && exec curl -sS --noproxy '*' --max-time 10 \"$2\"";
    let output =
        Command::new("sh").args(["-c", script, "sh"]).arg(cgroup).arg(url).output().expect("sh runs");
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        code => Err(code.expect("an exit code")),
    }
}

/// curl's exit code for "could not connect".
const COULD_NOT_CONNECT: i32 = 7;

fn rewrite(weir: &Weir, rules: &str) {
    std::fs::write(weir.folder().join("overlay.yaml"), rules).expect("a file in a temporary folder");
}

fn metrics(weir: &Weir) -> String {
    let answer: Answer = http::get(weir.admin, "/metrics").expect("the admin API answers");
    answer.text()
}

#[test]
fn a_whole_cgroup_is_captured_by_a_rule_and_rules_are_read_again() {
    netns::enter();
    let server = http::server(netns::V4, origin_answer);
    let (host, port) = (server.ip(), server.port());
    let url = format!("http://{host}:{port}/");
    let mapped = format!("http://[::ffff:{host}]:{port}/");
    let weir = Weir::capturing("capture: {rules: [{name: everything, action: redirect}]}\n");
    let cgroup = weir.cgroup();

    assert_eq!(curl_in(cgroup, &url), Ok("hello".to_owned()));
    assert_eq!(weir.flows(1)[0]["original_destination"], server.to_string());
    assert!(
        metrics(&weir).contains("weir_capture_rule_hits_total{rule=\"everything\",action=\"redirect\"} 1"),
        "{}",
        metrics(&weir)
    );

    // A user of `weir exec`, too, is refused at once, whichever way the address is written.
    rewrite(&weir, &format!("capture: {{rules: [{{name: no-{port}, ports: [{port}], action: deny}}]}}\n"));
    let reload = weir.command(&["capture", "reload"]).output().expect("weir runs");
    assert_eq!(String::from_utf8_lossy(&reload.stdout), "1 rules in force\n");
    for url in [&url, &mapped] {
        assert_eq!(curl_in(cgroup, url), Err(COULD_NOT_CONNECT));
        let status = weir.exec(&["curl", "-sS", "--noproxy", "*", url]).status().expect("weir runs");
        assert_eq!(status.code(), Some(COULD_NOT_CONNECT), "{url}");
    }
    assert_eq!(weir.status()["capture"]["kernel"]["rules"][0]["hits"], 4);

    // A wrong file changes nothing, and says why.
    rewrite(&weir, "capture: {rules: [{name: x, portz: [1], action: deny}]}\n");
    let reload = weir.command(&["capture", "reload"]).output().expect("weir runs");
    let errors = String::from_utf8_lossy(&reload.stderr);
    assert_eq!(reload.status.code(), Some(1));
    assert!(
        errors.contains("overlay.yaml:1:29: capture.rules.portz: unknown key (did you mean `ports`?)"),
        "{errors}"
    );
    assert_eq!(curl_in(cgroup, &url), Err(COULD_NOT_CONNECT));
    rewrite(&weir, "capture: {rules: [{destination_files: [/nonexistent], action: deny}]}\n");
    let reload = weir.command(&["capture", "reload"]).output().expect("weir runs");
    let errors = String::from_utf8_lossy(&reload.stderr);
    assert!(errors.contains("the destinations in /nonexistent can't be read"), "{errors}");
    assert_eq!(curl_in(cgroup, &url), Err(COULD_NOT_CONNECT));

    // An editor in the middle of saving takes no rule out of force.
    rewrite(&weir, "");
    let reload = weir.command(&["capture", "reload"]).output().expect("weir runs");
    let errors = String::from_utf8_lossy(&reload.stderr);
    assert_eq!(reload.status.code(), Some(1));
    assert!(errors.contains("overlay.yaml: is empty"), "{errors}");
    assert_eq!(curl_in(cgroup, &url), Err(COULD_NOT_CONNECT));

    // SIGHUP does the same as `weir capture reload`, and says that nothing is left.
    rewrite(&weir, "\n");
    weir.signal(Signal::SIGHUP);
    let direct = eventually("the rules to be gone", || curl_in(cgroup, &url).ok());
    assert_eq!(direct, "hello");
    const GONE: &str = "1 rules were in force, and now there is none";
    eventually("a warning", || weir.log().contains(GONE).then_some(()));
    rewrite(&weir, "capture: {rules: [{action: deny}]}\n");
    assert!(weir.command(&["capture", "reload"]).status().expect("weir runs").success());
    rewrite(&weir, "\n");
    let reload = weir.command(&["capture", "reload"]).output().expect("weir runs");
    let said = String::from_utf8_lossy(&reload.stdout);
    assert!(said.contains(GONE) && said.ends_with("0 rules in force\n"), "{said}");
    assert_eq!(weir.status()["capture"]["kernel"]["rules"].as_array().map(Vec::len), Some(0));
}

fn origin_answer(mut stream: std::net::TcpStream) {
    use std::io::Write as _;
    // The client may have gone.
    if weir_tests::origin::read_request(&mut stream).is_ok() {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    }
}

/// Puts other rules in force.
#[track_caller]
fn reload(weir: &Weir, rules: &str) {
    rewrite(weir, &format!("capture: {{rules: [{rules}]}}\n"));
    let reload = weir.command(&["capture", "reload"]).output().expect("weir runs");
    assert!(reload.status.success(), "{}", String::from_utf8_lossy(&reload.stderr));
}

/// curl by way of `weir exec`, through the explicit proxy if it is named: its output, or its exit code.
fn selected_curl(weir: &Weir, proxy: Option<&str>, arguments: &[&str]) -> Result<String, i32> {
    let proxy = proxy.map_or(vec!["--noproxy", "*"], |proxy| vec!["--noproxy", "", "-x", proxy]);
    let curl = ["curl", "-sS", "--max-time", "10"];
    let output = weir.exec(&[&curl, &*proxy, arguments].concat()).output().expect("weir runs");
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        code => Err(code.expect("an exit code")),
    }
}

#[test]
fn the_explicit_proxy_is_no_way_around_rules() {
    netns::enter();
    let server = http::server(netns::V4, origin_answer);
    let local = http::server("127.0.0.1", origin_answer);
    let url = format!("http://{}/", *server);
    let weir = Weir::capturing("capture: {rules: [{name: rest, selected: true, action: deny}]}\n");
    let port = weir.proxy.port();
    let ways: Vec<(String, &[&str])> = ["127.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]"]
        .iter()
        .flat_map(|host| {
            let at = |scheme: &str| format!("{scheme}://{host}:{port}");
            [(at("http"), &[][..]), (at("http"), &["-p"][..]), (at("socks5h"), &[][..])]
        })
        .collect();
    for (proxy, arguments) in &ways {
        let got = selected_curl(&weir, Some(proxy), &[arguments, &[&*url][..]].concat());
        assert_eq!(got, Err(COULD_NOT_CONNECT), "{proxy} {arguments:?}");
    }
    // Other services on loopback are none of its business, nor is who is not selected.
    assert_eq!(selected_curl(&weir, None, &[&format!("http://{}/", *local)]), Ok("hello".to_owned()));
    let proxied = weir.curl(&[&url]).output().expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&proxied.stdout), "hello");
    // In another network namespace that port is somebody else's.
    let other = Other::new(&[]);
    let theirs = other.run(|| {
        let listener = std::net::TcpListener::bind(weir.proxy).expect("a free port");
        std::thread::spawn(move || listener.incoming().flatten().for_each(origin_answer));
        selected_curl(&weir, None, &[&format!("http://{}/", weir.proxy)])
    });
    assert_eq!(theirs, Ok("hello".to_owned()));
    // What is not denied gets there: loopback can't be redirected.
    for rules in ["{action: redirect}", "{action: bypass}", "{ports: [1], action: deny}", ""] {
        reload(&weir, rules);
        for (proxy, arguments) in &ways {
            let got = selected_curl(&weir, Some(proxy), &[arguments, &[&*url][..]].concat());
            assert_eq!(got, Ok("hello".to_owned()), "{rules}: {proxy} {arguments:?}");
        }
    }
}

#[test]
fn rules_that_name_loopback_hold_there() {
    netns::enter();
    let [allowed, other] = [(); 2].map(|()| http::server("127.0.0.1", origin_answer));
    let v6 = http::server("::1", origin_answer);
    let weir = Weir::capturing("\n");
    let hello = Ok("hello".to_owned());
    let url = |host: &str, port: u16| format!("http://{host}:{port}/");
    let others = [
        url("127.0.0.1", other.port()),
        url("0.0.0.0", other.port()),
        url("[::ffff:127.0.0.1]", other.port()),
        url("[::1]", v6.port()),
    ];
    // One that doesn't name it leaves it alone, though its prefix contains it.
    for rules in ["{action: deny}", "{destinations: [0.0.0.0/0, '::/0'], action: deny}"] {
        reload(&weir, rules);
        for url in &others {
            assert_eq!(curl_in(weir.cgroup(), url), hello, "{rules}: {url}");
        }
    }
    let bypass = format!("{{destinations: [127.0.0.1], ports: [{}], action: bypass}}", allowed.port());
    reload(&weir, &format!("{bypass}, {{destinations: [127.0.0.0/8, '::1'], action: deny}}"));
    assert_eq!(curl_in(weir.cgroup(), &url("127.0.0.1", allowed.port())), hello);
    assert_eq!(curl_in(weir.cgroup(), &url("0.0.0.0", allowed.port())), hello);
    for url in &others {
        assert_eq!(curl_in(weir.cgroup(), url), Err(COULD_NOT_CONNECT), "{url}");
    }
    reload(&weir, "{destinations: [127.0.0.0/8], action: deny}");
    assert_eq!(curl_in(weir.cgroup(), &others[3]), hello, "IPv6 has an address of its own");
}

#[test]
fn explain_names_the_rule() {
    netns::enter();
    let weir = Weir::capturing(
        "capture: {rules: [{name: mail, ports: [25, 465-587], action: deny}, {name: lan, destinations: [10.0.0.0/8], action: redirect},
         {name: loopback, destinations: [127.0.0.0/8], ports: [9], action: deny}]}\n",
    );
    // In this test's network namespace, as its weir is, and where weir is attached.
    let script = "echo $$ > \"$1/cgroup.procs\" && echo && exec sleep 60";
    let mut child = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(weir.cgroup())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sh starts");
    let mut line = [0];
    std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut line).expect("it is there");
    let pid = child.id().to_string();
    let own = weir.proxy.to_string();
    for (destination, expected) in [
        ("127.0.0.1:9", "deny: rule `loopback` is the first that matches"),
        ("0.0.0.0:9", "deny: rule `loopback` is the first that matches"),
        ("127.0.0.1:25", "direct: loopback"),
        (&own, "direct: loopback"),
        ("203.0.113.1:25", "deny: rule `mail` is the first that matches"),
        ("10.1.2.3:80", "redirect: rule `lan` is the first that matches"),
        ("203.0.113.1:80", "direct: no rule matches, and neither its cgroup"),
    ] {
        let output = weir.command(&["explain", "--pid", &pid, destination]).output().expect("weir runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{destination}: {text}");
    }
    let explain = |pid: &str, destination: &str| {
        let output = weir.command(&["explain", "--pid", pid, destination]).output().expect("weir runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Outside of the attach cgroup no rule holds.
    let outside = explain(&std::process::id().to_string(), "203.0.113.1:25");
    assert!(
        outside.contains("direct: its cgroup") && outside.contains("where weir is attached"),
        "{outside}"
    );
    reload(&weir, "{name: all, action: deny}");
    let denied = explain(&pid, &own);
    assert!(denied.contains("deny: rule `all`"), "{denied}");
    child.kill().and_then(|()| child.wait()).expect("a child of ours");
}

#[test]
fn a_rule_that_cannot_hold_stops_the_start() {
    netns::enter();
    let overlay = "capture: {mode: auto, rules: [{users: [no-such-user], action: deny}]}\n";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("weir.yaml");
    std::fs::write(
        &config,
        format!(
            "server: {{port: 0}}\nadmin: {{port: 0, state_dir: '{}'}}\n{overlay}",
            folder.path().display()
        ),
    )
    .expect("a file in a temporary folder");
    let output = Command::new("timeout")
        .arg("20")
        .arg(weir_tests::weir::binary())
        .arg("serve")
        .arg("--config")
        .arg(&config)
        .output();
    let output = output.expect("weir starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("rule `rule-1`: there is no user no-such-user"), "{errors}");
}

/// The kernel half refuses the explicit proxy's port to programs that rules refuse; it knows one.
#[test]
fn the_proxy_stays_where_the_kernel_half_knows_it() {
    netns::enter();
    let weir = Weir::capturing("");
    let port = free_port();
    let told = weir.reload(&format!("server: {{port: {port}, port_range: {port}-{port}}}"));
    assert_eq!(told["needs_restart"], serde_json::json!(["server.port", "server.port_range"]), "{told}");
    assert_eq!(weir.status()["port"], weir.proxy.port());
    assert_eq!(weir.api("POST", "/proxy/stop", None).0, 200);
    let (code, problem) = weir.api("POST", "/proxy/start", Some(&serde_json::json!({ "port": port })));
    assert_eq!(code, 409, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|why| why.contains("the kernel half")), "{problem}");
    let (code, told) = weir.api("POST", "/proxy/start", None);
    assert_eq!((code, &told["port"]), (200, &weir.proxy.port().into()), "{told}");
}
