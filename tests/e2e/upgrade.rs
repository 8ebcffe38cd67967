//! `weir upgrade` of an explicit proxy: another weir takes over its sockets, and nobody notices.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use weir_tests::load::{Load, Way};
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{Weir, assert_reset, binary, connect, eventually, runs};
use weir_tests::{http, pattern};

const TRANSFERS: usize = 50;

/// Sends a request, and reads its answer.
fn ask(weir: &Weir, origin: &Origin) -> TcpStream {
    let mut stream = connect(weir.proxy);
    write!(stream, "GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address).expect("weir takes it");
    assert_eq!(read_answer(&mut stream, "GET").expect("an answer").status, 200);
    stream
}

fn origin() -> Origin {
    Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

#[test]
fn under_load_nobody_is_refused_and_nothing_is_cut_off() {
    let load = Load::on("127.0.0.1");
    let mut weir = Weir::explicit("logging: {access: false}");
    let transfers = load.long(&weir, Way::Explicit, TRANSFERS);
    let requests = load.short(&weir, Way::Explicit);
    let before = weir.pid();
    let mut replaced = Vec::new();
    for _ in 0..3 {
        replaced.push(weir.upgrade(&[]));
        assert_eq!(weir.status()["pid"], weir.pid().as_raw());
    }
    assert!(runs(before), "it has transfers to finish");
    load.release();
    let told = transfers.end();
    assert_eq!((&told["whole"], &told["failed"]), (&TRANSFERS.into(), &serde_json::json!([])), "{told}");
    let told = requests.end();
    assert_eq!((&told["failed"], &told["direct"]), (&serde_json::json!([]), &0.into()), "{told}");
    assert!(told["weir"].as_u64() > Some(100), "there was load: {told}");
    println!("{told}");
    for earlier in replaced {
        eventually("the earlier weir has ended", || (!runs(earlier)).then_some(()));
    }
}

#[test]
fn who_follows_flows_follows_the_weir_that_takes_over() {
    let origin = origin();
    let mut weir = Weir::explicit("");
    let mut command = weir.command(&["flows", "--follow", "-n", "0"]);
    let mut follower = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("weir runs");
    let (shown, said) = (follower.stdout.take().expect("a pipe"), follower.stderr.take().expect("a pipe"));
    let (mut shown, mut said) = (BufReader::new(shown).lines(), BufReader::new(said).lines());
    let mut line = |what: &str| shown.next().unwrap_or_else(|| panic!("no line of {what}")).expect("text");
    ask(&weir, &origin);
    assert!(line("the first").contains(&origin.address.to_string()));
    for _ in 0..2 {
        weir.upgrade(&[]);
        let told = said.next().expect("it is told").expect("text");
        assert!(told.contains("another weir has taken over"), "{told}");
        ask(&weir, &origin);
        assert!(line("the next").contains(&origin.address.to_string()));
    }
    weir.signal(Signal::SIGTERM);
    let told = said.next().expect("that is told, too").expect("text");
    assert!(told.contains("has stopped"), "{told}");
    assert_eq!(follower.wait().expect("a child").code(), Some(0));
}

#[test]
fn a_tunnel_goes_on_in_the_earlier_process_and_ends_as_it_would_have() {
    let origin = origin();
    let mut weir = Weir::explicit("");
    let (mut client, mut server) = weir.tunnel_ends();
    let mut idle = ask(&weir, &origin);
    let earlier = weir.upgrade(&[]);
    // Who has a kept connection is answered there once more, and told that it was the last time.
    write!(idle, "GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address).expect("weir takes it");
    let answer = http::read_to_end(&mut idle).expect("an answer, and FIN");
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")), "{}", answer.head);
    ask(&weir, &origin);
    let log = weir.log();
    assert!(log.contains("another weir has taken over"), "{log}");
    for seed in 0..4 {
        pattern::send(&mut client, seed, 100_000).expect("the tunnel is there");
        assert_eq!(pattern::receive_at_most(&mut server, seed, 100_000).expect("all of it"), 100_000);
    }
    assert!(runs(earlier));
    drop(client);
    assert_eq!(server.read(&mut [0]).expect("FIN"), 0);
    drop(server);
    eventually("the earlier weir has ended", || (!runs(earlier)).then_some(()));
    assert!(
        weir.folder().join("state/admin.sock").exists() && weir.folder().join("state/state.json").exists()
    );
    assert_eq!(weir.status()["predecessors"], serde_json::json!([]), "{}", weir.log());
    weir.signal(Signal::SIGTERM);
    eventually("it has ended", || (!runs(weir.pid())).then_some(()));
    assert!(!weir.folder().join("state/admin.sock").exists());
    assert!(!weir.folder().join("state/state.json").exists());
}

#[test]
fn a_kept_connection_on_which_nothing_comes_ends_as_ever() {
    let origin = origin();
    let mut weir = Weir::explicit("server: {timeouts: {idle: 1s}}");
    let mut idle = ask(&weir, &origin);
    let earlier = weir.upgrade(&[]);
    assert_eq!(idle.read(&mut [0]).expect("FIN, as nothing was lost"), 0);
    eventually("the earlier weir has ended", || (!runs(earlier)).then_some(()));
}

#[test]
fn a_signal_ends_the_earlier_weir_alone() {
    let origin = origin();
    let mut weir = Weir::explicit("server: {timeouts: {drain: 0s}}");
    let (client, _server) = weir.tunnel_ends();
    weir.signal(Signal::SIGUSR2);
    let earlier = weir.note_successor();
    eventually("the new one serves", || (weir.status()["pid"] == weir.pid().as_raw()).then_some(()));
    assert_eq!(weir.status()["predecessors"], serde_json::json!([earlier.as_raw()]));
    nix::sys::signal::kill(earlier, Signal::SIGTERM).expect("it runs");
    assert_reset(&client);
    eventually("the earlier weir has ended", || (!runs(earlier)).then_some(()));
    ask(&weir, &origin);
    assert!(weir.folder().join("state/state.json").exists(), "it is the new one's");
}

#[test]
fn one_that_does_not_come_up_changes_nothing() {
    let origin = origin();
    let weir = Weir::explicit("");
    let (mut client, mut server) = weir.tunnel_ends();
    let pid = weir.pid();
    let configuration = weir.folder().join("overlay.yaml");
    let mut check = |binary: &str, overlay: &str, expected: &str| {
        fs::write(&configuration, overlay).expect("a file");
        let mut command = weir.command(&["upgrade"]);
        if !binary.is_empty() {
            command.args(["--binary", binary]);
        }
        let output = command.output().expect("weir runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && error.contains(expected), "{expected}: {error}");
        assert_eq!((weir.pid(), &weir.status()["pid"]), (pid, &pid.as_raw().into()));
        ask(&weir, &origin);
        client.write_all(b"on").expect("the tunnel is there");
        server.read_exact(&mut [0; 2]).expect("two bytes");
    };
    check("/nowhere", "", "No such file");
    check("/etc/hostname", "", "can't start /etc/hostname");
    check("/bin/false", "", "exit status: 1");
    check("", "server: {colour: blue}", "server.colour: unknown key");
    check("", "upstream: {tls: {roots: [/nowhere]}}", "TLS: ");
    check("", "admin: {socket: /dev/null/x}", "/dev/null/x");
    fs::write(&configuration, "").expect("a file");
    let told = weir.upgrade_with("die:0");
    assert!(String::from_utf8_lossy(&told.stderr).contains("signal: 9"), "{told:?}");
    assert!(weir.log().contains("no upgrade, and nothing has changed"), "{}", weir.log());
    let file = weir.folder().join("left");
    let told = weir.upgrade_with(&format!("leave:{}", file.display()));
    assert!(String::from_utf8_lossy(&told.stderr).contains("as it was told"), "{told:?}");
    let left = fs::read_to_string(file).expect("it was started").parse().expect("a pid");
    eventually("what it had started has ended, too", || (!runs(Pid::from_raw(left))).then_some(()));
}

#[test]
fn there_is_one_upgrade_at_a_time_and_none_when_weir_stops() {
    let mut weir = Weir::explicit("");
    let folder = weir.folder().to_owned();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| weir.upgrade_with(&format!("hold:{}", folder.display())));
        eventually("it is under way", || folder.join("told").exists().then_some(()));
        let second = weir.command(&["upgrade"]).output().expect("weir runs");
        let error = String::from_utf8_lossy(&second.stderr);
        assert!(second.status.code() == Some(1) && error.contains("under way already"), "{error}");
        weir.signal(Signal::SIGTERM);
        assert_eq!(first.join().expect("no panic").status.code(), Some(1));
    });
    assert_eq!(weir.wait(), Some(0), "{}", weir.log());
    assert!(weir.log().contains("weir was told to stop, and the new one"), "{}", weir.log());
}

#[test]
fn a_running_weir_that_dies_meanwhile_leaves_its_place() {
    let origin = origin();
    for moment in ["kill-before", "kill-after"] {
        let mut weir = Weir::explicit("");
        let told = weir.upgrade_with(moment);
        let error = String::from_utf8_lossy(&told.stderr);
        assert!(!told.status.success() && error.contains("see `weir status`"), "no answer any more: {error}");
        let earlier = weir.note_successor();
        eventually("the earlier weir has ended", || (!runs(earlier)).then_some(()));
        eventually("the new one serves", || TcpStream::connect(weir.admin).ok());
        ask(&weir, &origin);
        assert_eq!(weir.status()["pid"], weir.pid().as_raw());
    }
}

#[test]
fn the_new_configuration_holds() {
    let origin = origin();
    let mut weir = Weir::explicit("server: {workers: 4}");
    let overlay = weir.folder().join("overlay.yaml");
    for workers in [1, 3] {
        fs::write(&overlay, format!("server: {{workers: {workers}}}")).expect("a file");
        weir.upgrade(&[]);
        let name = format!("/proc/{}/task", weir.pid());
        let is_worker = |path: PathBuf| {
            fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("weir-worker"))
        };
        let threads = fs::read_dir(name).expect("it runs").flatten();
        assert_eq!(threads.filter(|thread| is_worker(thread.path())).count(), workers);
        // At whichever socket they arrive, they are served.
        (0..40).for_each(|_| drop(ask(&weir, &origin)));
    }
    // Its own port is taken from it, too: then it is closed as when weir stops.
    let port = weir_tests::weir::free_port();
    fs::write(&overlay, format!("server: {{port: {port}, port_range: {port}-{port}}}")).expect("a file");
    weir.upgrade(&[]);
    eventually("the old port is closed", || TcpStream::connect(weir.proxy).is_err().then_some(()));
    weir.proxy.set_port(port);
    ask(&weir, &origin);
}

#[test]
fn nobody_else_says_take_over() {
    let mut command = Command::new(binary());
    command.args(["serve", "--take-over", "--set", "capture.mode=off"]).stdin(Stdio::null());
    let output = command.output().expect("weir runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("weir upgrade"), "{error}");
    let weir = Weir::explicit("");
    let output = weir.command(&["--admin", &format!("http://{}", weir.admin), "upgrade"]).output();
    let output = output.expect("weir runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("on the Unix socket only"), "{error}");
}
