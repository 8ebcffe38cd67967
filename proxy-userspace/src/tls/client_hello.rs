//! What a ClientHello asks for (RFC 8446 §4.1.2): the server's name, and what is to be spoken with it. Read without
//! consuming anything.

/// The most of a ClientHello that is waited for. Post-quantum key shares make some 1.8 KiB; padding and
/// session tickets are smaller than the rest of this.
pub const MAX_HELLO: usize = 16 << 10;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    Complete(ClientHello),
    /// The beginning of one.
    Partial,
    /// Something else.
    NotTls,
}

/// What a client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server's name (RFC 6066 §3), in lower case. With ECH that is the public, outer name.
    pub server_name: Option<String>,
    /// The protocols that it offers to speak, the one it likes best first (RFC 7301).
    pub protocols: Vec<Vec<u8>>,
    /// There is an encrypted ClientHello in it (RFC 9849), or what is made to look like one (GREASE).
    pub has_ech: bool,
}

impl ClientHello {
    /// Whether it offers to speak this.
    #[must_use]
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.protocols.iter().any(|offered| offered == protocol)
    }
}

/// Reads a ClientHello from the first bytes a client sent.
#[must_use]
pub fn parse(bytes: &[u8]) -> Hello {
    let mut handshake = Vec::new();
    let mut rest = bytes;
    loop {
        // RFC 8446 §5.1: type (22 = handshake), legacy version 3.x, length.
        let header = match rest {
            [HANDSHAKE, 3, _, high, low, ..] => usize::from(*high) << 8 | usize::from(*low),
            [HANDSHAKE, 3, ..] | [HANDSHAKE] | [] => return partial(bytes),
            _ => return Hello::NotTls,
        };
        if header == 0 || header > MAX_RECORD {
            return Hello::NotTls;
        }
        let record = &rest[RECORD_HEADER..];
        let taken = record.len().min(header);
        handshake.extend_from_slice(&record[..taken]);
        match handshake[..] {
            [CLIENT_HELLO, a, b, c, ref body @ ..] => {
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if length > MAX_HELLO {
                    return Hello::NotTls;
                }
                if let Some(hello) = body.get(..length) {
                    return client_hello(hello).map_or(Hello::NotTls, Hello::Complete);
                }
            }
            [CLIENT_HELLO, ..] | [] => {}
            _ => return Hello::NotTls,
        }
        if taken < header {
            return partial(bytes);
        }
        // A hello may be spread over several records.
        rest = &record[taken..];
    }
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const MAX_RECORD: usize = 1 << 14;

fn partial(bytes: &[u8]) -> Hello {
    if bytes.len() < MAX_HELLO { Hello::Partial } else { Hello::NotTls }
}

/// Extensions that are looked at (RFC 6066 §3, RFC 7301 §3.1, RFC 9849 §5).
const SERVER_NAME: usize = 0;
const PROTOCOLS: usize = 16;
const ENCRYPTED_CLIENT_HELLO: usize = 0xfe0d;

/// What stands in a ClientHello's body. None if it is malformed.
fn client_hello(body: &[u8]) -> Option<ClientHello> {
    let mut hello = Reader(body);
    hello.take(2 + 32)?; // legacy_version, random
    hello.vector(1)?; // legacy_session_id
    hello.vector(2)?; // cipher_suites
    hello.vector(1)?; // legacy_compression_methods
    let mut found = ClientHello::default();
    if hello.0.is_empty() {
        return Some(found);
    }
    let mut extensions = Reader(hello.vector(2)?);
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let data = extensions.vector(2)?;
        match kind {
            SERVER_NAME if found.server_name.is_none() => found.server_name = server_name(data)?,
            PROTOCOLS if found.protocols.is_empty() => found.protocols = protocols(data)?,
            ENCRYPTED_CLIENT_HELLO => found.has_ech = true,
            _ => {}
        }
    }
    Some(found)
}

/// The first host name in a server_name extension. None if that is malformed.
fn server_name(data: &[u8]) -> Option<Option<String>> {
    let mut names = Reader(Reader(data).vector(2)?);
    while !names.0.is_empty() {
        let name_type = names.number(1)?;
        let name = names.vector(2)?;
        if name_type == 0 {
            let name = std::str::from_utf8(name).ok()?;
            return Some(Some(name.to_ascii_lowercase()));
        }
    }
    Some(None)
}

fn protocols(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut offered = Reader(Reader(data).vector(2)?);
    let mut found = Vec::new();
    while !offered.0.is_empty() {
        found.push(offered.vector(1)?.to_vec());
    }
    Some(found)
}

/// Big-endian numbers and length-prefixed vectors (RFC 8446 §3).
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn vector(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = self.number(width)?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A ClientHello with one cipher suite, in records of `record` bytes.
    fn hello(server_name: Option<&str>, record: usize) -> Vec<u8> {
        hello_with(&[], server_name, record)
    }

    /// The same, with more extensions.
    fn hello_with(more: &[u8], server_name: Option<&str>, record: usize) -> Vec<u8> {
        let number = |value: usize| [(value >> 8) as u8, value as u8];
        let mut extensions = vec![0, 43, 0, 3, 2, 3, 4]; // supported_versions, before the name
        extensions.extend(more);
        if let Some(name) = server_name {
            let entry = [&[0], number(name.len()).as_slice(), name.as_bytes()].concat();
            let list = [number(entry.len()).as_slice(), &entry].concat();
            extensions.extend([&[0, 0], number(list.len()).as_slice(), &list].concat());
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(number(extensions.len()));
        body.extend(extensions);
        let handshake = [&[1, 0], number(body.len()).as_slice(), &body].concat();
        handshake
            .chunks(record)
            .flat_map(|chunk| [&[22, 3, 1], number(chunk.len()).as_slice(), chunk].concat())
            .collect()
    }

    fn named(name: &str) -> Hello {
        Hello::Complete(ClientHello { server_name: Some(name.into()), ..ClientHello::default() })
    }

    #[test]
    fn the_server_name_is_found() {
        assert_eq!(parse(&hello(Some("Example.com"), 1000)), named("example.com"));
        assert_eq!(parse(&hello(None, 1000)), Hello::Complete(ClientHello::default()));
        let with_data_behind = [hello(Some("a.b"), 1000), vec![23; 50]].concat();
        assert_eq!(parse(&with_data_behind), named("a.b"));
    }

    #[test]
    fn what_is_to_be_spoken_is_found() {
        let protocols = b"\0\x10\0\x0e\0\x0c\x02h2\x08http/1.1";
        let ech = b"\xfe\x0d\0\x01\0";
        let Hello::Complete(found) = parse(&hello_with(&[&protocols[..], ech].concat(), Some("a.b"), 1000))
        else {
            panic!("no hello")
        };
        assert!(found.offers(b"h2") && found.offers(b"http/1.1") && !found.offers(b"http"));
        assert_eq!((found.server_name.as_deref(), found.has_ech), (Some("a.b"), true));
        // A list that is longer than its extension.
        assert_eq!(parse(&hello_with(b"\0\x10\0\x03\0\x09\x02", None, 1000)), Hello::NotTls);
    }

    #[test]
    fn a_hello_in_many_records_is_one_hello() {
        assert_eq!(parse(&hello(Some("example.com"), 7)), named("example.com"));
    }

    #[test]
    fn every_beginning_is_partial() {
        for record in [7, 1000] {
            let whole = hello(Some("example.com"), record);
            for end in 0..whole.len() {
                assert_eq!(parse(&whole[..end]), Hello::Partial, "{end} bytes, records of {record}");
            }
        }
    }

    #[test]
    fn what_is_no_hello() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Hello::NotTls);
        assert_eq!(parse(b"SSH-2.0-x\r\n"), Hello::NotTls);
        assert_eq!(parse(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), Hello::NotTls);
        assert_eq!(parse(&[22, 3, 1, 0xff, 0xff, 1]), Hello::NotTls);
        assert_eq!(parse(&[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff]), Hello::NotTls);
        assert_eq!(parse(&[22, 3, 1, 0, 5, 1, 0, 0, 1, 9]), Hello::NotTls);
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            let _ = parse(&bytes);
            let _ = parse(&[&[22, 3, 1, 0, 200, 1, 0, 0, 196], bytes.as_slice()].concat());
        }
    }
}
