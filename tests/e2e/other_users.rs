//! `server.user`, and programs of other users: what weir has to know of them it is told by its assistant.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use weir_tests::engine::Docker;
use weir_tests::netns::{self, Other};
use weir_tests::weir::{Weir, eventually};
use weir_tests::{leaks, scripts, who};

/// The one that the rules name.
const PYTHON: &str = "/usr/bin/python3";

/// A user that need not exist; weir is another one.
const ALICE: &str = "54323";

/// A program of that user's, in the attach cgroup and in none that is selected. It reads lines as it is told to.
fn program(weir: &Weir, lines: &str) -> Command {
    // The folder of the modules may be root's alone.
    let become_alice = format!("os.setgroups([]); os.setgid({ALICE}); os.setuid({ALICE})");
    let script = format!("import client, errno, os, sys\n{become_alice}\n{lines}");
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$ > \"$1/cgroup.procs\" && shift && exec \"$@\"", "sh"]);
    command.arg(weir.cgroup()).args([PYTHON, "-c", &script]);
    scripts::import(&mut command).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Holds a connection, and says what has become of it when it is told to.
fn connected(weir: &Weir, server: SocketAddr) -> Child {
    let (host, port) = (server.ip(), server.port());
    let lines = format!(
        "s = client.connect('{host}', {port})\n\
         print('connected', flush=True); sys.stdin.readline()\n\
         try: print(s.recv(1))\n\
         except OSError as error: print(errno.errorcode[error.errno])\n\
         print(client.attempt('{host}', {port}))"
    );
    let mut child = program(weir, &lines).spawn().expect("sh runs");
    let mut line = [0; "connected\n".len()];
    let told = child.stdout.as_mut().expect("a pipe");
    std::io::Read::read_exact(told, &mut line).expect("it says so");
    child
}

/// Lets it go on, and gives what it says.
fn end(mut child: Child) -> String {
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("a child of ours");
    String::from_utf8_lossy(&output.stdout).trim().replace('\n', " ")
}

fn attempt(weir: &Weir, server: SocketAddr) -> String {
    let lines = format!("print(client.attempt('{}', {}))", server.ip(), server.port());
    scripts::stdout(&mut program(weir, &lines))
}

#[test]
fn their_connections_are_found_ended_and_captured_anew() {
    netns::enter();
    let server = who::server(netns::V4);
    let other = Other::new(&["198.18.7.1/32"]);
    let there = other.run(|| who::server("198.18.7.1"));
    let weir = Weir::capturing("server: {user: nobody}");
    let (at_home, far) = (connected(&weir, *server), other.run(|| connected(&weir, *there)));
    let target = format!("uid:{ALICE}");
    scripts::stdout(&mut weir.command(&["capture", "add", &target]));
    eventually("weir listens there", || (other.run(|| attempt(&weir, *there)) == "captured").then_some(()));
    let found = scripts::stdout(&mut weir.command(&["status", "--existing"]));
    for (pid, server) in [(at_home.id(), *server), (far.id(), *there)] {
        let expected = format!("python3[{pid}] tcp ");
        let line =
            found.lines().find(|line| line.starts_with(&expected)).unwrap_or_else(|| panic!("{found}"));
        assert!(line.contains(&format!("-> {server}  redirect")), "{line}");
    }
    let ended = scripts::stdout(&mut weir.command(&["capture", "recapture"]));
    assert!(ended.contains(&at_home.id().to_string()) && ended.contains(&far.id().to_string()), "{ended}");
    assert_eq!(end(at_home), "ECONNABORTED captured");
    assert_eq!(end(far), "ECONNABORTED captured");
    scripts::stdout(&mut weir.command(&["capture", "remove", &target]));
    leaks::check_none(&weir, usize::MAX);
}

#[test]
fn explain_knows_what_they_execute() {
    netns::enter();
    let python = std::fs::canonicalize(PYTHON).expect("python3 is installed");
    let rules =
        format!("[{{name: no-python, executables: ['{}'], ports: [9], action: deny}}]", python.display());
    let weir = Weir::capturing(&format!("{{server: {{user: nobody}}, capture: {{rules: {rules}}}}}"));
    let server = who::server(netns::V4);
    let mut idle = connected(&weir, *server);
    let told =
        scripts::stdout(&mut weir.command(&["explain", "--pid", &idle.id().to_string(), "203.0.113.1:9"]));
    assert!(told.contains("deny: rule `no-python`"), "{told}");
    idle.kill().and_then(|()| idle.wait()).expect("a child of ours");
}

#[test]
fn containers_are_captured() {
    netns::enter();
    let attach = weir_tests::weir::new_cgroup();
    let docker = Docker::start(&attach);
    // Whose group may ask an engine is the administrator's word.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(docker.socket(), mode).expect("root may");
    let weir = Weir::capturing_in(
        attach,
        &format!("{{server: {{user: nobody}}, capture: {{{}}}}}", docker.setting()),
    );
    let server = docker.who("server", &[]);
    docker.idle("client", &[]);
    scripts::stdout(&mut weir.command(&["capture", "add", "container:client"]));
    let through_weir = || {
        let before = weir.metric("captured_connections_total");
        let told = docker.docker(&["exec", "client", "wget", "-qO-", &format!("http://{server}/")]);
        // From inside, as ever.
        assert_eq!(told, docker.address("client"));
        (weir.metric("captured_connections_total") > before).then_some(())
    };
    eventually("it goes through weir", through_weir);
    assert_eq!(weir.flows(1)[0]["process"]["container"]["name"], "client");
    docker.docker(&["restart", "--time", "0", "client"]);
    eventually("it does again", through_weir);
    docker.docker(&["rm", "--force", "client"]);
    eventually("weir has left", || {
        (weir.status()["capture"]["namespaces"].as_array().map(Vec::len) == Some(0)).then_some(())
    });
}
