//! A container that may go to some names only: told apart by the engine's own resolver, at 127.0.0.11 inside.

use weir_tests::engine::Docker;
use weir_tests::netns;
use weir_tests::scripts::stdout;
use weir_tests::weir::{Weir, eventually};

#[test]
fn a_container_reaches_the_names_it_may_and_nothing_else() {
    netns::enter();
    let cgroup = weir_tests::weir::new_cgroup();
    let docker = Docker::start(&cgroup);
    let overlay = format!(
        "capture: {{{}, rules: [
            {{name: dns, selected: true, ports: [53], action: redirect}},
            {{name: allowed, selected: true, domains: [service, a.example], action: bypass}},
            {{name: rest, selected: true, action: deny}}]}}\n",
        docker.setting()
    );
    let weir = Weir::capturing_in(cgroup, &overlay);
    docker.docker(&["network", "create", "one"]);
    let service = docker.who("service", &["--network", "one", "--network-alias", "a.example"]);
    let other = docker.who("other", &["--network", "one"]);
    docker.idle("agent", &["--network", "one"]);
    stdout(&mut weir.command(&["capture", "add", "container:agent"]));
    eventually("it is captured", || {
        let list = stdout(&mut weir.command(&["capture", "list", "--json"]));
        list.contains("\"cgroup\"").then_some(())
    });

    let wget = |place: &str| {
        let output = docker
            .command(&["exec", "agent", "wget", "-T", "20", "-O-", &format!("http://{place}/")])
            .output()
            .expect("docker runs");
        match output.status.success() {
            true => "reached",
            false if String::from_utf8_lossy(&output.stderr).contains("Connection refused") => "refused",
            false => panic!("{place}: {}", String::from_utf8_lossy(&output.stderr)),
        }
    };
    assert_eq!(wget(&service), "refused", "its address, before anybody has asked for its name");
    assert_eq!(wget("other"), "refused");
    assert_eq!(wget(&other), "refused");
    assert_eq!(wget("service"), "reached");
    assert_eq!(wget("a.example"), "reached");
    assert_eq!(wget("other"), "refused");
    assert!(weir.metric("dns_queries_total") > 0);
    assert_eq!(weir.metric("captured_connections_total"), 0, "the kernel decides");
    // Nobody else is concerned.
    let beside = docker.docker(&["exec", "other", "wget", "-qO-", "http://service/"]);
    assert_eq!(beside, other);
}
