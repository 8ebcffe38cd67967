//! Captured programs in network namespaces of their own: redirected there, and served from there.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

use nix::sys::signal::Signal;
use weir_tests::netns::{self, Other};
use weir_tests::prompt::Prompt;
use weir_tests::weir::{Weir, eventually};
use weir_tests::{leaks, scripts, who};

/// Addresses that answer in another namespace alone: nobody reaches them from weir's.
const THERE: [&str; 2] = ["198.18.7.1", "fd00:18::7"];

fn other() -> Other {
    Other::new(&["198.18.7.1/32", "fd00:18::7/128 nodad"])
}

/// The namespaces, other than its own, in which a weir listens.
fn entered(weir: &Weir) -> usize {
    weir.status()["capture"]["namespaces"].as_array().map_or(0, Vec::len)
}

/// What a captured client tells of a [`who`] server: its peer, and the address that the server saw.
#[track_caller]
fn ask(weir: &Weir, server: SocketAddr) -> (String, SocketAddr) {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let told = scripts::stdout(&mut weir.exec(&["python3", &scripts::path("client.py"), &host, &port]));
    let (peer, seen) = told.split_once(' ').expect("two addresses");
    (peer.to_owned(), seen.parse().expect("an address"))
}

#[test]
fn each_family_leaves_from_where_the_program_lives() {
    netns::enter();
    let weir = Weir::capturing("");
    let files = weir.open_files();
    let other = other();
    for (nth, address) in (1..).zip(THERE) {
        let server = other.run(|| who::server(address));
        let (peer, seen) = other.run(|| ask(&weir, *server));
        assert_eq!(peer, server.to_string(), "what getpeername says");
        assert_eq!(seen.ip().to_string(), address);
        let flow = weir.flows(nth).pop().expect("a flow");
        assert_eq!((&flow["front"], &flow["end"]), (&"captured".into(), &"complete".into()), "{flow:#}");
        assert_eq!(flow["upstream"], server.to_string());
    }
    assert_eq!(weir.metric("captured_connections_total"), 2);
    // Nobody lives there any more.
    eventually("weir leaves", || (entered(&weir) == 0).then_some(()));
    leaks::check_none(&weir, files);
}

#[test]
fn the_same_address_in_two_namespaces_is_two_places() {
    netns::enter();
    let weir = Weir::capturing("");
    let here = who::server(netns::V4);
    let script =
        format!("import client; print(client.read_to_end(client.connect('{}', {})))", here.ip(), here.port());
    for name in ["one", "two"] {
        let other = other();
        let server = other.run(|| TcpListener::bind(*here).expect("it is free there"));
        let serving = std::thread::spawn(move || {
            let (mut client, _) = server.accept().expect("a connection");
            client.write_all(name.as_bytes()).expect("the client reads");
        });
        assert_eq!(other.run(|| scripts::stdout(&mut weir.exec(&scripts::python(&script)))), name);
        serving.join().expect("a client came");
    }
    let (peer, _) = ask(&weir, *here);
    assert_eq!(peer, here.to_string());
    assert_eq!(weir.metric("captured_connections_total"), 3);
    assert_eq!(weir.metric("lost_destinations_total"), 0);
}

#[test]
fn fail_decides_there_as_well_when_weir_is_killed() {
    netns::enter();
    for (overlay, without) in [("", "direct"), ("capture: {fail: closed}", "ECONNREFUSED")] {
        let weir = Weir::capturing(overlay);
        let other = other();
        let server = other.run(|| who::server(THERE[0]));
        let mut prompt = other.run(|| Prompt::start(&weir, *server));
        assert_eq!(prompt.ask(), "captured");
        weir.signal(Signal::SIGKILL);
        prompt.ask_until(without);
        assert_eq!(prompt.ask(), without, "{overlay}");
    }
}

/// It enters a namespace that weir knows nothing of.
#[test]
fn fail_decides_where_nobody_listens() {
    netns::enter();
    let script = "import ctypes, client\n\
                  assert ctypes.CDLL(None).unshare(0x40000000) == 0\n\
                  print(client.attempt('198.18.0.1', 80))";
    for (overlay, without) in [("", "ENETUNREACH"), ("capture: {fail: closed}", "ECONNREFUSED")] {
        let weir = Weir::capturing(overlay);
        assert_eq!(scripts::stdout(&mut weir.exec(&scripts::python(script))), without, "{overlay}");
        assert_eq!(weir.metric("kernel_gate_netns_total"), 1);
    }
}

#[test]
fn connections_of_programs_that_have_ended_keep_no_namespace() {
    netns::enter();
    let weir = Weir::capturing("server: {timeouts: {drain: 500ms}}");
    let files = weir.open_files();
    let other = other();
    // It never answers, and so keeps its end open.
    let server = other.run(|| TcpListener::bind((THERE[0], 0)).expect("a free port"));
    let port = server.local_addr().expect("a bound socket").port();
    let script = format!("import client, time; s = client.connect('{}', {port}); time.sleep(60)", THERE[0]);
    let mut command = weir.exec(&scripts::python(&script));
    let command = scripts::import(&mut command).stdin(Stdio::null());
    let mut child = other.run(|| command.spawn()).expect("weir starts");
    let (_connected, _) = server.accept().expect("weir connects");
    let inode = weir.status()["capture"]["namespaces"][0]["inode"].to_string();
    let threads = || -> String {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", weir.pid())).expect("weir runs");
        // A thread may end between the two.
        tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect()
    };
    assert!(threads().contains(&inode), "a thread lives inside");
    child.kill().and_then(|()| child.wait()).expect("a child of ours");
    eventually("weir leaves", || (entered(&weir) == 0).then_some(()));
    eventually("its thread ends", || (!threads().contains(&inode)).then_some(()));
    let flow = weir.flows(1).pop().expect("a flow");
    assert_eq!(flow["end"], "its network namespace has ended");
    leaks::check_none(&weir, files);
}
