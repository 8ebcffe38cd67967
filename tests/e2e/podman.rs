//! podman's containers, captured as they are: in every kind of network, and from their first connection with the hook.

use std::io::Write as _;
use std::process::{Command, Stdio};

use weir_tests::engine::IMAGE;
use weir_tests::podman::Podman;
use weir_tests::scripts::stdout;
use weir_tests::weir::{Weir, eventually};
use weir_tests::{http, netns};

/// An address of the host that the containers are on.
const HOST: &str = "198.18.7.1";

fn weir_and_podman() -> (Weir, Podman) {
    netns::enter();
    let cgroup = weir_tests::weir::new_cgroup();
    let podman = Podman::start(&cgroup, &[&format!("{HOST}/32")]);
    let overlay = format!("capture: {{engine_sockets: ['{}']}}", podman.socket().display());
    (Weir::capturing_in(cgroup, &overlay), podman)
}

/// `weir capture ...`, which must succeed.
#[track_caller]
fn capture(weir: &Weir, arguments: &[&str]) -> String {
    stdout(&mut weir.command(&[&["capture"], arguments].concat()))
}

fn count(weir: &Weir) -> u64 {
    weir.metric("captured_connections_total")
}

/// Waits until that container is captured, or none is.
#[track_caller]
fn captured(weir: &Weir, name: Option<&str>) {
    eventually(&format!("{name:?} is captured"), || {
        let text = capture(weir, &["list", "--json"]);
        let state: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let captured = &state["targets"][0]["captured"];
        let names: Vec<_> =
            captured.as_array().into_iter().flatten().map(|one| one["container"]["name"].as_str()).collect();
        (names.first().copied().flatten() == name && names.len() == usize::from(name.is_some())).then_some(())
    });
}

/// A server on the host: says "ok".
fn host_server(podman: &Podman) -> String {
    let server = podman.netns.run(|| {
        http::server(HOST, |mut stream| {
            http::read_head(&mut stream);
            // A client that is gone needs no answer.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        })
    });
    format!("http://{server}/")
}

#[test]
fn unmodified_programs_on_every_kind_of_network() {
    let (weir, podman) = weir_and_podman();
    podman.podman(&["network", "create", "one"]);
    podman.podman(&["network", "create", "two"]);
    podman.podman(&["network", "create", "--ipv6", "--subnet", "fd00:1a::/64", "six"]);
    let direct = podman.who("plain", &[]);
    let there = podman.who("service", &["--network", "one,two,six"]);
    let direct = format!("http://{direct}/");
    capture(&weir, &["add", "--label", "weir=yes"]);
    let python = |url: &str| format!("import urllib.request as r; print(r.urlopen('{url}').read().decode())");
    let (by_address, by_name) = (python(&direct), python("http://service/"));
    let by_number = format!("http://{there}/");
    let check = |name: &str, network: &str, programs: &[&[&str]]| {
        podman.idle(name, &["--label", "weir=yes", "--network", network]);
        captured(&weir, Some(name));
        for program in programs {
            let before = count(&weir);
            let told = podman.podman(&[&["exec", name], *program].concat());
            // The server saw the container, not weir: the connection left from where it would have left.
            let own = podman.podman(&["exec", name, "ip", "-o", "addr"]);
            assert!(own.contains(&format!(" {told}/")), "{name}, {program:?}: {told} is none of\n{own}");
            assert_eq!(count(&weir), before + 1, "{name}, {program:?} was captured");
        }
        podman.podman(&["rm", "--force", "--time", "0", name]);
        captured(&weir, None);
    };
    let curl = "/usr/bin/curl";
    check(
        "default",
        "podman",
        &[&["wget", "-qO-", &direct], &[curl, "-sS", &direct], &["/usr/bin/python3", "-c", &by_address]],
    );
    // podman's own resolver is asked from inside, as ever.
    let by_names: [&[&str]; 4] = [
        &["wget", "-qO-", "http://service/"],
        &[curl, "-sS", "http://service/"],
        &["/usr/bin/python3", "-c", &by_name],
        &[curl, "-sS", &by_number],
    ];
    check("user", "one", &by_names);
    check("both", "one,two", &by_names);
    check("six", "six", &[&[curl, "-gsS6", "http://service/"]]);
    check("host", "host", &[&["wget", "-qO-", &direct]]);
    for flow in &weir.flows(13) {
        let container = &flow["process"]["container"];
        assert!(container["image"].as_str().is_some_and(|image| image.ends_with(IMAGE)), "{flow:#}");
        assert_eq!(flow["end"], "complete", "{flow:#}");
    }
    let beside = podman.netns.run(|| stdout(Command::new("curl").args(["-sS", "--noproxy", "*", &direct])));
    assert!(!beside.is_empty(), "a program beside the container in the same network");
    assert_eq!(count(&weir), 13, "and not captured with it");

    podman.idle("none", &["--label", "weir=yes", "--network", "none"]);
    captured(&weir, Some("none"));
    let mut nowhere = podman.command(&["exec", "none", curl, "-sS", "http://198.18.0.1/"]);
    assert!(!podman.netns.run(|| nowhere.output()).expect("podman runs").status.success());
    let flow = weir.flows(14).pop().expect("a flow");
    assert!(flow["end"].as_str().is_some_and(|end| end.contains("unreachable")), "{flow:#}");
}

/// Containers started at one time.
const PARALLEL: usize = 10;

/// Containers that connect with the first thing they do; gives the connections of how many went direct.
#[track_caller]
fn escaped(weir: &Weir, podman: &Podman, url: &str, round: &str) -> usize {
    let before = count(weir);
    let names: Vec<String> = (0..PARALLEL).map(|nth| format!("quick-{round}-{nth}")).collect();
    let start = |name: &String| {
        let arguments = ["--rm", "--name", name, "--label", "weir=yes", "--network", "one"];
        let mut command = podman.command(&podman.arguments(&arguments, &["wget", "-qO-", url]));
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        podman.netns.run(|| command.spawn()).expect("podman runs")
    };
    let children: Vec<_> = names.iter().map(start).collect();
    for child in children {
        let output = child.wait_with_output().expect("a child of ours");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ok", "{output:?}");
    }
    PARALLEL - usize::try_from(count(weir) - before).expect("a number")
}

#[test]
fn with_the_hook_not_one_first_connection_escapes() {
    let (weir, podman) = weir_and_podman();
    let url = host_server(&podman);
    podman.podman(&["network", "create", "one"]);
    capture(&weir, &["add", "--label", "weir=yes"]);
    let without = escaped(&weir, &podman, &url, "without");
    println!("{without} of {PARALLEL} first connections escaped the watcher");
    let hooks = podman.hooks().display().to_string();
    let admin = weir.folder().join("state/admin.sock").display().to_string();
    let engine = ["--engine", "podman", "--podman-hooks", &hooks];
    capture(&weir, &[&["install-hook", "--admin", &admin][..], &engine].concat());
    for round in ["first", "second"] {
        assert_eq!(escaped(&weir, &podman, &url, round), 0, "{round}");
    }
    capture(&weir, &[&["remove-hook"][..], &engine].concat());
    assert_eq!(std::fs::read_dir(&hooks).expect("a folder").count(), 0);
}

/// While podman starts a container it tells nothing of it: the hook captures it, and what podman says later decides.
#[test]
fn they_are_captured_with_and_without_the_hook() {
    let (weir, podman) = weir_and_podman();
    let url = host_server(&podman);
    capture(&weir, &["add", "container:named"]);
    let ask = format!("wget -qO- {url}");
    let later = format!("sleep 1; {ask}");
    assert_eq!(podman.run(&["--name", "named"], &["sh", "-c", &later]), "ok");
    assert_eq!(count(&weir), 1, "the watcher has seen it");
    assert_eq!(weir.flows(1)[0]["process"]["container"]["name"], "named");

    let hooks = podman.hooks().display().to_string();
    let admin = weir.folder().join("state/admin.sock").display().to_string();
    let engine = ["--engine", "podman", "--podman-hooks", &hooks];
    capture(&weir, &[&["install-hook", "--admin", &admin][..], &engine].concat());
    assert_eq!(podman.run(&["--name", "named"], &["wget", "-qO-", &url]), "ok");
    assert_eq!(count(&weir), 2, "its first connection");
    assert_eq!(podman.run(&["--name", "another"], &["sh", "-c", &later]), "ok");
    assert_eq!(count(&weir), 2, "it is let go when podman tells its name");
    capture(&weir, &[&["remove-hook"][..], &engine].concat());
    assert_eq!(std::fs::read_dir(&hooks).expect("a folder").count(), 0);
}
