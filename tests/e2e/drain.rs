//! How weir stops: what is idle ends at once, what runs may finish for a while, and nothing is left behind.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{SOON, Weir, assert_reset, binary, connect, eventually, free_port};
use weir_tests::{http, pattern};

/// A kept connection on which one request was answered.
fn kept(weir: &Weir, origin: &Origin) -> TcpStream {
    let mut stream = connect(weir.proxy);
    write!(stream, "GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address).expect("weir takes it");
    assert_eq!(read_answer(&mut stream, "GET").expect("an answer").status, 200);
    stream
}

#[track_caller]
fn assert_nothing_left(weir: &Weir) {
    for name in ["state/state.json", "state/admin.sock"] {
        assert!(!weir.folder().join(name).exists(), "{name} was left behind");
    }
    for address in [weir.proxy, weir.admin] {
        let error = TcpStream::connect(address).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn with_nothing_under_way_weir_stops_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        // With the longest drain, hanging would show.
        let mut weir = Weir::explicit("server: {timeouts: {drain: 1h, request_head: 500ms}}");
        let mut idle = kept(&weir, &origin);
        let mut fresh = connect(weir.proxy);
        eventually("both connections", || (weir.status()["active_connections"] == 2).then_some(()));
        weir.signal(signal);
        assert_eq!(idle.read(&mut [0]).expect("FIN, as nothing was lost"), 0);
        assert_eq!(fresh.read(&mut [0]).expect("FIN, as nothing was lost"), 0);
        assert_eq!(weir.wait(), Some(0), "{}", weir.log());
        assert!(weir.log().contains("stopping") && weir.log().contains("stopped"), "{}", weir.log());
        assert_nothing_left(&weir);
    }
}

#[test]
fn what_is_under_way_may_finish() {
    let mut weir = Weir::explicit("server: {timeouts: {drain: 1h}}");
    let (client, server) = weir.tunnel_ends();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Arc::new(std::sync::Mutex::new(released));
    let slow = http::server("127.0.0.1", move |mut stream| {
        http::read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        let _ = released.lock().expect("no panic").recv();
        let _ = stream.write_all(b"world");
    });
    let mut stream = connect(weir.proxy);
    write!(stream, "GET http://{slow}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    let mut head = http::read_head(&mut stream);
    weir.signal(Signal::SIGTERM);
    eventually("the listener is closed", || TcpStream::connect(weir.proxy).is_err().then_some(()));
    let readiness = http::get(weir.admin, "/health/readiness").expect("the admin API still answers");
    assert_eq!((readiness.status, &readiness.json()["status"]), (503, &"not ready".into()));

    // The response ends whole; after it, so does its connection.
    release.send(()).expect("the server waits");
    stream.read_to_string(&mut head).expect("a clean end");
    assert!(head.ends_with("helloworld"), "{head}");
    // The tunnel goes on as if nothing was.
    for seed in 0..5 {
        pattern::send(&client, seed, 100_000).expect("weir takes it");
        assert_eq!(pattern::receive_at_most(&server, seed, 100_000).expect("the bytes"), 100_000);
    }
    drop(client);
    assert_eq!((&server).read(&mut [0]).expect("a clean end"), 0);
    drop(server);
    assert_eq!(weir.wait(), Some(0), "{}", weir.log());
    assert_nothing_left(&weir);
}

#[test]
fn what_takes_longer_than_the_drain_is_reset() {
    let mut weir = Weir::explicit("{server: {timeouts: {drain: 1s}}, logging: {format: json}}");
    let (client, server) = weir.tunnel_ends();
    pattern::send(&client, 1, 300_000).expect("weir takes it");
    assert_eq!(pattern::receive_at_most(&server, 1, 300_000).expect("the bytes"), 300_000);
    pattern::send(&server, 2, 200_000).expect("weir takes it");
    assert_eq!(pattern::receive_at_most(&client, 2, 200_000).expect("the bytes"), 200_000);
    let signalled = std::time::Instant::now();
    weir.signal(Signal::SIGTERM);
    assert_reset(&client);
    assert_reset(&server);
    assert!(signalled.elapsed() >= Duration::from_secs(1), "it had a second to finish");
    assert_eq!(weir.wait(), Some(0), "{}", weir.log());
    assert_logged(&weir, "CONNECT", 300_000, 200_000);
    assert_nothing_left(&weir);
}

/// The one flow of a weir that has ended was cut off, when so many bytes had got through.
#[track_caller]
fn assert_logged(weir: &Weir, method: &str, sent: u64, received: u64) {
    let flows = weir.access_log();
    let [flow] = flows.as_slice() else { panic!("not one flow: {}", weir.log()) };
    assert_eq!(flow["method"], method, "{flow}");
    assert_eq!((flow["sent"].as_u64(), flow["received"].as_u64()), (Some(sent), Some(received)), "{flow}");
    assert!(flow["end"].as_str().is_some_and(|end| end != "complete"), "{flow}");
}

#[test]
fn a_download_that_takes_longer_than_the_drain_is_logged_as_cut_off() {
    let mut weir = Weir::explicit("{server: {timeouts: {drain: 1s}}, logging: {format: json}}");
    let server = http::server("127.0.0.1", |mut stream| {
        http::read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n");
        let _ = pattern::send(&stream, 1, 500_000);
        let _ = stream.read(&mut [0]);
    });
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{server}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    http::read_head(&mut client);
    assert_eq!(pattern::receive_at_most(&client, 1, 500_000).expect("the beginning"), 500_000);
    weir.signal(Signal::SIGTERM);
    assert_reset(&client);
    assert_eq!(weir.wait(), Some(0), "{}", weir.log());
    assert_logged(&weir, "GET", 0, 500_000);
}

#[test]
fn an_upload_that_takes_longer_than_the_drain_is_logged_as_cut_off() {
    let mut weir = Weir::explicit("{server: {timeouts: {drain: 1s}}, logging: {format: json}}");
    let (tell, told) = std::sync::mpsc::channel();
    let server = http::server("127.0.0.1", move |mut stream| {
        http::read_head(&mut stream);
        assert_eq!(pattern::receive_at_most(&stream, 1, 500_000).expect("the beginning"), 500_000);
        tell.send(()).expect("the test waits");
        let _ = stream.read(&mut [0]);
    });
    let mut client = connect(weir.proxy);
    write!(client, "PUT http://{server}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
        .expect("weir takes it");
    pattern::send(&client, 1, 500_000).expect("weir takes it");
    told.recv_timeout(SOON).expect("the server has got the beginning");
    weir.signal(Signal::SIGTERM);
    assert_reset(&client);
    assert_eq!(weir.wait(), Some(0), "{}", weir.log());
    assert_logged(&weir, "PUT", 500_000, 0);
}

#[test]
fn a_second_signal_stops_at_once() {
    for pause in [0, 50, 300] {
        let mut weir = Weir::explicit("server: {timeouts: {drain: 1h}}");
        let (client, server) = weir.tunnel_ends();
        weir.signal(Signal::SIGTERM);
        eventually("weir stops", || weir.log().contains("stopping").then_some(()));
        std::thread::sleep(Duration::from_millis(pause));
        weir.signal(Signal::SIGTERM);
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket option");
            let error = (&*stream).read(&mut [0]).expect_err("a reset");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}, {pause} ms after the first");
        }
        assert_eq!(weir.wait(), Some(0), "{}", weir.log());
        assert_nothing_left(&weir);
    }
}

#[test]
fn a_weir_that_was_killed_does_not_hinder_the_next_one() {
    let weir = Weir::explicit("");
    let socket = weir.folder().join("state/admin.sock");
    weir.signal(Signal::SIGKILL);
    eventually("nobody listens", || TcpStream::connect(weir.admin).is_err().then_some(()));
    assert!(socket.exists(), "this test is about what is left behind");
    let next = Weir::explicit(&format!("admin: {{state_dir: '{}'}}", weir.folder().join("state").display()));
    assert_eq!(next.status()["running"], true);
    let state = std::fs::read_to_string(weir.folder().join("state/state.json")).expect("a state file");
    assert!(state.contains(&next.pid().to_string()), "{state}");
}

#[test]
fn two_weirs_do_not_share_a_folder_or_a_port() {
    let weir = Weir::explicit("");
    let state = weir.folder().join("state").display().to_string();
    let serve = |arguments: &[String]| {
        let mut command = Command::new(binary());
        command.args(["serve", "--set", "capture.mode=off", "--set", "server.port=0"]);
        for argument in arguments {
            command.args(["--set", argument]);
        }
        let output = command.output().expect("weir runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, error) = serve(&["admin.port=0".into(), format!("admin.state_dir={state}")]);
    assert!(code == Some(1) && error.contains("weir that is running"), "{error}");
    let folder = TempDir::new().expect("a temporary folder");
    let (code, error) = serve(&[
        format!("admin.port={}", weir.admin.port()),
        format!("admin.state_dir={}", folder.path().display()),
    ]);
    assert!(code == Some(1) && error.contains("another weir") && error.contains("admin.port"), "{error}");
    assert_eq!(weir.status()["running"], true, "the first one is undisturbed");
}

#[test]
fn who_is_connected_before_the_signal_is_served() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut weir = Weir::explicit("");
    let ask = |stream: &mut TcpStream| {
        write!(stream, "GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address).expect("weir takes it");
    };
    // While weir is stopped, nobody accepts: these are established and queued.
    weir.signal(Signal::SIGSTOP);
    let mut streams: Vec<_> = (0..400).map(|_| connect(weir.proxy)).collect();
    let (early, late) = streams.split_at_mut(200);
    early.iter_mut().for_each(ask);
    weir.signal(Signal::SIGTERM);
    weir.signal(Signal::SIGCONT);
    eventually("the listener is closed", || TcpStream::connect(weir.proxy).is_err().then_some(()));
    late.iter_mut().for_each(ask);
    for (number, stream) in streams.iter_mut().enumerate() {
        let answer = read_answer(stream, "GET").unwrap_or_else(|error| panic!("client {number}: {error}"));
        assert_eq!(answer.status, 200, "client {number}");
    }
    assert_eq!(weir.wait(), Some(0), "{}", weir.log());
}

#[test]
fn under_load_a_client_is_refused_or_served() {
    const CLIENTS: usize = 8;
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    let mut weir = Weir::explicit("logging: {access: false}");
    let (proxy, server) = (weir.proxy, origin.address);
    let request = format!("GET http://{server}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    // Each as fast as it can, until nobody listens any more. Returns how many were served.
    let client = move || {
        let mut count = 0;
        while let Ok(mut stream) = TcpStream::connect(proxy) {
            let answer = stream.write_all(request.as_bytes()).and_then(|()| http::read_to_end(&mut stream));
            match answer {
                Ok(answer) => assert_eq!(answer.status, 200),
                Err(error) => panic!("after {count} answers: {error}"),
            }
            count += 1;
        }
        count
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| std::thread::spawn(client.clone())).collect();
    eventually("the load is under way", || (origin.connections() > 300).then_some(()));
    weir.signal(Signal::SIGTERM);
    let served: Vec<usize> = clients.into_iter().map(|client| client.join().expect("all served")).collect();
    assert!(served.iter().all(|count| *count > 0), "{served:?}");
    assert_eq!(weir.wait(), Some(0), "{}", weir.log());
}

#[test]
fn a_worker_that_fails_stops_weir() {
    let folder = TempDir::new().expect("a temporary folder");
    let (port, admin) = (free_port(), free_port());
    let settings = [
        "capture.mode=off".to_owned(),
        format!("server.port={port}"),
        format!("server.port_range={port}-{port}"),
        format!("admin.port={admin}"),
        format!("admin.state_dir={}", folder.path().display()),
        "server.workers=64".to_owned(),
    ];
    // Enough descriptors for their listeners, not for their runtimes.
    let mut command = Command::new("timeout");
    command.args(["20", "prlimit", "--nofile=100:100"]).arg(binary()).arg("serve");
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    let output = command.output().expect("util-linux is installed");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("worker") && text.contains("Too many open files"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "nothing is left");
}
