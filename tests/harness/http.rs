//! The least of an HTTP client and server that tests need: one request a connection, nothing hidden.

use std::any::Any;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// A response, taken apart.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a field, compared in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        crate::origin::field(&self.head, name)
    }
}

/// GET from a server.
pub fn get(server: SocketAddr, path: &str) -> io::Result<Answer> {
    send(server, format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").as_bytes())
}

/// Sends bytes, and reads until the connection ends. A reset after a whole answer is an error all the same.
pub fn send(server: SocketAddr, bytes: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(bytes)?;
    read_to_end(&mut stream)
}

/// Reads an answer that ends with its connection.
pub fn read_to_end(stream: &mut impl Read) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end =
        bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, head, body: bytes[end + 4..].to_vec() })
}

/// A server of a test, which goes on until the test ends. Dropping it does not stop it, but fails the test if one
/// of its threads has panicked by then: what a server asserts is part of the test.
#[must_use = "what its threads assert counts only where it is dropped"]
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// What the first thread that panicked said.
    failure: Arc<Mutex<Option<String>>>,
}

/// Serves every connection to a new port of `host` with `serve`, each in a thread.
pub fn server(host: &str, serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> Server {
    let listener = TcpListener::bind((host, 0)).expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let failure = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&failure);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (serve, noted) = (serve.clone(), Arc::clone(&noted));
            thread::spawn(move || {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| serve(stream))) {
                    let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    noted.get_or_insert_with(|| message(&*panic));
                }
            });
        }
    });
    Server { address, failure }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

impl Deref for Server {
    type Target = SocketAddr;

    fn deref(&self) -> &SocketAddr {
        &self.address
    }
}

impl fmt::Display for Server {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(text)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A second panic would abort the whole program, and hide the first.
        if thread::panicking() {
            return;
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(failure) = failure {
            panic!("a thread of the server {} has failed: {failure}", self.address);
        }
    }
}

/// Reads one request's head, up to and with the empty line.
pub fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "has failed: the client said \"hello\"")]
    fn what_a_server_asserts_fails_its_test() {
        let server = server("127.0.0.1", |mut stream| {
            let mut said = String::new();
            let _ = stream.read_to_string(&mut said);
            assert!(said.is_empty(), "the client said {said:?}");
        });
        let failure = Arc::clone(&server.failure);
        TcpStream::connect(*server).and_then(|mut stream| stream.write_all(b"hello")).expect("a server");
        crate::weir::eventually("a failure", || failure.lock().expect("no panic").is_some().then_some(()));
    }
}
