//! What passes through a captured connection arrives as it was sent, and ends as it was ended.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::background::Background;
use weir_tests::weir::{SOON, Weir, eventually, reset};
use weir_tests::{http, leaks, netns, scripts};

const MIB: u64 = 1 << 20;

/// One side of a transfer: how many bytes it sends, and when.
type Part = (u64, &'static str);

/// Both ends must have sent what the other received.
#[track_caller]
fn check_transfer(weir: &Weir, client: Part, server: Part) {
    let listening =
        Background::start("stream.py", &["listen", netns::V4, &server.0.to_string(), server.1, "server"]);
    let (path, size) = (scripts::path("stream.py"), client.0.to_string());
    let connect = ["python3", &path, "connect", netns::V4, &listening.port, &size, client.1, "client"];
    let at_client = scripts::stdout(&mut weir.exec(&connect));
    let at_server = listening.end();
    let (client_sent, client_received) = at_client.split_once(' ').expect("two hashes");
    let (server_sent, server_received) = at_server.split_once(' ').expect("two hashes");
    assert_eq!((client_sent, client_received), (server_received, server_sent), "{client:?} {server:?}");
    assert!(client_sent.starts_with(&format!("{}:", client.0)), "{client_sent}");
    assert!(server_sent.starts_with(&format!("{}:", server.0)), "{server_sent}");
}

#[test]
fn bytes_and_half_closes_arrive_as_they_were_sent() {
    netns::enter();
    let weir = Weir::capturing("");
    let transfers: [(Part, Part); 7] = [
        ((64 * MIB, "send-first"), (0, "receive-first")),
        ((0, "receive-first"), (64 * MIB, "send-first")),
        ((64 * MIB, "together"), (64 * MIB, "together")),
        // What flows after the other side has ended its own.
        ((MIB + 1, "send-first"), (3 * MIB + 7, "receive-first")),
        ((3 * MIB + 7, "receive-first"), (MIB + 1, "send-first")),
        ((0, "send-first"), (5, "receive-first")),
        ((5, "receive-first"), (0, "send-first")),
    ];
    for (nth, (client, server)) in (1..).zip(transfers) {
        check_transfer(&weir, client, server);
        let flow = weir.flows(nth).pop().expect("a flow");
        assert_eq!((&flow["protocol"], &flow["end"]), (&"opaque".into(), &"complete".into()), "{flow:#}");
        assert_eq!((flow["sent"].as_u64(), flow["received"].as_u64()), (Some(client.0), Some(server.0)));
    }
    assert_eq!(weir.metric("lost_destinations_total"), 0);
}

#[test]
fn three_hundred_random_flows_are_exact() {
    netns::enter();
    let weir = Weir::capturing("");
    let files = weir.open_files();
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    let seed = std::env::var("WEIR_TEST_SEED").unwrap_or_else(|_| now.to_string());
    println!("WEIR_TEST_SEED={seed}");
    let listening = Background::start("mixed.py", &["listen", netns::V4]);
    let path = scripts::path("mixed.py");
    let connect = ["python3", &path, "connect", netns::V4, &listening.port, "300", &seed];
    assert_eq!(scripts::stdout(&mut weir.exec(&connect)), "no problem");
    assert_eq!(listening.end(), "no problem");
    assert_eq!(weir.metric("broken_tunnels_total"), 0);
    // Pipes for bulk are kept for the next transfer: at most 32 a worker.
    let workers = std::thread::available_parallelism().expect("a number of CPUs").get();
    leaks::check_none(&weir, files + 2 * 32 * workers);
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    netns::enter();
    let (ends, end) = mpsc::channel();
    let server = http::server(netns::V4, move |mut stream| {
        let mut line = String::new();
        let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
        reader.read_line(&mut line).expect("a mode");
        if line == "half-close\n" {
            assert_eq!(reader.read(&mut [0; 9]).expect("an end"), 0);
        }
        stream.write_all(b"hello").expect("the client is there");
        match line.trim() {
            "reset" => {
                let read = stream.read(&mut [0; 9]).map_err(|error| error.kind());
                ends.send(read).expect("the test waits");
            }
            _ => reset(stream),
        }
    });
    let weir = Weir::capturing("");
    let path = scripts::path("reset.py");
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let client = |mode: &str| scripts::stdout(&mut weir.exec(&["python3", &path, &host, &port, mode]));
    for mode in ["wait", "half-close"] {
        // A reset may overtake what was sent before it.
        let told = client(mode);
        assert!(["hello ECONNRESET", "nothing ECONNRESET"].contains(&told.as_str()), "{mode}: {told}");
    }
    assert_eq!(client("reset"), "hello reset");
    assert_eq!(end.recv_timeout(SOON).expect("the server sees an end"), Err(ErrorKind::ConnectionReset));
    assert_eq!(weir.metric("broken_tunnels_total"), 3);
}

#[test]
fn a_response_that_is_cut_off_never_looks_whole() {
    netns::enter();
    let weir = Weir::capturing("");
    let curl = |server: &SocketAddr, version: &str| {
        let mut command =
            weir.exec(&["curl", "-sS", "-o", "/dev/null", version, &format!("http://{server}/")]);
        command.status().expect("curl is installed").code().expect("an exit code")
    };
    let length: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this";
    let chunked: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n";
    let in_a_chunk: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nonly this";
    let until_close: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nonly this";
    let large = [length, &[b'x'; 500]].concat();
    for version in ["--http1.1", "--http1.0"] {
        for (response, resets) in [
            (length, false),
            (length, true),
            (&large, true),
            (chunked, false),
            (chunked, true),
            (in_a_chunk, false),
            (in_a_chunk, true),
            (until_close, true),
        ] {
            let response = response.to_vec();
            let shown = String::from_utf8_lossy(&response).into_owned();
            let server = http::server(netns::V4, move |mut stream| {
                http::read_head(&mut stream);
                let _ = stream.write_all(&response);
                // What was sent gets through before the reset.
                std::thread::sleep(Duration::from_millis(50));
                if resets {
                    reset(stream);
                }
            });
            // 18: partial file; 56: failure in receiving.
            let code = curl(&server, version);
            assert!(
                [18, 56].contains(&code),
                "{version}, reset: {resets}: curl exited with {code} after {shown}"
            );
        }
        // That same response with an end in order is whole.
        let server = http::server(netns::V4, move |mut stream| {
            http::read_head(&mut stream);
            let _ = stream.write_all(until_close);
        });
        assert_eq!(curl(&server, version), 0);
    }
}

/// The bytes of ever growing numbers, until the peer is gone or `size` is reached; `accepted` tells how far it is.
fn push_numbers(mut stream: TcpStream, size: u64, accepted: &AtomicU64) {
    let mut next = 0;
    while next * 8 < size {
        let block: Vec<u8> = (next..next + 8192).flat_map(u64::to_ne_bytes).collect();
        if stream.write_all(&block).is_err() {
            return;
        }
        next += 8192;
        accepted.store(next * 8, Ordering::Relaxed);
    }
}

/// Until nothing has changed for so long, a sender counts as stalled.
const STALLED: Duration = Duration::from_secs(1);

#[test]
fn a_slow_reader_holds_bounded_memory() {
    const SIZE: u64 = 256 * MIB;
    netns::enter();
    let accepted = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&accepted);
    let server = http::server(netns::V4, move |mut stream| {
        let _ = stream.read(&mut [0; 9]);
        push_numbers(stream, SIZE, &counting);
    });
    let weir = Weir::capturing("");
    let resident = weir.resident_kib();
    let path = scripts::path("slow.py");
    let mut client = weir
        .exec(&["python3", &path, &server.ip().to_string(), &server.port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let mut last = (0, Instant::now());
    let held = eventually("the server stalls", || {
        let now = accepted.load(Ordering::Relaxed);
        if now != last.0 || now == 0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > STALLED).then_some(now)
    });
    println!("held between the server and a client that does not read: {} KiB", held >> 10);
    assert!(held < 32 * MIB, "{held} bytes are on their way");
    let grown = weir.resident_kib().saturating_sub(resident);
    assert!(grown < 4096, "weir has grown by {grown} KiB");
    client.stdin.take().expect("a pipe").write_all(b"\n").expect("the client reads");
    let output = client.wait_with_output().expect("a child of ours");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), (SIZE / 8).to_string());
}

#[test]
fn a_server_may_speak_first() {
    netns::enter();
    let greet = |mut stream: TcpStream| {
        let _ = stream.write_all(b"220 at your service\r\n");
        let mut line = String::new();
        let _ = BufReader::new(stream).read_line(&mut line);
    };
    let (known, unknown) = (http::server(netns::V4, greet), http::server(netns::V4, greet));
    let greeting = |weir: &Weir, server: &SocketAddr| {
        let script = format!(
            "import client; s = client.connect('{}', {}); print(s.recv(99).decode().strip())",
            server.ip(),
            server.port()
        );
        scripts::stdout(&mut weir.exec(&scripts::python(&script)))
    };
    let weir = Weir::capturing("");
    assert_eq!(greeting(&weir, &unknown), "220 at your service");
    // A port that is known for it does not wait for the client at all.
    let patient = format!("capture: {{detect_timeout: 10s, server_first_ports: [{}]}}", known.port());
    let weir = Weir::capturing(&patient);
    let began = Instant::now();
    assert_eq!(greeting(&weir, &known), "220 at your service");
    assert!(began.elapsed() < SOON / 2, "it took {:?}", began.elapsed());
}

#[test]
fn a_reset_while_weir_looks_does_not_become_an_end() {
    netns::enter();
    let weir = Weir::capturing("capture: {detect_timeout: 10s}");
    let (tell, told) = mpsc::channel();
    let server = http::server(netns::V4, move |mut stream| {
        let _ = tell.send(stream.read(&mut [0; 99]).map_err(|error| error.kind()));
    });
    let script = format!(
        "import client, socket, struct, time\n\
         s = client.connect('{}', {})\n\
         time.sleep(0.3)\n\
         s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\n\
         s.close()",
        server.ip(),
        server.port()
    );
    scripts::stdout(&mut weir.exec(&scripts::python(&script)));
    let flow = &weir.flows(1)[0];
    assert_eq!((&flow["end"], &flow["upstream"]), (&"the client closed the connection".into(), &Value::Null));
    assert_eq!(told.try_recv().ok(), None, "the server hears of nothing, and of no end in particular");
}
