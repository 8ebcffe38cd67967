//! What an HTTP/2 server must say to a client that breaks a rule of RFC 9113, case by case.

use std::net::SocketAddr;

use crate::frames::{Client, Frame, GOAWAY, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, headers};
use crate::origin::Origin;
use crate::weir::Weir;

pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const COMPRESSION_ERROR: u32 = 9;

/// What the `h2` crate says where the RFC gives the other code.
pub const COMPRESSION: &[u32] = &[COMPRESSION_ERROR, PROTOCOL_ERROR];
pub const CLOSED: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];
pub const FLOW_CONTROL: &[u32] = &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR];

/// What has to come back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expect {
    /// GOAWAY with one of these codes, and the end.
    Goaway(&'static [u32]),
    /// RST_STREAM for stream 1, or GOAWAY, with one of these codes.
    Refused(&'static [u32]),
    /// The same, but the request itself was good.
    Closed(&'static [u32]),
    /// RST_STREAM for stream 1, and the connection goes on.
    Reset(&'static [u32]),
    /// A response of 4xx to stream 1, and the connection goes on.
    BadRequest,
    /// A response of 200 to stream 1.
    Served,
    /// The connection goes on, nothing else.
    Alive,
}

use self::Expect::{Alive, BadRequest, Closed, Goaway, Refused, Reset, Served};

/// A weir, and an origin that notes the requests that reach it.
pub struct Bench {
    pub weir: Weir,
    pub origin: Origin,
}

impl Bench {
    pub fn new(overlay: &str) -> Self {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        Self { weir: Weir::explicit(overlay), origin }
    }

    /// A good request on a new connection is served, whatever happened on others.
    pub fn others_are_served(&self) {
        let mut client = Client::connect(self.weir.proxy);
        let authority = self.origin.address.to_string();
        client.send(&headers(1, &request(&authority, &[]), true));
        let head = client.until(|frame| frame.kind == HEADERS && frame.stream == 1).expect("an answer");
        assert_eq!(head.payload.first(), Some(&STATUS_200));
    }

    /// Sends each case's bytes over a connection of its own, and compares what comes back.
    #[track_caller]
    pub fn check(&self, cases: &[(&str, Vec<u8>, Expect)]) {
        let wrong: Vec<_> = cases
            .iter()
            .filter_map(|(name, bytes, expected)| {
                let before = self.origin.requests().len();
                let mut client = Client::connect(self.weir.proxy);
                client.send(bytes);
                let found = found(&mut client, *expected);
                let reached = self.origin.requests().len() > before;
                let may_reach = matches!(expected, Served | Alive | Closed(_));
                if found.is_err() || reached && !may_reach {
                    return Some(format!("{name}: {found:?}, at the origin: {reached}"));
                }
                None
            })
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        self.others_are_served();
    }
}

/// Reads as far as what is expected takes.
fn found(client: &mut Client, expected: Expect) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    let of_stream = |frame: &Frame, kind| frame.kind == kind && frame.stream == 1;
    let ends = |frame: &Frame| frame.error_code().is_some_and(|code| code != 0);
    let says = |end: Frame, codes: &[u32]| match end.error_code() {
        Some(code) if codes.contains(&code) => Ok(()),
        _ => Err(format!("{end:?}, not {codes:?}")),
    };
    match expected {
        Goaway(codes) => {
            let end = client.until(|frame| frame.kind == GOAWAY && ends(frame)).map_err(told)?;
            says(end, codes)?;
            client.until(|_| false).map_or(Ok(()), |_| Err("the connection goes on".to_owned()))
        }
        Refused(codes) | Closed(codes) => says(
            client.until(|frame| ends(frame) && (frame.kind == GOAWAY || frame.stream == 1)).map_err(told)?,
            codes,
        ),
        Reset(codes) => {
            let end = client.until(|frame| ends(frame) || of_stream(frame, HEADERS)).map_err(told)?;
            if end.kind != RST_STREAM {
                return Err(format!("{end:?} is no reset of the stream"));
            }
            says(end, codes)?;
            alive(client)
        }
        BadRequest | Served => {
            let head = client.until(|frame| ends(frame) || of_stream(frame, HEADERS)).map_err(told)?;
            let served = head.kind == HEADERS && head.payload.first() == Some(&STATUS_200);
            if head.kind != HEADERS || served != (expected == Served) {
                return Err(format!("{head:?}"));
            }
            alive(client)
        }
        Alive => alive(client),
    }
}

fn alive(client: &mut Client) -> Result<(), String> {
    if client.is_alive() { Ok(()) } else { Err("the connection has ended".to_owned()) }
}

/// `:status: 200` as the 8th entry of the static table (RFC 7541 Appendix A).
pub const STATUS_200: u8 = 0x88;

/// The fields of a GET, and `more` behind them.
pub fn request<'a>(authority: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", "/")];
    [&pseudo, more].concat()
}

pub fn get(origin: SocketAddr, more: &[(&str, &str)]) -> Vec<u8> {
    headers(1, &request(&origin.to_string(), more), true)
}

/// The same, with a body to follow.
pub fn post(origin: SocketAddr, more: &[(&str, &str)]) -> Vec<u8> {
    headers(1, &request(&origin.to_string(), more), false)
}

pub fn setting(identifier: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[identifier.to_be_bytes().as_slice(), &value.to_be_bytes()].concat())
}

pub fn update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}
