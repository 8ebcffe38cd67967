//! A DNS server that says what a test tells it to, over UDP and TCP, and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a server was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub name: String,
    pub kind: u16,
    pub tcp: bool,
    pub from: SocketAddr,
    pub message: Vec<u8>,
}

/// What it says.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub rcode: u8,
    /// Over UDP: nothing but the flag.
    pub truncated: bool,
    /// Nothing at all.
    pub silent: bool,
    pub answers: Vec<Record>,
    /// A SOA with this minimum.
    pub authority: Option<u32>,
    /// In place of all that, after the id.
    pub raw: Option<Vec<u8>>,
}

/// Owner, TTL and data of a record.
#[derive(Debug, Clone)]
pub struct Record(pub &'static str, pub u32, pub Data);

#[derive(Debug, Clone)]
pub enum Data {
    Address(IpAddr),
    Alias(&'static str),
}

/// An address record.
pub fn address(owner: &'static str, ttl: u32, address: &str) -> Record {
    Record(owner, ttl, Data::Address(address.parse().expect("an address")))
}

/// A reply of these records.
pub fn answers(records: &[Record]) -> Reply {
    Reply { answers: records.to_vec(), ..Reply::default() }
}

/// A running server; its threads end with the test.
pub struct Server {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Serves port 53 of `host` in this thread's network namespace.
    pub fn start(host: &str, reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let address = SocketAddr::new(host.parse().expect("an address"), 53);
        let udp = UdpSocket::bind(address).expect("port 53 is free in this namespace");
        let tcp = TcpListener::bind(address).expect("port 53 is free in this namespace");
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let reply = Arc::new(reply);
        let (log, its_reply) = (Arc::clone(&asked), Arc::clone(&reply));
        std::thread::spawn(move || {
            let mut buffer = [0; 65_535];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                if let Some(answer) = answer(&buffer[..length], from, false, &log, &*its_reply) {
                    // Its client may have gone.
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                std::thread::spawn(move || serve(stream, &log, &*reply));
            }
        });
        Self { address, asked }
    }

    /// All queries so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names of all queries so far.
    pub fn names(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.name).collect()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, reply: &dyn Fn(&Asked) -> Reply) {
    let Ok(from) = stream.peer_addr() else { return };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut query).is_err() {
            return;
        }
        let Some(answer) = answer(&query, from, true, log, reply) else { continue };
        let mut framed = u16::try_from(answer.len()).expect("a short answer").to_be_bytes().to_vec();
        framed.extend(answer);
        if stream.write_all(&framed).is_err() {
            return;
        }
    }
}

fn answer(
    query: &[u8],
    from: SocketAddr,
    tcp: bool,
    log: &Mutex<Vec<Asked>>,
    reply: &dyn Fn(&Asked) -> Reply,
) -> Option<Vec<u8>> {
    let (name, end) = name_of(query)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let asked = Asked { name, kind, tcp, from, message: query.to_vec() };
    log.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
    let reply = reply(&asked);
    if reply.silent {
        return None;
    }
    if let Some(raw) = reply.raw {
        return Some([&query[..2], &raw].concat());
    }
    let truncated = reply.truncated && !tcp;
    let answers = if truncated { Vec::new() } else { reply.answers };
    let fits = |record: &&Record| match record.2 {
        Data::Address(IpAddr::V4(_)) => kind == 1,
        Data::Address(IpAddr::V6(_)) => kind == 28,
        Data::Alias(_) => true,
    };
    let answers: Vec<&Record> = answers.iter().filter(fits).collect();
    let count = |count: usize| u16::try_from(count).expect("a few").to_be_bytes();
    let mut message = query[..2].to_vec();
    message.extend([0x81 | if truncated { 2 } else { 0 }, 0x80 | reply.rcode, 0, 1]);
    message.extend(count(answers.len()));
    message.extend(count(usize::from(reply.authority.is_some())));
    message.extend([0, 0]);
    message.extend(&query[12..end + 4]);
    for Record(owner, ttl, data) in answers {
        let (kind, data) = match data {
            Data::Address(IpAddr::V4(v4)) => (1, v4.octets().to_vec()),
            Data::Address(IpAddr::V6(v6)) => (28, v6.octets().to_vec()),
            Data::Alias(target) => (5, name_bytes(target)),
        };
        record(&mut message, owner, (kind, *ttl), &data);
    }
    if let Some(minimum) = reply.authority {
        let mut data = [name_bytes("ns.example"), name_bytes("admin.example"), vec![0; 16]].concat();
        data.extend(minimum.to_be_bytes());
        record(&mut message, "example", (6, 3600), &data);
    }
    Some(message)
}

fn record(message: &mut Vec<u8>, owner: &str, (kind, ttl): (u16, u32), data: &[u8]) {
    message.extend(name_bytes(owner));
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message.extend(ttl.to_be_bytes());
    message.extend(u16::try_from(data.len()).expect("a short record").to_be_bytes());
    message.extend(data);
}

fn name_bytes(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// The name a query asks for, in lower case, and where it ends.
fn name_of(query: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*query.get(at)?);
        if length == 0 {
            return Some((labels.join("."), at + 1));
        }
        let label = query.get(at + 1..at + 1 + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += 1 + length;
    }
}
