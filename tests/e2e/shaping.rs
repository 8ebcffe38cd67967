//! Bytes a second, of a client and of a context, both ways: what is shaped takes its time, and arrives whole.
//!
//! A busy machine makes things slower, never faster: so only the least time is asserted.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use weir_tests::origin::Origin;
use weir_tests::weir::Weir;

const MIB: usize = 1 << 20;

/// What passes at once, and the piece that is under way when the rate is used up.
const AT_ONCE: f64 = 0.25;

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|index| u8::try_from(index % 251).expect("below 251")).collect()
}

fn download(size: usize) -> Origin {
    let answer =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes(), bytes(size)].concat();
    Origin::start(move |request| {
        if request.method() == "POST" {
            return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
        }
        answer.clone()
    })
}

/// Runs it, and requires that it takes as long as so many bytes take at a MiB a second.
#[track_caller]
fn at_a_mib_a_second(size: usize, run: impl FnOnce()) {
    let began = Instant::now();
    run();
    #[expect(clippy::cast_precision_loss, reason = "a few MiB")]
    let least = size as f64 / MIB as f64 - AT_ONCE - 0.3;
    let took = began.elapsed();
    assert!(took >= Duration::from_secs_f64(least), "{size} bytes took {took:?}, less than {least} s");
}

fn curl(weir: &Weir, more: &[&str]) -> Vec<u8> {
    let output = weir.curl(more).output().expect("curl runs");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn bodies_keep_to_the_rate_both_ways_all_connections_together() {
    let weir = Weir::explicit("security: {rate_limiting: {upload: 1MiB, download: 1MiB}}");
    let size = 2 * MIB;
    let origin = download(size);
    let url = format!("http://{}/", origin.address);
    at_a_mib_a_second(size, || assert!(curl(&weir, &[&url]) == bytes(size), "it has changed"));
    let file = weir.folder().join("body");
    std::fs::write(&file, bytes(size)).expect("written");
    let data = format!("@{}", file.display());
    at_a_mib_a_second(size, || drop(curl(&weir, &["-H", "Expect:", "--data-binary", &data, &url])));
    assert!(origin.requests().last().is_some_and(|request| request.body == bytes(size)));
    // Two connections share what there is.
    at_a_mib_a_second(2 * size, || {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert!(curl(&weir, &[&url]) == bytes(size), "it has changed"));
            }
        });
    });
}

fn receive(mut stream: TcpStream, size: usize) {
    let mut got = vec![0; size];
    stream.read_exact(&mut got).expect("all of it");
    assert!(got == bytes(size), "it has changed");
}

#[test]
fn tunnels_keep_to_the_rate_both_ways() {
    let weir = Weir::explicit(
        "security: {acl: {destinations: {loopback: allow}}, rate_limiting: {upload: 1MiB, download: 1MiB}}",
    );
    let size = 2 * MIB;
    let (client, server) = weir.tunnel_ends();
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (mut from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
        at_a_mib_a_second(size, || {
            std::thread::scope(|scope| {
                scope.spawn(move || from.write_all(&bytes(size)).expect("weir takes it"));
                scope.spawn(move || receive(to, size));
            });
        });
    }
}

#[test]
fn a_context_may_have_a_rate_of_its_own() {
    let weir = Weir::explicit("security: {auth: {mode: optional}}");
    let context = |rate: &[&str]| {
        let arguments = [&["context", "create", "--json"], rate].concat();
        let output = weir.command(&arguments).output().expect("weir runs");
        let made: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        format!(
            "{}:{}",
            made["username"].as_str().expect("a name"),
            made["password"].as_str().expect("a password")
        )
    };
    let size = 2 * MIB;
    let origin = download(size);
    let url = format!("http://{}/", origin.address);
    let (slow, fast) = (context(&["--download", "1MiB"]), context(&["--requests-per-second", "50"]));
    at_a_mib_a_second(size, || assert!(curl(&weir, &["-U", &slow, &url]) == bytes(size)));
    // Nobody else waits for it.
    assert!(curl(&weir, &["-U", &fast, &url]) == bytes(size));
    assert!(curl(&weir, &[&url]) == bytes(size));
    for (rate, why) in
        [(["--download", "0"], "download"), (["--upload", "much"], "upload"), (["--burst", "1"], "burst")]
    {
        let output = weir.command(&[&["context", "create"], &rate[..]].concat()).output().expect("weir runs");
        assert!(
            !output.status.success() && String::from_utf8_lossy(&output.stderr).contains(why),
            "{output:?}"
        );
    }
}
