//! A server that tells each client under which address it sees it. `e2e/scripts/client.py` is its client.

use std::io::{BufRead, BufReader, Write};

use crate::http::{self, Server};

/// Serves a new port of `host` until the test ends: a line in, the client's address out.
pub fn server(host: &str) -> Server {
    http::server(host, |mut stream| {
        let mut line = String::new();
        let (Ok(peer), Ok(reader)) = (stream.peer_addr(), stream.try_clone()) else { return };
        // A client that is gone needs no answer.
        if BufReader::new(reader).read_line(&mut line).is_ok() {
            let _ = write!(stream, "{peer}");
        }
    })
}
