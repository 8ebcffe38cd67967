//! HTTP/2 frame by frame (RFC 9113 §4, §6): says what no well-behaved client would, and shows what comes back.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::weir::connect;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code that ends RST_STREAM and that stands in GOAWAY (RFC 9113 §7).
    pub fn error_code(&self) -> Option<u32> {
        let code = match self.kind {
            RST_STREAM => self.payload.get(..4),
            GOAWAY => self.payload.get(4..8),
            _ => None,
        };
        code.and_then(|code| code.try_into().ok()).map(u32::from_be_bytes)
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length").to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [head.as_slice(), &stream.to_be_bytes(), payload].concat()
}

/// A header block in which each field is a literal that is not indexed (RFC 7541 §6.2.2), text as it is.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for text in fields.iter().flat_map(|(name, value)| [name, value].into_iter().enumerate()) {
        let (nth, text) = text;
        if nth == 0 {
            block.push(0);
        }
        integer(text.len(), 7, &mut block);
        block.extend_from_slice(text.as_bytes());
    }
    block
}

/// RFC 7541 §5.1.
fn integer(value: usize, prefix: u32, out: &mut Vec<u8>) {
    let most = (1 << prefix) - 1;
    let byte = |value: usize| u8::try_from(value & 0xff).expect("a byte");
    if value < most {
        return out.push(byte(value));
    }
    out.push(byte(most));
    let mut rest = value - most;
    while rest >= 128 {
        out.push(byte(rest % 128 + 128));
        rest /= 128;
    }
    out.push(byte(rest));
}

/// HEADERS with a whole block.
pub fn headers(stream: u32, fields: &[(&str, &str)], end_stream: bool) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | u8::from(end_stream), stream, &block(fields))
}

/// A client that has sent the preface and empty SETTINGS.
#[derive(Debug)]
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub fn connect(server: SocketAddr) -> Self {
        let mut client = Self { stream: connect(server) };
        client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        client
    }

    /// Sends bytes; a peer that has ended the connection meanwhile is no error here.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame. An error: the connection has ended, or nothing comes.
    pub fn frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The first frame from now on for which `wanted` holds.
    pub fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> io::Result<Frame> {
        loop {
            let frame = self.frame()?;
            if wanted(&frame) {
                return Ok(frame);
            }
        }
    }

    /// Whether the other side still answers.
    pub fn is_alive(&mut self) -> bool {
        let ping = frame(PING, 0, 0, b"alive? !");
        self.stream.write_all(&ping).is_ok()
            && self
                .until(|frame| frame.kind == PING && frame.flags == ACK && frame.payload == b"alive? !")
                .is_ok()
    }

    /// The error code with which the connection is ended; all streams before that are let pass.
    pub fn goaway(&mut self) -> Option<u32> {
        self.until(|frame| frame.kind == GOAWAY && frame.error_code() != Some(0)).ok()?.error_code()
    }
}
