//! RFC 9113 §3 to §8 to the letter, as far as a server shows it: what is malformed ends its stream or its connection with
//! the code that the RFC gives, reaches no origin, and disturbs nobody else.

use std::net::SocketAddr;

use weir_tests::frames::{
    ACK, CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PADDED, PING, PREFACE,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, headers,
};
use weir_tests::http;
use weir_tests::origin::Origin;
use weir_tests::weir::{Weir, connect};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

/// What the `h2` crate says where the RFC gives the other code.
const COMPRESSION: &[u32] = &[COMPRESSION_ERROR, PROTOCOL_ERROR];
const CLOSED: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];
const FLOW_CONTROL: &[u32] = &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR];

/// What has to come back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expect {
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

use Expect::{Alive, BadRequest, Closed, Goaway, Refused, Reset, Served};

/// A weir, and an origin that notes the requests that reach it.
struct Bench {
    weir: Weir,
    origin: Origin,
}

impl Bench {
    fn new(overlay: &str) -> Self {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        Self { weir: Weir::explicit(overlay), origin }
    }

    /// A good request on a new connection is served, whatever happened on others.
    fn others_are_served(&self) {
        let mut client = Client::connect(self.weir.proxy);
        let authority = self.origin.address.to_string();
        client.send(&headers(1, &request(&authority, &[]), true));
        let head = client.until(|frame| frame.kind == HEADERS && frame.stream == 1).expect("an answer");
        assert_eq!(head.payload.first(), Some(&STATUS_200));
    }

    /// Sends each case's bytes over a connection of its own, and compares what comes back.
    #[track_caller]
    fn check(&self, cases: &[(&str, Vec<u8>, Expect)]) {
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
const STATUS_200: u8 = 0x88;

/// The fields of a GET, and `more` behind them.
fn request<'a>(authority: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", "/")];
    [&pseudo, more].concat()
}

fn get(origin: SocketAddr, more: &[(&str, &str)]) -> Vec<u8> {
    headers(1, &request(&origin.to_string(), more), true)
}

/// The same, with a body to follow.
fn post(origin: SocketAddr, more: &[(&str, &str)]) -> Vec<u8> {
    headers(1, &request(&origin.to_string(), more), false)
}

fn setting(identifier: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[identifier.to_be_bytes().as_slice(), &value.to_be_bytes()].concat())
}

fn update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

#[test]
fn a_preface_that_is_none_ends_the_connection() {
    let bench = Bench::new("");
    let mut client = Client { stream: connect(bench.weir.proxy) };
    client.send(&[PREFACE, &frame(PING, 0, 0, &[0; 8])].concat());
    assert_eq!(client.goaway(), Some(PROTOCOL_ERROR), "SETTINGS must come first");
    for preface in
        ["PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n\r\n", "PRI / HTTP/1.1\r\n\r\n"]
    {
        let answer = http::send(bench.weir.proxy, preface.as_bytes()).expect("an answer");
        assert!((400..=505).contains(&answer.status), "{preface:?}: {answer:?}");
    }
    bench.others_are_served();
}

#[test]
fn frames_of_the_wrong_size_or_place() {
    let bench = Bench::new("");
    let origin = bench.origin.address;
    let protocol = Goaway(&[PROTOCOL_ERROR]);
    let size = Goaway(&[FRAME_SIZE_ERROR]);
    let large = frame(DATA, 0, 1, &[0; 16_385]);
    let cases: [(&str, Vec<u8>, Expect); 35] = [
        ("4.1 unknown frame", frame(99, 0xff, 0, b"what?"), Alive),
        ("4.1 unknown flags", frame(PING, 0xf0, 0, &[0; 8]), Alive),
        ("4.2 DATA too large", [post(origin, &[]), large].concat(), Refused(&[FRAME_SIZE_ERROR])),
        ("4.2 HEADERS too large", frame(HEADERS, END_HEADERS, 1, &[0; 16_385]), size),
        ("4.2 SETTINGS too large", frame(SETTINGS, 0, 0, &[0; 16_386]), size),
        (
            "4.3 block that is none",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 9]),
            Goaway(COMPRESSION),
        ),
        (
            "4.3 index beyond the table",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xfe]),
            Goaway(COMPRESSION),
        ),
        ("6.1 DATA on stream 0", frame(DATA, 0, 0, b"x"), protocol),
        (
            "6.1 padding beyond the frame",
            [post(origin, &[]), frame(DATA, PADDED, 1, &[9, 1])].concat(),
            protocol,
        ),
        ("6.2 HEADERS on stream 0", headers(0, &request("x", &[]), true), protocol),
        ("6.2 padding beyond the frame", frame(HEADERS, END_HEADERS | PADDED, 1, &[200, 1]), protocol),
        ("6.3 PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0; 5]), protocol),
        ("6.3 PRIORITY of 4 bytes", frame(PRIORITY, 0, 1, &[0; 4]), Refused(&[FRAME_SIZE_ERROR])),
        ("6.4 RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0; 4]), protocol),
        ("6.4 RST_STREAM of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), protocol),
        ("6.4 RST_STREAM of 3 bytes", [post(origin, &[]), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), size),
        ("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), protocol),
        ("6.5 SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), size),
        ("6.5 ACK with settings", frame(SETTINGS, ACK, 0, &[0; 6]), size),
        ("6.5.2 ENABLE_PUSH 2", setting(2, 2), protocol),
        ("6.5.2 INITIAL_WINDOW_SIZE 2^31", setting(4, 1 << 31), Goaway(FLOW_CONTROL)),
        ("6.5.2 MAX_FRAME_SIZE 2^14-1", setting(5, 16_383), protocol),
        ("6.5.2 MAX_FRAME_SIZE 2^24", setting(5, 1 << 24), protocol),
        ("6.5.2 unknown setting", setting(0xfafa, 7), Alive),
        (
            "6.6 PUSH_PROMISE of a client",
            [post(origin, &[]), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])].concat(),
            protocol,
        ),
        ("6.7 PING on a stream", frame(PING, 0, 1, &[0; 8]), protocol),
        ("6.7 PING of 7 bytes", frame(PING, 0, 0, &[0; 7]), size),
        ("6.7 ACK that nobody asked for", frame(PING, ACK, 0, &[0; 8]), Alive),
        ("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), protocol),
        ("6.9 increment 0, connection", update(0, 0), protocol),
        ("6.9 increment 0, stream", [post(origin, &[]), update(1, 0)].concat(), Refused(&[PROTOCOL_ERROR])),
        ("6.9 WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), size),
        ("6.9 WINDOW_UPDATE of an idle stream", update(1, 1), protocol),
        (
            "6.9.1 window beyond 2^31-1, connection",
            [update(0, (1 << 31) - 1), update(0, 1)].concat(),
            Goaway(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "6.9.1 window beyond 2^31-1, stream",
            [post(origin, &[]), update(1, (1 << 31) - 1)].concat(),
            Refused(&[FLOW_CONTROL_ERROR]),
        ),
    ];
    bench.check(&cases);
}

#[test]
fn streams_in_the_wrong_state() {
    let bench = Bench::new("");
    let origin = bench.origin.address;
    let protocol = Goaway(&[PROTOCOL_ERROR]);
    let closed = Closed(CLOSED);
    let authority = origin.to_string();
    let fields = request(&authority, &[]);
    let open_block = frame(HEADERS, END_STREAM, 1, &block(&fields));
    let rest = frame(CONTINUATION, END_HEADERS, 1, &[]);
    let cases: [(&str, Vec<u8>, Expect); 17] = [
        ("5.1 DATA on an idle stream", frame(DATA, END_STREAM, 1, b"x"), protocol),
        ("5.1 CONTINUATION on an idle stream", rest.clone(), protocol),
        ("5.1 DATA after the end", [get(origin, &[]), frame(DATA, END_STREAM, 1, b"x")].concat(), closed),
        ("5.1 HEADERS after the end", [get(origin, &[]), get(origin, &[])].concat(), closed),
        ("5.1 CONTINUATION after the end", [get(origin, &[]), rest.clone()].concat(), protocol),
        (
            "5.1 HEADERS after RST_STREAM",
            [post(origin, &[]), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), get(origin, &[])].concat(),
            closed,
        ),
        ("5.1.1 even stream", headers(2, &fields, true), protocol),
        (
            "5.1.1 smaller stream",
            [headers(5, &request("a.invalid", &[]), false), headers(3, &fields, true)].concat(),
            protocol,
        ),
        (
            "5.3 stream that depends on itself",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9]),
            Refused(&[PROTOCOL_ERROR]),
        ),
        (
            "5.5 unknown frame within a block",
            [open_block.clone(), frame(99, 0, 1, &[]), rest.clone()].concat(),
            protocol,
        ),
        (
            "6.2 PRIORITY within a block",
            [open_block.clone(), frame(PRIORITY, 0, 1, &[0; 5]), rest.clone()].concat(),
            protocol,
        ),
        ("6.2 HEADERS within a block", [open_block.clone(), headers(3, &fields, true)].concat(), protocol),
        (
            "6.10 CONTINUATION of another stream",
            [open_block.clone(), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            protocol,
        ),
        (
            "6.10 CONTINUATION on stream 0",
            [open_block.clone(), frame(CONTINUATION, END_HEADERS, 0, &[])].concat(),
            protocol,
        ),
        (
            "6.10 CONTINUATION after DATA",
            [post(origin, &[]), frame(DATA, 0, 1, b"x"), rest.clone()].concat(),
            protocol,
        ),
        (
            "6.10 a block in pieces",
            [open_block.clone(), frame(CONTINUATION, 0, 1, &[]), rest].concat(),
            Served,
        ),
        (
            "5.1 PRIORITY in any state",
            [frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 9]), get(origin, &[])].concat(),
            Served,
        ),
    ];
    bench.check(&cases);
}

#[test]
fn requests_that_are_malformed() {
    let bench = Bench::new("");
    let origin = bench.origin.address;
    let authority = origin.to_string();
    let with = |fields: &[(&str, &str)]| headers(1, fields, true);
    let without = |name: &str| {
        let fields: Vec<_> = request(&authority, &[]).into_iter().filter(|field| field.0 != name).collect();
        headers(1, &fields, true)
    };
    let instead = |name: &str, value: &str| {
        let replace = |(field, old)| if field == name { (field, value) } else { (field, old) };
        let fields: Vec<_> = request(&authority, &[]).into_iter().map(replace).collect();
        headers(1, &fields, true)
    };
    // RFC 9113 §5.4: a stream's error may be treated as the connection's.
    let malformed = Refused(&[PROTOCOL_ERROR]);
    let reset = Reset(&[PROTOCOL_ERROR]);
    let trailers = |fields: &[(&str, &str)], end: bool| [post(origin, &[]), headers(1, fields, end)].concat();
    let (m, s, a, p) =
        ((":method", "GET"), (":scheme", "http"), (":authority", authority.as_str()), (":path", "/"));
    let cases: Vec<(&str, Vec<u8>, Expect)> = vec![
        ("8.2.1 upper case", get(origin, &[("X-A", "1")]), malformed),
        ("8.2.1 space in a name", get(origin, &[("x a", "1")]), malformed),
        ("8.2.1 colon in a name", get(origin, &[("x:a", "1")]), malformed),
        ("8.2.1 empty name", get(origin, &[("", "1")]), malformed),
        ("8.2.1 control in a name", get(origin, &[("x\u{1}a", "1")]), malformed),
        ("8.2.1 beyond ASCII in a name", get(origin, &[("x\u{e9}a", "1")]), malformed),
        ("8.2.1 LF in a value", get(origin, &[("x", "1\nX-Evil: 2")]), malformed),
        ("8.2.1 CR in a value", get(origin, &[("x", "1\r2")]), malformed),
        ("8.2.1 NUL in a value", get(origin, &[("x", "1\0")]), malformed),
        ("8.2.1 space before a value", get(origin, &[("x", " 1")]), BadRequest),
        ("8.2.1 space behind a value", get(origin, &[("x", "1 ")]), BadRequest),
        ("8.2.1 tab behind a value", get(origin, &[("x", "1\t")]), BadRequest),
        ("8.2.2 connection", get(origin, &[("connection", "keep-alive")]), reset),
        ("8.2.2 keep-alive", get(origin, &[("keep-alive", "5")]), reset),
        ("8.2.2 proxy-connection", get(origin, &[("proxy-connection", "x")]), reset),
        ("8.2.2 transfer-encoding", get(origin, &[("transfer-encoding", "chunked")]), reset),
        ("8.2.2 upgrade", get(origin, &[("upgrade", "h2c")]), reset),
        ("8.2.2 te: gzip", get(origin, &[("te", "gzip")]), reset),
        ("8.2.2 te: trailers", get(origin, &[("te", "trailers")]), Served),
        ("8.3 unknown pseudo-field", get(origin, &[(":wow", "1")]), malformed),
        ("8.3 pseudo-field of a response", with(&[m, s, a, p, (":status", "200")]), malformed),
        ("8.3 pseudo-field after others", with(&[m, s, ("x", "1"), a, p]), malformed),
        ("8.3 pseudo-field twice: method", with(&[m, m, s, a, p]), reset),
        ("8.3 pseudo-field twice: scheme", with(&[m, s, s, a, p]), reset),
        ("8.3 pseudo-field twice: authority", with(&[m, s, a, a, p]), reset),
        ("8.3 pseudo-field twice: path", with(&[m, s, a, p, p]), reset),
        // It is dropped: nothing of it goes on.
        ("8.3 pseudo-field in trailers", trailers(&[(":path", "/")], true), Served),
        ("8.3.1 no method", without(":method"), reset),
        ("8.3.1 no scheme", without(":scheme"), reset),
        ("8.3.1 no path", without(":path"), reset),
        ("8.3.1 empty path", instead(":path", ""), malformed),
        ("8.3.1 path without slash", instead(":path", "x"), malformed),
        ("8.3.1 asterisk for GET", instead(":path", "*"), BadRequest),
        ("8.3.1 space in a path", instead(":path", "/ HTTP/1.1"), malformed),
        ("8.3.1 LF in a path", instead(":path", "/\r\nX: 1"), malformed),
        ("8.3.1 fragment in a path", instead(":path", "/#x"), Served),
        ("8.3.1 space in a method", instead(":method", "GET /evil"), malformed),
        ("8.3.1 LF in a method", instead(":method", "GET\r\n"), malformed),
        ("8.3.1 empty method", instead(":method", ""), malformed),
        ("8.3.1 user information", instead(":authority", "u@a.example"), BadRequest),
        ("8.3.1 LF in an authority", instead(":authority", "a.example\r\nX: 1"), malformed),
        ("8.3.1 path in an authority", instead(":authority", "a.example/x"), malformed),
        ("8.3.1 port that is none", instead(":authority", "127.0.0.1:99999"), BadRequest),
        ("8.3.1 another scheme", instead(":scheme", "ftp"), BadRequest),
        ("8.3.1 Host that differs", get(origin, &[("host", "evil.example")]), BadRequest),
        ("8.3.1 Host twice", get(origin, &[("host", &authority), ("host", &authority)]), BadRequest),
        ("8.3.1 Host that agrees", get(origin, &[("host", &authority)]), Served),
        ("8.5 CONNECT with a path", with(&[(":method", "CONNECT"), a, p]), reset),
        ("8.5 CONNECT with a scheme", with(&[(":method", "CONNECT"), s, a]), reset),
        ("8.5 CONNECT without authority", with(&[(":method", "CONNECT")]), BadRequest),
        (
            "8.5 CONNECT without port",
            with(&[(":method", "CONNECT"), (":authority", "a.example")]),
            BadRequest,
        ),
        ("RFC 8441 :protocol without CONNECT", with(&[m, s, a, p, (":protocol", "websocket")]), malformed),
        (
            "RFC 8441 unknown :protocol",
            with(&[(":method", "CONNECT"), s, a, p, (":protocol", "x")]),
            BadRequest,
        ),
        ("8.1.1 content-length without a body", get(origin, &[("content-length", "5")]), malformed),
        ("8.1.1 content-length that is no number", get(origin, &[("content-length", "x")]), malformed),
        (
            "8.1.1 content-length twice",
            get(origin, &[("content-length", "0"), ("content-length", "1")]),
            malformed,
        ),
        ("8.1 trailers that end nothing", trailers(&[("x", "1")], false), malformed),
        ("8.1 upper case in trailers", trailers(&[("X", "1")], true), malformed),
    ];
    bench.check(&cases);
}

#[test]
fn a_body_of_another_length_is_never_whole_at_the_origin() {
    let bench = Bench::new("");
    let origin = bench.origin.address;
    let announced = post(origin, &[("content-length", "5")]);
    let with = |body: &[u8]| [announced.as_slice(), &frame(DATA, END_STREAM, 1, body)].concat();
    bench.check(&[
        ("less than announced", with(b"1234"), Refused(&[PROTOCOL_ERROR])),
        ("more than announced", with(b"123456"), Refused(&[PROTOCOL_ERROR])),
        ("as announced", with(b"12345"), Served),
    ]);
}
