//! Many tunnels and requests at once: bytes stay with their own, and nothing is left behind.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use weir_tests::http::{self, Server};
use weir_tests::origin::{self, Origin};
use weir_tests::pattern::{self, Pattern};
use weir_tests::weir::{Weir, connect, eventually};

/// Reads 24 bytes that say what to expect and what to answer, and does both.
fn scripted_server() -> Server {
    http::server("127.0.0.1", |stream| {
        let mut orders = [0; 24];
        if std::io::Read::read_exact(&mut (&stream), &mut orders).is_err() {
            return;
        }
        let word = |at: usize| u64::from_le_bytes(orders[at..at + 8].try_into().expect("8 bytes"));
        let (seed, up, down) = (word(0), word(8), word(16));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pattern::send(&stream, seed + 1, down).expect("weir takes it");
                stream.shutdown(Shutdown::Write).expect("a half-close");
            });
            assert_eq!(pattern::receive(&stream, seed).expect("the client's bytes"), up, "seed {seed}");
        });
    })
}

/// A size from 0 to some MiB; small ones are as likely as large ones.
fn size(random: &mut Pattern) -> u64 {
    let bits = random.number(22);
    random.number(1 << bits)
}

fn mixed_tunnel(weir: &Weir, server: SocketAddr, seed: u64) {
    let mut random = Pattern::new(seed);
    let (up, down) = (size(&mut random), size(&mut random));
    let mut client = weir.tunnel(server);
    let orders: Vec<u8> = [seed, up, down].iter().flat_map(|word| word.to_le_bytes()).collect();
    client.write_all(&orders).expect("weir takes it");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pattern::send(&client, seed, up).expect("weir takes it");
            client.shutdown(Shutdown::Write).expect("a half-close");
        });
        assert_eq!(pattern::receive(&client, seed + 1).expect("the server's bytes"), down, "seed {seed}");
    });
}

fn mixed_request(weir: &Weir, origin: &Origin, seed: u64) {
    let mut random = Pattern::new(seed);
    let body = Pattern::bytes(seed, usize::try_from(size(&mut random)).expect("a size"));
    let chunked = random.number(2) == 0;
    let (framing, encoded) = match chunked {
        true => ("Transfer-Encoding: chunked".to_owned(), origin::chunked(&body)),
        false => (format!("Content-Length: {}", body.len()), body.clone()),
    };
    let head = format!("POST http://{}/ HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n", origin.address);
    let mut stream = connect(weir.proxy);
    let mut writer = stream.try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(&[head.as_bytes(), &encoded].concat()).expect("weir takes it"));
        let answer = origin::read_answer(&mut stream, "POST").expect("an answer");
        assert!(answer.status == 200 && answer.body == body, "seed {seed}: {}", answer.head);
    });
}

#[test]
fn mixed_flows_keep_their_bytes() {
    const FLOWS: u64 = 300;
    const AT_ONCE: usize = 16;
    let weir = Weir::explicit("");
    let server = scripted_server();
    let origin = Origin::start(|request| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        [head.as_bytes(), &origin::chunked(&request.body)].concat()
    });
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    let seed = std::env::var("WEIR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(since.as_secs());
    eprintln!("WEIR_TEST_SEED={seed}");
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let number = next.fetch_add(1, Ordering::Relaxed) as u64
                    && number < FLOWS
                {
                    let seed = seed.wrapping_mul(1000).wrapping_add(number * 2);
                    match number % 3 {
                        0 => mixed_request(&weir, &origin, seed),
                        _ => mixed_tunnel(&weir, *server, seed),
                    }
                }
            });
        }
    });
    let flows = weir.flows(FLOWS as usize);
    let incomplete: Vec<_> = flows.iter().filter(|flow| flow["end"] != "complete").collect();
    assert!(incomplete.is_empty(), "{incomplete:?}");
    assert_eq!((flows.len(), weir.metric("broken_tunnels_total")), (FLOWS as usize, 0));
    eventually("all connections ended", || (weir.status()["active_connections"] == 0).then_some(()));
}

#[test]
fn idle_tunnels_leave_nothing_behind() {
    const TUNNELS: usize = 1000;
    let weir = Weir::explicit("");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = listener.local_addr().expect("a bound socket");
    let open = |count: usize| {
        let opened = (0..count).map(|_| {
            let client = weir.tunnel(server);
            (client, listener.accept().expect("weir has connected").0)
        });
        opened.collect::<Vec<_>>()
    };
    // The first ones also pay for what stays: buffers, pools, tables.
    drop(open(50));
    let all_closed = || (weir.status()["active_connections"] == 0).then_some(());
    eventually("all connections ended", all_closed);
    let (files, memory) = (weir.open_files(), weir.resident_kib());
    let tunnels = open(TUNNELS);
    assert_eq!(weir.status()["active_connections"], TUNNELS);
    // Two sockets and no pipe each; connections to the admin API come and go.
    let more = weir.open_files().saturating_sub(files);
    assert!(more.abs_diff(2 * TUNNELS) < 10, "{more} descriptors for {TUNNELS} idle tunnels");
    let grown = weir.resident_kib().saturating_sub(memory);
    eprintln!("{} bytes of memory for each idle tunnel", (grown << 10) / TUNNELS as u64);
    assert!(grown < 8 * TUNNELS as u64, "{grown} KiB for {TUNNELS} idle tunnels");
    // They are alive, all of them.
    for (number, (client, server)) in tunnels.iter().enumerate() {
        pattern::send(client, number as u64, 10).expect("weir takes it");
        assert_eq!(pattern::receive_at_most(server, number as u64, 10).expect("the bytes"), 10);
    }
    drop(tunnels);
    eventually("all connections ended", all_closed);
    eventually("all files closed", || (weir.open_files() <= files).then_some(()));
    assert_eq!((weir.metric("tunnels_total"), weir.metric("dropped_flows_total")), (TUNNELS as u64 + 50, 0));
}
