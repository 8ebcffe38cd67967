//! Captured programs: unmodified, and none the wiser.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use weir_tests::prompt::Prompt;
use weir_tests::weir::{Weir, eventually};
use weir_tests::{leaks, netns, scripts, who};

/// Runs a script of e2e/scripts captured.
#[track_caller]
fn captured(weir: &Weir, script: &str, arguments: &[&str]) -> String {
    let path = scripts::path(script);
    scripts::stdout(&mut weir.exec(&[&["python3", path.as_str()], arguments].concat()))
}

/// Runs a script beside weir.
#[track_caller]
fn outside(script: &str, arguments: &[&str]) -> String {
    scripts::stdout(Command::new("python3").arg(scripts::path(script)).args(arguments))
}

/// The `nth` captured connection of a weir, to `server`, of which the client calls the host `host`, from a socket
/// that may be bound. The server must see the address `seen`.
#[track_caller]
fn check(weir: &Weir, nth: usize, server: SocketAddr, host: &str, source: Option<&str>, seen: &str) {
    let port = server.port().to_string();
    let arguments: Vec<&str> = [host, &port].into_iter().chain(source).collect();
    let told = captured(weir, "client.py", &arguments);
    let (peer, seen_as) = told.split_once(' ').expect("two addresses");
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    assert_eq!(peer, shown, "what getpeername says of {arguments:?}");
    let seen_as: SocketAddr = seen_as.parse().expect("an address");
    assert_eq!(seen_as.ip().to_string(), seen, "what the server sees of {arguments:?}");
    let flow = last_of(weir, nth);
    assert_eq!((&flow["front"], &flow["end"]), (&"captured".into(), &"complete".into()), "{flow:#}");
    assert_eq!(flow["original_destination"], server.to_string());
    assert_eq!(flow["upstream"], server.to_string());
}

/// The last flow, when there must be `count`.
#[track_caller]
fn last_of(weir: &Weir, count: usize) -> Value {
    let mut flows = weir.flows(count);
    assert_eq!(flows.len(), count, "{flows:#?}");
    flows.pop().expect("a flow")
}

#[test]
fn each_family_goes_where_it_was_going_from_where_it_was_bound() {
    netns::enter();
    let (v4, v6) = (who::server(netns::V4), who::server(netns::V6));
    let mapped = |address: &str| format!("::ffff:{address}");
    let weir = Weir::capturing("");
    let files = weir.open_files();
    let connections: [(SocketAddr, String, Option<String>, &str); 6] = [
        (*v4, netns::V4.into(), None, netns::V4),
        (*v6, netns::V6.into(), None, netns::V6),
        (*v4, mapped(netns::V4), None, netns::V4),
        (*v4, netns::V4.into(), Some(netns::V4_OTHER.into()), netns::V4_OTHER),
        (*v6, netns::V6.into(), Some(netns::V6_OTHER.into()), netns::V6_OTHER),
        (*v4, mapped(netns::V4), Some(mapped(netns::V4_OTHER)), netns::V4_OTHER),
    ];
    for (nth, (server, host, source, seen)) in (1..).zip(&connections) {
        check(&weir, nth, *server, host, source.as_deref(), seen);
    }
    leaks::check_none(&weir, files);
}

#[test]
fn non_blocking_connects_work_with_either_trigger() {
    netns::enter();
    let weir = Weir::capturing("");
    let files = weir.open_files();
    for host in [netns::V4, netns::V6] {
        let server = who::server(host);
        for trigger in ["edge", "level"] {
            let arguments = [host, &server.port().to_string(), trigger, "50"];
            assert_eq!(captured(&weir, "epoll.py", &arguments), "all answered", "{arguments:?}");
        }
    }
    assert_eq!(weir.metric("captured_connections_total"), 200);
    leaks::check_none(&weir, files);
}

/// weir has to accept a connection before it knows whether its upstream will: to a captured program a refused
/// address looks connected, and then reset. The attempt that loses the race is closed by the program at any
/// moment of its life; it must leave nothing behind.
#[test]
fn happy_eyeballs_leave_nothing_behind() {
    netns::enter();
    let (v4, v6) = (who::server(netns::V4).port().to_string(), who::server(netns::V6).port().to_string());
    let refused = weir_tests::weir::free_port().to_string();
    let race =
        |v6_port, delay, rounds| [netns::V6, v6_port, netns::V4, &v4, delay, rounds].map(str::to_owned);
    let weir = Weir::capturing("");
    let files = weir.open_files();
    let run = |race: [String; 6]| captured(&weir, "eyeballs.py", &race.each_ref().map(String::as_str));

    assert_eq!(
        outside("eyeballs.py", &race(&refused, "0.25", "1").each_ref().map(String::as_str)),
        "4 answered"
    );
    assert_eq!(run(race(&refused, "0.25", "3")), "6 reset\n6 reset\n6 reset");
    assert_eq!(run(race(&v6, "0.25", "3")), "6 answered\n6 answered\n6 answered");
    for (v6_port, may_end) in [(&refused, ["4 answered", "6 reset"]), (&v6, ["4 answered", "6 answered"])] {
        let ends = run(race(v6_port, "0", "100"));
        assert_eq!(ends.lines().count(), 100);
        for end in ends.lines() {
            assert!(may_end.contains(&end), "{end}");
        }
    }
    leaks::check_none(&weir, files);
}

#[test]
fn children_of_children_and_daemons_are_captured() {
    netns::enter();
    let server = who::server(netns::V4);
    let weir = Weir::capturing("");
    let client = format!("python3 {} {} {}", scripts::path("client.py"), server.ip(), server.port());
    let grandchild = format!("sh -c 'sh -c \"{client}; true\"; true'; true");
    let told = scripts::stdout(&mut weir.exec(&["sh", "-c", &grandchild]));
    assert!(told.starts_with(&format!("{server} ")), "{told}");
    let comm = last_of(&weir, 1)["process"]["comm"].to_string();
    assert!(comm.contains("python"), "{comm}");

    let daemon = captured(&weir, "daemon.py", &[netns::V4, &server.port().to_string()]);
    let (pid, told) = daemon.split_once(' ').expect("a pid and addresses");
    assert!(told.starts_with(&format!("{server} ")), "{told}");
    assert_eq!(last_of(&weir, 2)["process"]["pid"].to_string(), pid);
}

#[test]
fn processes_outside_are_left_alone() {
    netns::enter();
    let server = who::server(netns::V4);
    let weir = Weir::capturing("");
    let script = format!("import client; print(client.is_direct('{}', {}))", server.ip(), server.port());
    let script = scripts::python(&script);
    // Beside a captured program that runs at the same time.
    let mut captured = scripts::import(&mut weir.exec(&["sleep", "60"])).spawn().expect("sleep is installed");
    assert_eq!(scripts::stdout(Command::new(script[0]).args(&script[1..])), "True");
    assert_eq!(scripts::stdout(&mut weir.exec(&script)), "False");
    last_of(&weir, 1);
    assert_eq!(weir.metric("captured_connections_total"), 1);
    captured.kill().and_then(|()| captured.wait()).expect("a child of ours");
}

#[test]
fn loopback_and_udp_are_left_alone() {
    netns::enter();
    let weir = Weir::capturing("");
    let before = weir.metric("captured_connections_total");
    for host in ["127.0.0.1", "::1"] {
        let server = who::server(host);
        let script = format!("import client; print(client.is_direct('{host}', {}))", server.port());
        assert_eq!(scripts::stdout(&mut weir.exec(&scripts::python(&script))), "True", "{host}");
    }
    for host in [netns::V4, netns::V6] {
        let server = UdpSocket::bind((host, 0)).expect("a free port");
        let port = server.local_addr().expect("a bound socket").port();
        let script = format!(
            "import socket, client\n\
             s = socket.socket(socket.AF_INET6 if ':' in '{host}' else socket.AF_INET, socket.SOCK_DGRAM)\n\
             s.settimeout(client.PATIENCE); s.connect(('{host}', {port})); s.send(b'one')\n\
             print(client.show(s.getsockname()), client.show(s.getpeername()), s.recv(9).decode())\n"
        );
        let answering = std::thread::spawn(move || {
            let mut buffer = [0; 9];
            let (length, peer) = server.recv_from(&mut buffer).expect("a datagram");
            assert_eq!(&buffer[..length], b"one");
            server.send_to(b"two", peer).expect("a datagram can be sent");
            peer
        });
        let told = scripts::stdout(&mut weir.exec(&scripts::python(&script)));
        let client = answering.join().expect("the server's checks hold");
        assert_eq!(
            told,
            format!("{client} {} two", SocketAddr::new(host.parse().expect("an address"), port))
        );
    }
    assert_eq!(weir.metric("captured_connections_total"), before);
    assert_eq!(weir.metric("kernel_bypass_destination_total"), 2);
    assert_eq!(weir.metric("kernel_bypass_protocol_total"), 2);
}

#[test]
fn a_late_comer_is_captured_too() {
    netns::enter();
    let (server, weir) = (who::server(netns::V4), Weir::capturing(""));
    let socket = weir.folder().join("state/admin.sock");
    let mut post = Command::new("curl");
    post.args(["-sS", "-X", "POST", "http://localhost/capture/exec", "--unix-socket"]).arg(socket);
    let made: Value = serde_json::from_str(&scripts::stdout(&mut post)).expect("JSON");
    let cgroup = made["cgroup"].as_str().expect("a path");
    // weir waits 10 s for somebody to come, and does not see who comes then.
    weir.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(10_500));
    let mut sleeper = Command::new("sleep").arg("60").spawn().expect("coreutils are installed");
    std::fs::write(format!("{cgroup}/cgroup.procs"), sleeper.id().to_string()).expect("a cgroup");
    weir.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_secs(1));
    let script = format!(
        "import client\n\
         with open('{cgroup}/cgroup.procs', 'w') as procs: procs.write('0')\n\
         print(client.is_direct('{}', {}))",
        server.ip(),
        server.port()
    );
    let [program, arguments @ ..] = scripts::python(&script);
    assert_eq!(scripts::stdout(Command::new(program).args(arguments)), "False");
    sleeper.kill().and_then(|()| sleeper.wait()).expect("a child of ours");
    eventually("its cgroup is removed", || (!Path::new(cgroup).exists()).then_some(()));
}

#[test]
fn an_exec_that_fails_leaves_nothing() {
    netns::enter();
    let server = who::server(netns::V4);
    let weir = Weir::capturing("capture: {max_cgroups: 1}");
    let mut first = Prompt::start(&weir, *server);
    assert_eq!(first.ask(), "captured");
    let second = weir.exec(&["true"]).output().expect("weir runs");
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let folder = weir.cgroup().join("weir");
    let left = std::fs::read_dir(folder).expect("a cgroup").flatten().filter(|entry| entry.path().is_dir());
    assert_eq!(left.count(), 1, "that of the first program");
    assert_eq!(first.ask(), "captured");
}
