//! RFC 9113 §3 to §6 to the letter, as far as a server shows it: frames of the wrong size, in the wrong place or state end
//! their stream or connection with the code that the RFC gives, and disturb nobody else.

use weir_tests::frames::{
    ACK, CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, headers,
};
use weir_tests::http;
use weir_tests::strict::Expect::{self, Alive, Closed, Goaway, Refused, Served};
use weir_tests::strict::{
    Bench, CLOSED, COMPRESSION, FLOW_CONTROL, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, get,
    post, request, setting, update,
};
use weir_tests::weir::connect;

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
