//! RFC 9113 §8 to the letter: requests that are malformed are refused with the code that the RFC gives, or with 4xx, and
//! nothing of them reaches an origin.

use weir_tests::frames::{DATA, END_STREAM, frame, headers};
use weir_tests::strict::Expect::{self, BadRequest, Refused, Reset, Served};
use weir_tests::strict::{Bench, PROTOCOL_ERROR, get, post, request};

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
