//! Who waits for whom: clients that talk on, servers that take their time, peers that go away meanwhile.

use std::io::Write;

use weir_tests::http;
use weir_tests::origin::{Origin, chunk};
use weir_tests::weir::{Weir, connect};

/// Many programs write all of a body before they read, and look at no error until then.
#[test]
fn a_client_that_reads_only_after_all_was_written_gets_its_413() {
    const PIECES: usize = 1024;
    let weir = Weir::explicit("server: {limits: {body: 1000}}");
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let plain = vec![b'x'; 64 << 10];
    let sized = format!("Content-Length: {}", PIECES * plain.len());
    let chunked = "Transfer-Encoding: chunked".to_owned();
    for (framing, piece) in [(sized, plain.clone()), (chunked, chunk(&plain))] {
        let mut client = connect(weir.proxy);
        write!(client, "POST http://{}/ HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n", origin.address)
            .expect("weir takes the head");
        let failed = (0..PIECES).filter(|_| client.write_all(&piece).is_err()).count();
        // RFC 9112 §9.6: closing with a reset can destroy the answer before it is read.
        let answer = http::read_to_end(&mut client);
        let answer = answer.unwrap_or_else(|error| panic!("{framing}: {failed} writes failed; {error}"));
        assert_eq!(answer.status, 413, "{framing}: {}", answer.head);
        assert!(answer.text().contains("server.limits.body"), "{framing}: {}", answer.text());
    }
    assert!(origin.requests().is_empty());
}
