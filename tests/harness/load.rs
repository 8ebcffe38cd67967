//! Load under which something is done to a weir: short requests, one connection each, and transfers that last until they
//! are told to end. Each client checks what it gets, and counts; the origin tells whether a request came by way of weir.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::http::{self, Server};
use crate::origin::field;
use crate::scripts;
use crate::weir::Weir;

/// Lines of a long transfer, of 18 bytes each.
const LINES: u32 = 30_000;

/// Between two lines of a transfer that may not end yet.
const TRICKLE: Duration = Duration::from_millis(50);

/// Short requests: as many threads, each with this pause between two.
const THREADS: &str = "8";
const PAUSE: &str = "0.008";

/// An origin for both.
pub struct Load {
    origin: Server,
    released: Arc<AtomicBool>,
}

/// Clients that run.
pub struct Clients {
    child: Child,
    output: BufReader<ChildStdout>,
}

/// Which way clients take.
#[derive(Clone, Copy)]
pub enum Way {
    Captured,
    Explicit,
}

impl Load {
    pub fn on(host: &str) -> Self {
        let released = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&released);
        let origin = http::server(host, move |stream| {
            // A client that was cut off says so.
            let _ = answer(stream, &flag);
        });
        Self { origin, released }
    }

    /// Lets the long transfers end.
    pub fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
    }

    /// One request after the other, about 500 each second if the machine can.
    pub fn short(&self, weir: &Weir, way: Way) -> Clients {
        self.start(weir, way, "short", &[THREADS, PAUSE])
    }

    /// So many transfers; they are all under way when this returns.
    pub fn long(&self, weir: &Weir, way: Way, count: usize) -> Clients {
        self.start(weir, way, "long", &[&count.to_string()])
    }

    fn start(&self, weir: &Weir, way: Way, mode: &str, rest: &[&str]) -> Clients {
        let (host, port) = (self.origin.ip().to_string(), self.origin.port().to_string());
        let (path, proxy) = (scripts::path("load.py"), weir.proxy.to_string());
        let mut command = match way {
            Way::Captured => weir.exec(&["python3", &path, mode, &host, &port, "-"]),
            Way::Explicit => {
                let mut command = Command::new("python3");
                command.args([&path, mode, &host, &port, &proxy]);
                command
            }
        };
        let command = command.args(rest).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is installed");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert_eq!(line, "under way\n");
        Clients { child, output }
    }
}

impl Clients {
    /// Ends short requests, waits for the end of transfers; what came of them.
    #[track_caller]
    pub fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("what came of it");
        let status = self.child.wait().expect("a child of ours");
        assert!(status.success(), "{status}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

fn answer(mut stream: TcpStream, released: &AtomicBool) -> io::Result<()> {
    let head = http::read_head(&mut stream);
    let path = head.split(' ').nth(1).unwrap_or_default();
    if let Some(number) = path.strip_prefix("/long/").and_then(|number| number.parse().ok()) {
        return transfer(stream, number, released);
    }
    let way = if field(&head, "via").is_some() { "weir" } else { "direct" };
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{way}", way.len())
}

fn transfer(mut stream: TcpStream, number: u32, released: &AtomicBool) -> io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", LINES * 18)?;
    let lines =
        |from: u32, to: u32| (from..to).map(|line| format!("{number:08x} {line:08x}\n")).collect::<String>();
    let mut sent = LINES / 2;
    stream.write_all(lines(0, sent).as_bytes())?;
    while !released.load(Ordering::Relaxed) && sent < LINES - 1 {
        std::thread::sleep(TRICKLE);
        stream.write_all(lines(sent, sent + 1).as_bytes())?;
        sent += 1;
    }
    stream.write_all(lines(sent, LINES).as_bytes())
}
