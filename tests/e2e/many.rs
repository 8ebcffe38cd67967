//! Many captured connections: none loses its destination, and nothing is left when they have ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::thread;

use weir_tests::weir::Weir;
use weir_tests::{leaks, netns, scripts};

const OPEN: u64 = 1000;
/// More than twice the ports that [`more_than_one_port_has_room_for`] leaves.
const BEYOND: u64 = 600;
const SEQUENTIAL: u64 = 50_000;

/// Echoes until the client ends its side, or sends an empty line.
fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if buffer[..length].ends_with(b"\n\n") || buffer[..length] == *b"\n" {
            return;
        }
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// A thread a connection, or all in one thread.
fn server(concurrent: bool) -> SocketAddr {
    server_at(SocketAddr::new(netns::V4.parse().expect("an address"), 0), concurrent)
}

fn server_at(any: SocketAddr, concurrent: bool) -> SocketAddr {
    let domain = socket2::Domain::for_address(any);
    let listener = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&any.into()).and_then(|()| listener.listen(4096)).expect("a free port");
    let listener: TcpListener = listener.into();
    let address = listener.local_addr().expect("a bound socket");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_nodelay(true).expect("a socket option");
            if concurrent {
                thread::spawn(|| echo(stream));
            } else {
                echo(stream);
            }
        }
    });
    address
}

/// A weir that has served one connection: what is made on first use is made.
fn warm(server: SocketAddr) -> Weir {
    let weir = Weir::capturing("logging: {access: false}");
    let path = scripts::path("many.py");
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let once = ["python3", &path, &host, &port, "sequential", "2"];
    assert_eq!(scripts::stdout(&mut weir.exec(&once)), "done");
    leaks::check_none(&weir, usize::MAX);
    weir
}

/// Has `count` captured connections opened to these ports of `host`, all at one time, and does `look` meanwhile.
#[track_caller]
fn while_open(weir: &Weir, host: &str, ports: &str, count: u64, look: impl FnOnce()) {
    let mut client = weir
        .exec(&["python3", &scripts::path("many.py"), host, ports, "open", &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let mut output = BufReader::new(client.stdout.take().expect("a pipe"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    assert_eq!(line, "open\n", "{host}");
    assert_eq!(weir.status()["active_connections"], count);
    look();
    client.stdin.take().expect("a pipe").write_all(b"\n").expect("the client reads");
    assert!(client.wait().expect("a child of ours").success());
}

#[test]
fn a_thousand_at_one_time() {
    netns::enter();
    let server = server(true);
    let weir = warm(server);
    let files = weir.open_files();
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    while_open(&weir, &host, &port, OPEN, || {
        let status = weir.status();
        assert_eq!(leaks::entries(&status, "ORIGINALS"), OPEN);
        assert_eq!(leaks::entries(&status, "CLAIMS"), 0);
    });
    assert_eq!(weir.metric("captured_connections_total"), OPEN + 2);
    leaks::check_none(&weir, files);
}

/// Two connections from loopback to one port can't have the same port of their own. With one listener, the numbers that
/// the kernel has for connect() were all that there could be at one time.
#[test]
fn more_than_one_port_has_room_for() {
    netns::enter();
    let setting = "/proc/sys/net/ipv4/ip_local_port_range";
    let range = |ports: &str| std::fs::write(setting, ports).expect("a setting of our namespace");
    for (host, base) in [(netns::V4, 8001), (netns::V6, 9001)] {
        let ports: Vec<String> = (base..base + 4)
            .map(|port| {
                server_at(SocketAddr::new(host.parse().expect("an address"), port), true).port().to_string()
            })
            .collect();
        // Its listeners have ports apart from those that connections of the round before still hold.
        range("10000 29999");
        let weir = Weir::capturing("logging: {access: false}");
        range("30000 30239");
        while_open(&weir, host, &ports.join(","), BEYOND, || {});
        assert_eq!(weir.metric("captured_connections_total"), BEYOND);
        leaks::check_none(&weir, usize::MAX);
    }
}

#[test]
fn fifty_thousand_one_after_the_other() {
    netns::enter();
    // Half of them leave the client's port in TIME_WAIT, for longer than this test takes.
    for (setting, value) in [("ip_local_port_range", "1024 65535"), ("tcp_tw_reuse", "1")] {
        std::fs::write(format!("/proc/sys/net/ipv4/{setting}"), value).expect("a setting of our namespace");
    }
    let server = server(false);
    let weir = warm(server);
    let files = weir.open_files();
    let resident = weir.resident_kib();
    let path = scripts::path("many.py");
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let client = ["python3", &path, &host, &port, "sequential", &SEQUENTIAL.to_string()];
    assert_eq!(scripts::stdout(&mut weir.exec(&client)), "done");
    assert_eq!(weir.metric("captured_connections_total"), SEQUENTIAL + 2);
    leaks::check_none(&weir, files);
    let grown = weir.resident_kib().saturating_sub(resident);
    assert!(grown < 16 << 10, "weir has grown by {grown} KiB");
}
