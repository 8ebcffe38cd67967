//! HTTP/1 messages read one at a time, and a server that notes what it was sent. Meant for tests of well-formed
//! exchanges; a test of anything else speaks to the socket itself.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::http::{self, Answer, Server};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// The value of a field of a head, compared in any case.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Reads one request. None: the connection ended between requests.
pub fn read_request(stream: &mut TcpStream) -> io::Result<Option<Request>> {
    let head = http::read_head(stream);
    if head.is_empty() {
        return Ok(None);
    }
    let body = if is_framed(&head) { read_body(stream, &head)? } else { Vec::new() };
    Ok(Some(Request { head, body }))
}

/// Reads one answer to a request with `method`, and nothing behind it.
pub fn read_answer(stream: &mut TcpStream, method: &str) -> io::Result<Answer> {
    let head = http::read_head(stream);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, head.clone()))?;
    let bodiless = method == "HEAD" || matches!(status, 100..=199 | 204 | 304);
    let body = if bodiless { Vec::new() } else { read_body(stream, &head)? };
    Ok(Answer { status, head, body })
}

/// The frame of one chunk.
pub fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// A whole body in the chunked coding, in pieces of different sizes.
pub fn chunked(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 64);
    let (mut rest, mut size) = (body, 1);
    while !rest.is_empty() {
        let (piece, others) = rest.split_at(size.min(rest.len()));
        out.extend_from_slice(&chunk(piece));
        (rest, size) = (others, size * 3);
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

fn is_framed(head: &str) -> bool {
    field(head, "content-length").is_some() || field(head, "transfer-encoding").is_some()
}

fn read_body(stream: &mut TcpStream, head: &str) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = field(head, "content-length") {
        let length = length.parse().map_err(|_| io::Error::other(head.to_owned()))?;
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
    } else if field(head, "transfer-encoding").is_some() {
        while read_chunk(stream, &mut body)? {}
    } else {
        stream.read_to_end(&mut body)?;
    }
    Ok(body)
}

/// Whether there was one more chunk.
fn read_chunk(stream: &mut TcpStream, body: &mut Vec<u8>) -> io::Result<bool> {
    let line = read_line(stream)?;
    let size =
        usize::from_str_radix(&line, 16).map_err(|_| io::Error::other(format!("chunk size {line:?}")))?;
    if size == 0 {
        while !read_line(stream)?.is_empty() {}
        return Ok(false);
    }
    let start = body.len();
    body.resize(start + size, 0);
    stream.read_exact(&mut body[start..])?;
    match read_line(stream)?.as_str() {
        "" => Ok(true),
        more => Err(io::Error::other(format!("a chunk goes on with {more:?}"))),
    }
}

fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).map_err(io::Error::other)
}

/// A server that keeps its connections, and notes every request.
pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    _server: Server,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
}

impl Origin {
    /// Answers each request with the bytes that `answer` makes of it; a connection ends after an answer that
    /// says `Connection: close`, and after one that is empty.
    pub fn start(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + Clone + 'static) -> Self {
        let seen = Arc::new(Seen::default());
        let noting = Arc::clone(&seen);
        let server = http::server("127.0.0.1", move |mut stream| {
            noting.connections.fetch_add(1, Ordering::SeqCst);
            while let Ok(Some(request)) = read_request(&mut stream) {
                let answer = answer(&request);
                noting.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                let last = answer.is_empty() || says_close(&answer);
                if stream.write_all(&answer).is_err() || last {
                    return;
                }
            }
        });
        Self { address: *server, seen, _server: server }
    }

    /// Answers every request with the same bytes.
    pub fn fixed(answer: &str) -> Self {
        let answer = answer.as_bytes().to_vec();
        Self::start(move |_| answer.clone())
    }

    /// Every whole request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }
}

fn says_close(answer: &[u8]) -> bool {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(answer.len());
    String::from_utf8_lossy(&answer[..end]).to_lowercase().contains("connection: close")
}
