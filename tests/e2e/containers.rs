//! Containers of a real engine, captured as they are: their programs, their networks, their names.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use weir_tests::engine::{Docker, IMAGE};
use weir_tests::netns;
use weir_tests::scripts::stdout;
use weir_tests::weir::{Weir, eventually};

/// A weir that sees an engine of its own. The engine needs weir's cgroup, and weir the engine's socket.
fn weir_and_docker(overlay: &str) -> (Weir, Docker) {
    netns::enter();
    let cgroup = weir_tests::weir::new_cgroup();
    let docker = Docker::start(&cgroup);
    let weir = Weir::capturing_in(cgroup, &format!("capture: {{{}}}\n{overlay}", docker.setting()));
    (weir, docker)
}

/// `weir capture ...`, which must succeed.
#[track_caller]
fn capture(weir: &Weir, arguments: &[&str]) -> String {
    stdout(&mut weir.command(&[&["capture"], arguments].concat()))
}

/// Waits until that many cgroups are captured.
#[track_caller]
fn captured(weir: &Weir, count: usize) {
    eventually(&format!("{count} captured"), || {
        let state: serde_json::Value =
            serde_json::from_str(&capture(weir, &["list", "--json"])).expect("JSON");
        let targets = state["targets"].as_array().cloned().unwrap_or_default();
        let found: usize =
            targets.iter().filter_map(|target| target["captured"].as_array()).map(Vec::len).sum();
        (found == count).then_some(())
    });
}

fn count(weir: &Weir) -> u64 {
    weir.metric("captured_connections_total")
}

#[test]
fn unmodified_programs_on_every_kind_of_network() {
    let (weir, docker) = weir_and_docker("");
    docker.docker(&["network", "create", "one"]);
    docker.docker(&["network", "create", "two"]);
    docker.docker(&["network", "create", "--ipv6", "--subnet", "fd00:19::/64", "six"]);
    let direct = docker.who("plain", &[]);
    let there = docker.who("service", &["--network", "one"]);
    docker.docker(&["network", "connect", "two", "service"]);
    docker.docker(&["network", "connect", "six", "service"]);
    capture(&weir, &["add", "--label", "weir=yes"]);

    let check = |name: &str, network: &str, programs: &[&[&str]], sees_container: bool| {
        docker.idle(name, &["--label", "weir=yes", "--network", network]);
        if network == "one" {
            docker.docker(&["network", "connect", "two", name]);
        }
        captured(&weir, 1);
        for program in programs {
            let before = count(&weir);
            let told = docker.docker(&[&["exec", name], *program].concat());
            // The server saw the container, not weir: the connection left from where it would have left.
            if sees_container {
                let own = docker.docker(&["exec", name, "ip", "-o", "addr"]);
                assert!(own.contains(&format!(" {told}/")), "{program:?}: {told} is none of\n{own}");
            }
            assert_eq!(count(&weir), before + 1, "{program:?} was captured");
        }
        docker.docker(&["rm", "--force", name]);
        captured(&weir, 0);
    };
    let direct = format!("http://{direct}/");
    let python = |url: &str| format!("import urllib.request as r; print(r.urlopen('{url}').read().decode())");
    let (by_address, by_name) = (python(&direct), python("http://service/"));
    check(
        "bridge",
        "bridge",
        &[&["wget", "-qO-", &direct], &["curl", "-sS", &direct], &["python3", "-c", &by_address]],
        true,
    );
    // The engine's own resolver is asked from inside, as ever.
    check(
        "user",
        "one",
        &[
            &["wget", "-qO-", "http://service/"],
            &["curl", "-sS", "http://service/"],
            &["python3", "-c", &by_name],
            &["curl", "-sS", &format!("http://{there}/")],
        ],
        true,
    );
    check("six", "six", &[&["curl", "-gsS6", "http://service/"]], true);
    check("host", "host", &[&["wget", "-qO-", &direct]], true);
    let beside = docker.netns.run(|| stdout(Command::new("curl").args(["-sS", "--noproxy", "*", &direct])));
    assert!(!beside.is_empty(), "a program beside the container in the same network");
    let flows = weir.flows(9);
    assert_eq!(flows.len(), 9, "and not captured with it: {flows:#?}");
    for flow in &flows {
        let container = &flow["process"]["container"];
        assert_eq!((&container["image"], &flow["end"]), (&IMAGE.into(), &"complete".into()), "{flow:#}");
    }
    let shown = stdout(&mut weir.command(&["flows"]));
    assert!(shown.contains(" captured bridge/wget[") && shown.contains(" user/python3["), "{shown}");
}

#[test]
fn without_a_network_there_is_no_way_out_either() {
    let (weir, docker) = weir_and_docker("");
    capture(&weir, &["add", "container:none"]);
    docker.idle("none", &["--network", "none"]);
    captured(&weir, 1);
    let output =
        docker.command(&["exec", "none", "curl", "-sS", "http://198.18.0.1/"]).output().expect("docker runs");
    assert!(!output.status.success(), "{output:?}");
    let flow = weir.flows(1).pop().expect("a flow");
    assert!(flow["end"].as_str().is_some_and(|end| end.contains("unreachable")), "{flow:#}");
}

#[test]
fn containers_are_chosen_by_what_they_are_called_and_come_and_go() {
    let (weir, docker) = weir_and_docker("");
    let url = format!("http://{}/", docker.who("server", &[]));
    let is_captured = |name: &str| {
        let before = count(&weir);
        docker.docker(&["exec", name, "wget", "-qO-", &url]);
        count(&weir) > before
    };
    docker.idle("box", &["--label", "com.docker.compose.project=shop", "--label", "tier=web"]);
    assert!(!is_captured("box"), "nothing is named yet");
    let id = docker.docker(&["inspect", "--format", "{{.Id}}", "box"]);
    let names = [
        "container:box",
        &format!("container:{}", &id[..12]),
        "label:tier",
        "label:tier=web",
        "compose:shop",
    ];
    for name in names {
        let told = capture(&weir, &["add", name]);
        assert!(told.contains(&id[..12]), "{told}");
        assert!(is_captured("box"), "{name}");
        capture(&weir, &["remove", name]);
        assert!(!is_captured("box"), "{name} was removed");
    }
    for other in ["container:bo", "label:tier=db", "compose:sho", "image:busybox"] {
        assert!(capture(&weir, &["add", other]).contains("nothing yet"), "{other}");
        capture(&weir, &["remove", other]);
    }
    capture(&weir, &["add", "container:box"]);
    docker.docker(&["restart", "--time", "0", "box"]);
    eventually("it is captured after a restart", || is_captured("box").then_some(()));
    docker.docker(&["pause", "box"]);
    docker.docker(&["unpause", "box"]);
    assert!(is_captured("box"), "after a pause");
    docker.docker(&["rename", "box", "crate"]);
    captured(&weir, 0);
    assert!(!is_captured("crate"), "it is called otherwise now");
    docker.docker(&["rename", "crate", "box"]);
    captured(&weir, 1);
    assert!(is_captured("box"));
    docker.docker(&["stop", "--time", "0", "box"]);
    captured(&weir, 0);
    eventually("its network namespace is left", || {
        (weir.status()["capture"]["namespaces"].as_array().map(Vec::len) == Some(0)).then_some(())
    });
    assert!(capture(&weir, &["list"]).contains("container:box: nothing yet"));
    let twice = weir.command(&["capture", "remove", "label:tier"]).output().expect("weir runs");
    assert_eq!(twice.status.code(), Some(1));
    let wrong = weir.command(&["capture", "add", "box"]).output().expect("weir runs");
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[test]
fn an_engine_may_go_and_come_back() {
    netns::enter();
    let cgroup = weir_tests::weir::new_cgroup();
    let mut docker = Docker::start_with(&cgroup, &["--live-restore"]);
    let overlay = format!("capture: {{targets: [\"image:weir-test\"], {}}}", docker.setting());
    let url = format!("http://{}/", docker.who("server", &[]));
    docker.idle("before", &[]);
    let weir = Weir::capturing_in(cgroup, &overlay);
    captured(&weir, 2);
    let doctor = |socket: &str| {
        let sockets = format!("capture.engine_sockets=[{socket}]");
        let targets = "capture.targets=[container:web]";
        stdout(&mut weir.command(&["doctor", "--set", &sockets, "--set", targets]))
    };
    assert!(doctor(&docker.socket().display().to_string()).contains(" runs 2 containers"));
    assert!(doctor("/nowhere.sock").contains("no engine answers at /nowhere.sock"));
    let in_config = weir.command(&["capture", "remove", "image:weir-test"]).output().expect("weir runs");
    assert_eq!(in_config.status.code(), Some(1), "{in_config:?}");
    docker.stop_engine();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    captured(&weir, 2);
    assert!(capture(&weir, &["list"]).contains("no engine answers"), "the list tells");
    let told = &weir.status()["capture"];
    let problems = told["kernel"]["problems"].to_string();
    assert!(told["state"] == "degraded" && problems.contains("no engine answers"), "{told:#}");
    docker.start_engine(&["--live-restore"]);
    eventually("the state is on", || (weir.status()["capture"]["state"] == "on").then_some(()));
    docker.idle("after", &[]);
    captured(&weir, 3);
    let before = count(&weir);
    for name in ["before", "after"] {
        docker.docker(&["exec", name, "wget", "-qO-", &url]);
    }
    assert_eq!(count(&weir), before + 2);
}

#[test]
fn cgroups_are_captured_by_path_and_by_unit() {
    netns::enter();
    let server = weir_tests::who::server(netns::V4);
    let weir = Weir::capturing("");
    let group = weir.cgroup().join("some.slice/some.service");
    std::fs::create_dir_all(&group).expect("a cgroup");
    let script = format!(
        "echo $$ > {}/cgroup.procs; exec python3 -c \"import sys; sys.path.insert(0, '{}'); \
                          import client; print(client.attempt('{}', {}))\"",
        group.display(),
        std::path::Path::new(&weir_tests::scripts::path("")).display(),
        server.ip(),
        server.port()
    );
    let attempt = || stdout(Command::new("sh").args(["-c", &script]));
    assert_eq!(attempt(), "direct");
    let path = weir.cgroup().join("some.slice");
    let from_mount =
        format!("cgroup:/{}/some.slice", weir.cgroup().file_name().expect("a name").to_string_lossy());
    for name in [format!("cgroup:{}", path.display()), from_mount, "unit:some.service".to_owned()] {
        capture(&weir, &["add", &name]);
        assert_eq!(attempt(), "captured", "{name}");
        capture(&weir, &["remove", &name]);
        assert_eq!(attempt(), "direct", "{name}");
    }
    // Before it is there.
    std::fs::remove_dir(&group).expect("it is empty");
    capture(&weir, &["add", "unit:some.service"]);
    std::fs::create_dir(&group).expect("a cgroup");
    captured(&weir, 1);
    assert_eq!(attempt(), "captured");
    std::fs::remove_dir(&group).expect("it is empty");
    captured(&weir, 0);
}

/// Containers that connect with the first thing they do; gives the connections of how many went direct.
#[track_caller]
fn escaped(weir: &Weir, docker: &Docker, url: &str, round: usize) -> usize {
    let names: Vec<String> = (0..PARALLEL).map(|nth| format!("quick-{round}-{nth}")).collect();
    let before = count(weir);
    let start = |name: &String| {
        let run = ["run", "--rm", "--name", name, "--label", "weir=yes", IMAGE, "wget", "-qO-", url];
        docker.command(&run).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("docker runs")
    };
    let children: Vec<_> = names.iter().map(start).collect();
    for child in children {
        let output = child.wait_with_output().expect("a child of ours");
        assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
    }
    PARALLEL - usize::try_from(count(weir) - before).expect("a number")
}

/// Containers started at one time.
const PARALLEL: usize = 10;

#[test]
fn with_the_hook_not_one_first_connection_escapes() {
    let (weir, docker) = weir_and_docker("");
    let url = format!("http://{}/", docker.who("server", &[]));
    capture(&weir, &["add", "--label", "weir=yes"]);
    let without = escaped(&weir, &docker, &url, 0);
    println!("{without} of {PARALLEL} first connections escaped the watcher");

    let daemon = docker.config().display().to_string();
    let socket = docker.socket().display().to_string();
    let engine = ["--engine", "docker", "--docker-config", &daemon, "--docker-socket", &socket];
    let admin = weir.folder().join("state/admin.sock").display().to_string();
    let before = std::fs::read(&daemon).expect("the engine's configuration");
    capture(&weir, &[&["install-hook", "--admin", &admin][..], &engine].concat());
    docker.wait_for_runtime("weir");
    for round in 1..=3 {
        assert_eq!(escaped(&weir, &docker, &url, round), 0);
    }
    // Others start as ever.
    docker.docker(&["run", "--rm", IMAGE, "true"]);
    docker.idle("renamed", &["--label", "weir=yes"]);
    captured(&weir, 1);
    docker.docker(&["exec", "renamed", "wget", "-qO-", &url]);
    docker.docker(&["rm", "--force", "renamed"]);
    captured(&weir, 0);

    // A dead weir keeps nobody from starting.
    weir.signal(Signal::SIGKILL);
    docker.docker(&["run", "--rm", "--label", "weir=yes", IMAGE, "wget", "-qO-", &url]);
    capture(&weir, &[&["remove-hook"][..], &engine].concat());
    docker.wait_for_runtime("runc");
    assert_eq!(std::fs::read(&daemon).expect("the engine's configuration"), before);
    docker.docker(&["run", "--rm", IMAGE, "true"]);
}

#[test]
fn a_required_hook_keeps_containers_from_starting_uncaptured() {
    let (weir, docker) = weir_and_docker("");
    let daemon = docker.config().display().to_string();
    let socket = docker.socket().display().to_string();
    let engine = ["--engine", "docker", "--docker-config", &daemon, "--docker-socket", &socket, "--required"];
    let admin = weir.folder().join("state/admin.sock").display().to_string();
    capture(&weir, &["add", "container:wanted"]);
    capture(&weir, &[&["install-hook", "--admin", &admin][..], &engine].concat());
    docker.wait_for_runtime("weir");
    docker.docker(&["run", "--rm", "--name", "wanted", IMAGE, "true"]);
    weir.signal(Signal::SIGKILL);
    let output =
        docker.command(&["run", "--rm", "--name", "wanted", IMAGE, "true"]).output().expect("docker runs");
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn containers_stay_captured_through_upgrades_also_while_their_engine_is_gone() {
    netns::enter();
    let cgroup = weir_tests::weir::new_cgroup();
    let mut docker = Docker::start_with(&cgroup, &["--live-restore"]);
    let mut weir = Weir::capturing_in(cgroup, &format!("capture: {{{}}}", docker.setting()));
    let url = format!("http://{}/", docker.who("plain", &[]));
    docker.idle("one", &[]);
    capture(&weir, &["add", "container:one"]);
    captured(&weir, 1);
    let ask = |docker: &Docker| docker.docker(&["exec", "one", "wget", "-qO-", &url]);
    ask(&docker);
    weir.upgrade(&[]);
    captured(&weir, 1);
    ask(&docker);
    assert_eq!(count(&weir), 1, "by the new one");
    docker.stop_engine();
    weir.upgrade(&[]);
    captured(&weir, 1);
    docker.start_engine(&["--live-restore"]);
    ask(&docker);
    assert_eq!(count(&weir), 1, "by the newest");
    assert!(stdout(&mut weir.command(&["flows"])).contains(" captured one/wget["), "its name is known");
}
