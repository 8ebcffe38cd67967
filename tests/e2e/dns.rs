//! A resolver that does not answer: weir says so, and can be stopped all the same.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;

use nix::sys::signal::Signal;
use weir_tests::weir::{Weir, eventually};
use weir_tests::{http, netns};

/// The system's nameservers, in this thread's network namespace: they take questions and answer none.
fn black_holes() -> Vec<UdpSocket> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let named = text.lines().filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok());
    let named: Vec<Ipv4Addr> = named.collect();
    // resolv.conf(5): without any, it is the local machine's.
    let addresses = if named.is_empty() { vec![Ipv4Addr::LOCALHOST] } else { named };
    let bound = addresses.into_iter().map(|address| {
        if !address.is_loopback() {
            let arguments = ["addr", "replace", &format!("{address}/32"), "dev", "lo"];
            let status = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
            assert!(status.success(), "{status}");
        }
        UdpSocket::bind((address, 53)).expect("a free port")
    });
    bound.collect()
}

#[test]
fn names_that_hang_keep_nobody_from_stopping() {
    netns::enter();
    let silent = black_holes();
    let mut weir = Weir::explicit("server: {timeouts: {drain: 200ms}}");
    let proxy = weir.proxy;
    let clients: Vec<_> = (0..3)
        .map(|number| {
            let host = format!("hangs-{number}.example");
            let request = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
            std::thread::spawn(move || http::send(proxy, request.as_bytes()))
        })
        .collect();
    silent[0].set_read_timeout(Some(weir_tests::weir::SOON)).expect("a socket option");
    silent[0].recv(&mut [0; 512]).expect("weir's question");
    eventually("all clients are served", || (weir.status()["active_connections"] == 3).then_some(()));
    weir.signal(Signal::SIGTERM);
    // getaddrinfo goes on for longer than weir may: 10 s with the usual settings.
    let began = std::time::Instant::now();
    assert_eq!(weir.wait(), Some(0), "{}", weir.log());
    assert!(began.elapsed().as_secs() < 4, "weir took {:?} to stop", began.elapsed());
    for client in clients {
        assert!(client.join().expect("no panic").is_err(), "reset, as weir has stopped");
    }
}
