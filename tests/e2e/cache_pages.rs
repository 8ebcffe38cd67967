//! Large bodies in memory, which the kernel sends from where they lie: what arrives is what was stored, whatever becomes of
//! the entry on the way, and however it goes out.

use std::io::Write;
use std::net::TcpStream;

use socket2::SockRef;
use weir_tests::http::Answer;
use weir_tests::origin::{Origin, Request, read_answer};
use weir_tests::pattern::Pattern;
use weir_tests::weir::{Weir, connect};

/// A quarter of the store.
const LENGTH: usize = 4_000_003;

/// The content at a path is the one that its number stands for.
fn origin() -> Origin {
    Origin::start(|request: &Request| {
        let seed = request.head.split([' ', '/']).find_map(|part| part.parse().ok()).unwrap_or(0);
        let head =
            format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: {LENGTH}\r\n\r\n");
        [head.as_bytes(), &Pattern::bytes(seed, LENGTH)].concat()
    })
}

fn asked(weir: &Weir, origin: &Origin, number: u64) -> TcpStream {
    let client = connect(weir.proxy);
    // Most of it waits in weir until the client reads.
    SockRef::from(&client).set_recv_buffer_size(64 << 10).expect("a smaller buffer");
    write!(&client, "GET http://{}/{number} HTTP/1.1\r\nHost: x\r\n\r\n", origin.address)
        .expect("weir takes it");
    client
}

fn get(weir: &Weir, origin: &Origin, number: u64) -> Answer {
    read_answer(&mut asked(weir, origin, number), "GET").expect("an answer")
}

#[test]
fn what_is_evicted_or_purged_on_its_way_arrives_as_it_was() {
    let weir = Weir::explicit("cache: {enabled: true, max_memory: 20MB, max_object: 5MB}");
    let origin = origin();
    assert!(get(&weir, &origin, 1).body == Pattern::bytes(1, LENGTH));
    let mut clients: Vec<_> = (0..8).map(|_| asked(&weir, &origin, 1)).collect();
    // All have begun: each has the beginning of a hit.
    for client in &clients {
        let mut first = [0; 1];
        assert_eq!(client.peek(&mut first).expect("an answer"), 1);
    }
    let purged = weir.command(&["cache", "purge", "127.0.0.1"]).output();
    assert!(purged.expect("weir runs").status.success());
    for number in 2..12 {
        assert!(get(&weir, &origin, number).body == Pattern::bytes(number, LENGTH), "{number}");
    }
    for client in &mut clients {
        let answer = read_answer(client, "GET").expect("an answer");
        assert!(answer.field("cache-status").is_some_and(|status| status.starts_with("weir; hit")));
        assert!(answer.body == Pattern::bytes(1, LENGTH), "{} bytes", answer.body.len());
    }
}

#[test]
fn http2_and_old_clients_and_ranges_get_the_same_bytes() {
    let origin = origin();
    let backend =
        format!("cache: {{enabled: true}}\nrouting: {{default_backend: 'http://{}'}}", origin.address);
    let weir = Weir::explicit(&backend);
    let content = Pattern::bytes(5, LENGTH);
    let (url, gateway) = (format!("http://{}/5", origin.address), format!("http://{}/5", weir.proxy));
    assert!(get(&weir, &origin, 5).body == content);
    let out = weir.folder().join("out");
    let path = out.to_str().expect("a path");
    let ways: [(&[&str], std::ops::Range<usize>); 5] = [
        (&["-x", "", "--http2-prior-knowledge", &gateway], 0..LENGTH),
        (&["-0", &url], 0..LENGTH),
        (&["-r", "1-70000", &url], 1..70_001),
        (&["-r", "3999999-", &url], 3_999_999..LENGTH),
        (&["-r", "1048575-2097152", &url], 1_048_575..2_097_153),
    ];
    for (way, expected) in ways {
        let output = weir.curl(&[way, &["-f", "-o", path]].concat()).output().expect("curl runs");
        assert!(output.status.success(), "{way:?}: {output:?}");
        let got = std::fs::read(&out).expect("what curl wrote");
        assert!(got == content[expected], "{way:?}: {} bytes", got.len());
    }
    assert!(origin.requests().len() <= 2, "the gateway's answers are another's than the proxy's");
}
