//! What a tunnel does with bytes and with ends: nothing lost, nothing invented, and a reset is a reset.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use weir_tests::pattern;
use weir_tests::weir::{SOON, Weir, assert_reset, eventually, reset};

const BULK: u64 = 64 << 20;

#[test]
fn bulk_passes_unharmed_in_both_directions_at_once() {
    let weir = Weir::explicit("");
    let (client, server) = weir.tunnel_ends();
    std::thread::scope(|scope| {
        let up = scope.spawn(|| pattern::receive(&server, 1));
        let down = scope.spawn(|| pattern::receive(&client, 2));
        scope.spawn(|| {
            pattern::send(&client, 1, BULK).expect("weir takes it");
            client.shutdown(Shutdown::Write).expect("a half-close");
        });
        scope.spawn(|| {
            pattern::send(&server, 2, BULK).expect("weir takes it");
            server.shutdown(Shutdown::Write).expect("a half-close");
        });
        assert_eq!(up.join().expect("a thread").expect("the client's bytes"), BULK);
        assert_eq!(down.join().expect("a thread").expect("the server's bytes"), BULK);
    });
    let flow = &weir.flows(1)[0];
    assert_eq!((flow["sent"].as_u64(), flow["received"].as_u64()), (Some(BULK), Some(BULK)), "{flow}");
    assert_eq!(flow["end"], "complete", "{flow}");
    assert_eq!((weir.metric("sent_bytes_total"), weir.metric("received_bytes_total")), (BULK, BULK));
    assert_eq!(weir.metric("broken_tunnels_total"), 0);
}

#[test]
fn bulk_passes_unharmed_in_either_direction_alone() {
    let weir = Weir::explicit("");
    for client_sends in [true, false] {
        let (client, server) = weir.tunnel_ends();
        let (from, to) = if client_sends { (&client, &server) } else { (&server, &client) };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pattern::send(from, 3, BULK).expect("weir takes it");
                from.shutdown(Shutdown::Write).expect("a half-close");
            });
            assert_eq!(pattern::receive(to, 3).expect("the bytes"), BULK);
        });
    }
}

/// One side ends its stream first; the other may still say something, and ends then.
#[track_caller]
fn check_half_close(weir: &Weir, first_is_client: bool) {
    let (client, server) = weir.tunnel_ends();
    let (first, second) = if first_is_client { (client, server) } else { (server, client) };
    pattern::send(&first, 4, 100_000).expect("weir takes it");
    first.shutdown(Shutdown::Write).expect("a half-close");
    assert_eq!(pattern::receive(&second, 4).expect("the bytes, and a clean end"), 100_000);
    // The other direction lives on.
    for seed in [5, 6] {
        pattern::send(&second, seed, 50_000).expect("weir takes it");
        assert_eq!(pattern::receive_at_most(&first, seed, 50_000).expect("the answer"), 50_000);
    }
    second.shutdown(Shutdown::Write).expect("a half-close");
    assert_eq!((&first).read(&mut [0]).expect("a clean end"), 0);
}

#[test]
fn either_side_may_end_first() {
    let weir = Weir::explicit("");
    check_half_close(&weir, true);
    check_half_close(&weir, false);
    let flows = weir.flows(2);
    assert!(flows.iter().all(|flow| flow["end"] == "complete"), "{flows:?}");
    assert_eq!(weir.metric("broken_tunnels_total"), 0);
}

#[test]
fn a_reset_reaches_the_other_side() {
    let weir = Weir::explicit("");
    let cases = [(true, false), (false, false), (true, true), (false, true)];
    for (number, (resetting_client, after_half_close)) in cases.into_iter().enumerate() {
        let (client, server) = weir.tunnel_ends();
        let (one, other) = if resetting_client { (client, server) } else { (server, client) };
        (&one).write_all(b"last words").expect("weir takes it");
        let mut words = [0; 10];
        (&other).read_exact(&mut words).expect("the words");
        if after_half_close {
            one.shutdown(Shutdown::Write).expect("a half-close");
            assert_eq!((&other).read(&mut [0]).expect("a clean end of this direction"), 0);
            reset(one);
            // With FIN received, the reset shows in what is sent next.
            let sent = eventually("a reset", || (&other).write_all(b"x").err());
            assert!(
                matches!(sent.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
                "{sent}"
            );
        } else {
            reset(one);
            assert_reset(&other);
        }
        let flow = weir.flows(number + 1).pop().expect("a flow");
        let end = flow["end"].as_str().unwrap_or_default();
        let side = if resetting_client { "downstream: " } else { "upstream: " };
        assert!(end.starts_with(side), "{flow}");
    }
    assert_eq!(weir.metric("broken_tunnels_total"), 4);
}

#[test]
fn a_killed_weir_resets_both_ends() {
    let weir = Weir::explicit("");
    let idle = weir.tunnel_ends();
    let half_closed = weir.tunnel_ends();
    half_closed.0.shutdown(Shutdown::Write).expect("a half-close");
    assert_eq!((&half_closed.1).read(&mut [0]).expect("a clean end of this direction"), 0);
    let busy = weir.tunnel_ends();
    pattern::send(&busy.0, 7, 30_000).expect("weir takes it");
    pattern::receive_at_most(&busy.1, 7, 10_000).expect("the beginning");
    weir.signal(Signal::SIGKILL);
    assert_reset(&idle.0);
    assert_reset(&idle.1);
    assert_reset(&half_closed.0);
    assert_reset(&busy.0);
    assert_reset(&busy.1);
}

/// The resident memory that weir may take for a reader that does not read.
const STALLED_KIB: u64 = 8 << 10;

/// What may be under way to it: 5 MiB in weir's two sockets and its pipe, the rest in the sockets of its peers, who
/// leave theirs to the kernel (4 MiB to send, 6 MiB or more to receive).
const STALLED_BYTES: usize = 16 << 20;

/// Sends until nothing more is taken; how much that was.
fn send_until_stuck(mut to: &TcpStream, bytes: &[u8]) -> usize {
    to.set_write_timeout(Some(Duration::from_millis(500))).expect("a socket option");
    let mut sent = 0;
    while sent < bytes.len() {
        match to.write(&bytes[sent..(sent + (64 << 10)).min(bytes.len())]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("after {sent} bytes: {error}"),
        }
    }
    to.set_write_timeout(Some(SOON)).expect("a socket option");
    sent
}

#[test]
fn a_reader_that_does_not_read_holds_little() {
    const PUSHED: usize = 256 << 20;
    let weir = Weir::explicit("");
    let before = weir.resident_kib();
    let bytes = pattern::Pattern::bytes(8, PUSHED);
    for client_sends in [false, true] {
        let (client, server) = weir.tunnel_ends();
        let (from, to) = if client_sends { (&client, &server) } else { (&server, &client) };
        let taken = send_until_stuck(from, &bytes);
        let grown = weir.resident_kib().saturating_sub(before);
        eprintln!("client sends: {client_sends}; taken from the sender: {taken} bytes, grown by {grown} KiB");
        assert!(taken < STALLED_BYTES, "{taken} bytes were taken for a reader that does not read");
        assert!(grown < STALLED_KIB, "weir grew by {grown} KiB");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut from = from;
                from.write_all(&bytes[taken..]).expect("weir takes the rest");
                from.shutdown(Shutdown::Write).expect("a half-close");
            });
            assert_eq!(pattern::receive(to, 8).expect("all bytes"), PUSHED as u64);
        });
    }
}

#[test]
fn a_slow_sender_is_passed_on_at_once() {
    let weir = Weir::explicit("");
    let (mut client, mut server) = weir.tunnel_ends();
    for byte in 0..=255_u8 {
        client.write_all(&[byte]).expect("weir takes it");
        let mut received = [0];
        server.read_exact(&mut received).expect("the byte");
        server.write_all(&received).expect("weir takes it");
        client.read_exact(&mut received).expect("the byte");
        assert_eq!(received, [byte]);
    }
}

#[test]
fn an_idle_tunnel_is_reset_in_the_end() {
    let weir = Weir::explicit("server: {timeouts: {tunnel_idle: 1s}}");
    let (client, server) = weir.tunnel_ends();
    // A tunnel that moves something in one direction is not idle.
    for _ in 0..8 {
        (&client).write_all(b"x").expect("weir takes it");
        (&server).read_exact(&mut [0]).expect("the byte");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_reset(&client);
    assert_reset(&server);
    let flow = &weir.flows(1)[0];
    assert!(flow["end"].as_str().is_some_and(|end| end.contains("tunnel_idle")), "{flow}");
}
