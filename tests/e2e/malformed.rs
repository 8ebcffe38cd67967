//! Malformed and ambiguous messages, by name: the tables are in `malformed/`, a file for each class. Whatever a client
//! or server sends, what weir passes on is audited byte by byte: it has one reading, and its end is where it says.
//!
//! A line of a table is a name, what is expected, and the bytes (`{o}` is the server's address, `{closed}` an address
//! where nobody listens). Of requests: `reject` (answered with an error, nothing reaches the server), `closed` (not
//! answered), `forward` (one request reaches the server), `cut` (no whole request does), `safe` (either). Of responses:
//! `502`, `ok` (the body is `hello`), `abort` (the client sees that it is cut off), `safe` (any of these).

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use weir_tests::http::{self, Server};
use weir_tests::weir::{Weir, connect, eventually};

#[test]
fn requests() {
    let tables = [
        ("transfer_encoding", include_str!("malformed/transfer_encoding.tsv")),
        ("content_length", include_str!("malformed/content_length.tsv")),
        ("chunks", include_str!("malformed/chunks.tsv")),
        ("bytes", include_str!("malformed/bytes.tsv")),
        ("lines", include_str!("malformed/lines.tsv")),
        ("host", include_str!("malformed/host.tsv")),
        ("target", include_str!("malformed/target.tsv")),
        ("upgrade", include_str!("malformed/upgrade.tsv")),
    ];
    let (weir, origin) = (Weir::explicit(""), Recorder::start());
    let mut faults = Vec::new();
    let mut count = 0;
    for (class, table) in tables {
        for case in cases(table) {
            count += 1;
            let bytes = case.bytes(*origin.server);
            let answer = converse(weir.proxy, &bytes);
            if let Err(fault) = judge_request(&case.expected, &answer, &origin) {
                faults.push(format!("{class}: {}: expected {}: {fault}", case.name, case.expected));
            }
        }
    }
    finish(&weir, count, 1000, &faults);
}

#[test]
fn responses() {
    let table: BTreeMap<usize, Case> =
        cases(include_str!("malformed/responses.tsv")).into_iter().enumerate().collect();
    let (weir, shared) = (Weir::explicit(""), Arc::new(table));
    let table = Arc::clone(&shared);
    let origin = http::server("127.0.0.1", move |mut stream| {
        let head = http::read_head(&mut stream);
        let number = head.split(['/', ' ']).nth(2).and_then(|number| number.parse::<usize>().ok());
        if let Some(case) = number.and_then(|number| shared.get(&number)) {
            let address = stream.local_addr().expect("a bound socket");
            let _ = stream.write_all(&case.bytes(address));
        }
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut faults = Vec::new();
    for (number, case) in table.iter() {
        let request =
            format!("GET http://{origin}/{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = converse(weir.proxy, request.as_bytes());
        if let Err(fault) = judge_response(&case.expected, &answer) {
            faults.push(format!("{}: expected {}: {fault}", case.name, case.expected));
        }
    }
    finish(&weir, table.len(), 200, &faults);
}

fn finish(weir: &Weir, count: usize, least: usize, faults: &[String]) {
    assert!(faults.is_empty(), "{} of {count} cases:\n{}", faults.len(), faults.join("\n"));
    assert!(count >= least, "only {count} cases");
    assert!(!weir.log().contains("panicked"), "{}", weir.log());
    eventually("all connections ended", || (weir.status()["active_connections"] == 0).then_some(()));
}

struct Case {
    name: String,
    expected: String,
    text: String,
}

fn cases(table: &str) -> Vec<Case> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    let case = |line: &str| {
        let mut parts = line.splitn(3, '\t').map(str::to_owned);
        let [name, expected, text] = [0; 3].map(|_| parts.next().expect("three parts"));
        Case { name, expected, text }
    };
    lines.map(case).collect()
}

impl Case {
    fn bytes(&self, origin: SocketAddr) -> Vec<u8> {
        let text = self.text.replace("{o}", &origin.to_string()).replace("{closed}", "127.0.0.1:1");
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            if c != '\\' {
                bytes.push(u8::try_from(c).expect("a byte"));
                continue;
            }
            bytes.push(match rest.next() {
                Some('r') => b'\r',
                Some('n') => b'\n',
                Some('t') => b'\t',
                Some('x') => {
                    let digits: String = rest.by_ref().take(2).collect();
                    u8::from_str_radix(&digits, 16).expect("two digits")
                }
                Some('\\') => b'\\',
                other => panic!("{}: \\{other:?}", self.name),
            });
        }
        bytes
    }
}

/// What a client got, and whether the end was a reset.
struct Got {
    bytes: Vec<u8>,
    reset: bool,
}

fn converse(proxy: SocketAddr, bytes: &[u8]) -> Got {
    let mut stream = connect(proxy);
    // weir may refuse, and close, before it has read everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut got = Got { bytes: Vec::new(), reset: false };
    if let Err(error) = stream.read_to_end(&mut got.bytes) {
        assert!(error.kind() == ErrorKind::ConnectionReset, "nothing should hang: {error}");
        got.reset = true;
    }
    got
}

/// What reached the server of one case.
#[derive(Default)]
struct Reached {
    whole: usize,
    bytes: usize,
    faults: Vec<String>,
}

/// A server that audits what it is sent.
struct Recorder {
    server: Server,
    reached: Arc<Mutex<Reached>>,
}

impl Recorder {
    fn start() -> Self {
        let reached = Arc::new(Mutex::new(Reached::default()));
        let noting = Arc::clone(&reached);
        let server = http::server("127.0.0.1", move |stream| record(stream, &noting));
        Self { server, reached }
    }

    fn take(&self) -> Reached {
        std::mem::take(&mut *self.reached.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn record(mut stream: TcpStream, reached: &Mutex<Reached>) {
    let address = stream.local_addr().expect("a bound socket").to_string();
    let (mut buffer, mut more) = (Vec::new(), [0; 65536]);
    loop {
        match audit_request(&buffer, &address) {
            Ok(Some(length)) => {
                buffer.drain(..length);
                reached.lock().unwrap_or_else(PoisonError::into_inner).whole += 1;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
                continue;
            }
            Ok(None) => {}
            Err(fault) => {
                let mut reached = reached.lock().unwrap_or_else(PoisonError::into_inner);
                reached.faults.push(format!("{fault} in {:?}", String::from_utf8_lossy(&buffer)));
                return;
            }
        }
        match stream.read(&mut more) {
            Ok(count @ 1..) => {
                buffer.extend_from_slice(&more[..count]);
                reached.lock().unwrap_or_else(PoisonError::into_inner).bytes += count;
            }
            _ => return,
        }
    }
}

fn judge_request(expected: &str, got: &Got, origin: &Recorder) -> Result<(), String> {
    let answers = audit_responses(&got.bytes, got.reset);
    let reached = origin.take();
    if !reached.faults.is_empty() {
        return Err(format!("what reached the server is not right: {:?}", reached.faults));
    }
    let text = || {
        format!("{} whole, {} bytes; {:?}", reached.whole, reached.bytes, String::from_utf8_lossy(&got.bytes))
    };
    let (statuses, _) = answers.map_err(|fault| format!("the answer: {fault}: {}", text()))?;
    let first = statuses.first().copied();
    let refused = first.is_some_and(|status| [400, 413, 414, 417, 431, 501, 505].contains(&status));
    let fits = match expected {
        "reject" => refused && reached.bytes == 0,
        "closed" => statuses.is_empty() && reached.bytes == 0,
        "forward" => first == Some(200) && reached.whole == 1,
        "cut" => reached.whole == 0 && (refused || first.is_none() || first == Some(408)),
        "safe" => true,
        other => return Err(format!("no such expectation: {other}")),
    };
    if fits { Ok(()) } else { Err(text()) }
}

fn judge_response(expected: &str, got: &Got) -> Result<(), String> {
    let text = || {
        format!("reset: {}; {:?}", got.reset, String::from_utf8_lossy(&got.bytes[..got.bytes.len().min(400)]))
    };
    let (statuses, bodies) =
        audit_responses(&got.bytes, got.reset).map_err(|fault| format!("{fault}: {}", text()))?;
    let last = statuses.last().copied();
    let finals = statuses.iter().filter(|status| **status >= 200).count();
    let fits = match expected {
        "502" => statuses == [502] && !got.reset,
        "ok" => last == Some(200) && finals == 1 && bodies == b"hello" && !got.reset,
        "abort" => got.reset,
        "safe" => finals <= 1,
        other => return Err(format!("no such expectation: {other}")),
    };
    if fits { Ok(()) } else { Err(text()) }
}

/// The length of the one request at the start of `bytes`, if it is whole.
fn audit_request(bytes: &[u8], host: &str) -> Result<Option<usize>, String> {
    let Some((line, fields, start)) = audit_head(bytes)? else { return Ok(None) };
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = parts[..] else {
        return Err("the request line has other parts".into());
    };
    if !is_token(method) || target.is_empty() || target.iter().any(u8::is_ascii_control) {
        return Err("the request line has bytes that don't belong there".into());
    }
    let hosts = values(&fields, "host");
    if hosts != [host.as_bytes()] {
        return Err(format!("Host is {hosts:?}"));
    }
    body_end(&fields, bytes, start, false)
}

/// All statuses, and the content of the final responses, whole but for the last where the connection was reset.
fn audit_responses(bytes: &[u8], reset: bool) -> Result<(Vec<u16>, Vec<u8>), String> {
    let (mut rest, mut statuses, mut content) = (bytes, Vec::new(), Vec::new());
    while !rest.is_empty() {
        let Some((line, fields, start)) = audit_head(rest)? else {
            return if reset {
                Ok((statuses, content))
            } else {
                Err("half a head, and an orderly end".into())
            };
        };
        let status =
            line.strip_prefix(b"HTTP/1.1 ").and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok());
        let status: u16 = status.and_then(|status| status.parse().ok()).ok_or("no status")?;
        statuses.push(status);
        let bodiless = matches!(status, 100..=199 | 204 | 304);
        if matches!(status, 100..=199 | 204) && !values(&fields, "content-length").is_empty() {
            return Err("a length where there is no body".into());
        }
        let end = match body_end(&fields, rest, start, !bodiless)? {
            _ if bodiless => start,
            Some(end) => end,
            None if reset => return Ok((statuses, content)),
            None => return Err("half a body, and an orderly end".into()),
        };
        if status >= 200 && !bodiless {
            content.extend(plain(&fields, &rest[start..end]));
        }
        rest = &rest[end..];
    }
    Ok((statuses, content))
}

type Head<'a> = (&'a [u8], Vec<(&'a [u8], &'a [u8])>, usize);

/// First line, fields, and where the body starts.
fn audit_head(bytes: &[u8]) -> Result<Option<Head<'_>>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let mut lines = Vec::new();
    let mut rest = &bytes[..end];
    while let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    if lines.iter().any(|line| line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')) {
        return Err("a control character in a head".into());
    }
    let mut fields = Vec::new();
    for line in &lines[1..] {
        let colon = line.iter().position(|byte| *byte == b':').ok_or("a field without a colon")?;
        if !is_token(&line[..colon]) {
            return Err(format!("a field name that is none: {:?}", String::from_utf8_lossy(line)));
        }
        fields.push((&line[..colon], line[colon + 1..].trim_ascii()));
    }
    Ok(Some((lines[0], fields, end + 4)))
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn values<'a>(fields: &[(&[u8], &'a [u8])], name: &str) -> Vec<&'a [u8]> {
    let named = fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()));
    named.map(|(_, value)| *value).collect()
}

/// Where the body ends, if it is whole. With neither framing a request has none; a response has to say.
fn body_end(
    fields: &[(&[u8], &[u8])],
    bytes: &[u8],
    start: usize,
    needed: bool,
) -> Result<Option<usize>, String> {
    match (&values(fields, "content-length")[..], &values(fields, "transfer-encoding")[..]) {
        ([], []) if needed => Err("a body without a length".into()),
        ([], []) => Ok(Some(start)),
        ([length], []) => {
            let digits =
                length.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(length).ok()).flatten();
            let length: usize =
                digits.and_then(|digits| digits.parse().ok()).ok_or("a length that is none")?;
            Ok((bytes.len() - start >= length).then_some(start + length))
        }
        ([], [b"chunked"]) => chunks_end(bytes, start),
        other => Err(format!("two readings of the length: {other:?}")),
    }
}

fn chunks_end(bytes: &[u8], mut at: usize) -> Result<Option<usize>, String> {
    loop {
        let Some(line) = bytes[at..].windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let digits = std::str::from_utf8(&bytes[at..at + line]).map_err(|error| error.to_string())?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("a chunk size that is none: {digits:?}"));
        }
        let size = usize::from_str_radix(digits, 16).map_err(|error| error.to_string())?;
        at += line + 2;
        if size == 0 && !bytes[at..].starts_with(b"\r") {
            return trailers_end(&bytes[at..]).map(|end| end.map(|end| at + end));
        }
        if bytes.len() < at + size + 2 {
            return Ok(None);
        }
        if &bytes[at + size..at + size + 2] != b"\r\n" {
            return Err("a chunk goes on behind its size".into());
        }
        at += size + 2;
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

/// Fields as in a head, and none that would say something else there.
fn trailers_end(bytes: &[u8]) -> Result<Option<usize>, String> {
    let line = b"trailers\r\n";
    let head = [line, bytes].concat();
    let Some((_, fields, end)) = audit_head(&head)? else { return Ok(None) };
    let harmful = ["content-length", "transfer-encoding", "host", "connection"];
    match harmful.iter().find(|name| !values(&fields, name).is_empty()) {
        Some(name) => Err(format!("{name} in a trailer")),
        None => Ok(Some(end - line.len())),
    }
}

/// The content of a whole body.
fn plain(fields: &[(&[u8], &[u8])], body: &[u8]) -> Vec<u8> {
    if values(fields, "transfer-encoding").is_empty() {
        return body.to_vec();
    }
    let (mut content, mut rest) = (Vec::new(), body);
    while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&rest[..line]), 16).unwrap_or_default();
        content.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
    content
}
