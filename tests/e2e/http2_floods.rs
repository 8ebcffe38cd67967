//! HTTP/2 clients that send much of what costs them nothing: each is bounded, its connection is ended with
//! ENHANCE_YOUR_CALM or its like, and others are served meanwhile.

use std::io::Read;
use std::time::{Duration, Instant};

use weir_tests::frames::{
    CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, headers,
};
use weir_tests::origin::Origin;
use weir_tests::weir::{SOON, Weir};

const ENHANCE_YOUR_CALM: u32 = 11;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// `:status: 200` as the 8th entry of the static table (RFC 7541 Appendix A).
const STATUS_200: u8 = 0x88;

fn request(origin: &Origin) -> Vec<(String, String)> {
    let authority = origin.address.to_string();
    [(":method", "GET"), (":scheme", "http"), (":authority", &authority), (":path", "/")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

fn get(stream: u32, origin: &Origin, end: bool) -> Vec<u8> {
    let fields = request(origin);
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    headers(stream, &fields, end)
}

fn small_origin() -> Origin {
    Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
}

/// Sends `flood` until the connection is ended, and `much` of it at the most; the code it was ended with. A request on
/// another connection is served meanwhile.
fn code_after(weir: &Weir, origin: &Origin, much: usize, flood: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let mut client = Client::connect(weir.proxy);
    let mut other = Client::connect(weir.proxy);
    let mut sent = 0;
    let mut nth = 0;
    // What comes back is read meanwhile, or it would be the client that blocks.
    let mut reader = Client { stream: client.stream.try_clone().expect("a socket") };
    let code = std::thread::spawn(move || {
        reader.until(|frame| frame.kind == GOAWAY && frame.error_code() != Some(0)).ok()?.error_code()
    });
    while sent < much && !code.is_finished() {
        let bytes: Vec<u8> = (0..100).flat_map(|more| flood(nth + more)).collect();
        client.send(&bytes);
        sent += bytes.len();
        nth += 100;
    }
    other.send(&get(1, origin, true));
    let head = other.until(|frame| frame.kind == HEADERS).expect("others are served");
    assert_eq!(head.payload.first(), Some(&STATUS_200));
    code.join().expect("a thread that only reads")
}

#[test]
fn floods_of_frames_end_their_connection() {
    let (weir, origin) = (Weir::explicit(""), small_origin());
    const MUCH: usize = 4 << 20;
    let calm = Some(ENHANCE_YOUR_CALM);
    let ping = |nth: u32| frame(PING, 0, 0, &[nth.to_be_bytes(), [0; 4]].concat());
    assert_eq!(code_after(&weir, &origin, MUCH, ping), calm, "PING");
    assert_eq!(code_after(&weir, &origin, MUCH, |_| frame(SETTINGS, 0, 0, &[])), calm, "SETTINGS");
    let window =
        |nth: u32| frame(SETTINGS, 0, 0, &[[0, 4].as_slice(), &(65_535 + nth % 2).to_be_bytes()].concat());
    assert_eq!(code_after(&weir, &origin, MUCH, window), calm, "SETTINGS that move windows");
    assert_eq!(
        code_after(&weir, &origin, MUCH, |_| frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 9])),
        calm,
        "PRIORITY"
    );
    assert_eq!(code_after(&weir, &origin, MUCH, |_| frame(77, 0, 0, &[])), calm, "unknown frames");
    let update = |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    assert_eq!(code_after(&weir, &origin, MUCH, update), calm, "WINDOW_UPDATE");
    let empty = |nth: u32| match nth {
        0 => get(1, &origin, false),
        _ => frame(DATA, 0, 1, &[]),
    };
    assert_eq!(code_after(&weir, &origin, MUCH, empty), calm, "empty DATA");
    // The last kind is bounded before it gets that far.
    assert_eq!(weir.metric("http2_floods_total"), 6);
}

#[test]
fn rapid_resets_end_their_connection_and_stop_the_work() {
    let origin = Origin::start(|_| {
        std::thread::sleep(Duration::from_millis(50));
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec()
    });
    let weir = Weir::explicit("");
    let reset = |nth: u32| {
        let stream = 2 * nth + 1;
        [get(stream, &origin, true), frame(RST_STREAM, 0, stream, &CANCEL)].concat()
    };
    let code = code_after(&weir, &origin, 16 << 20, reset);
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    assert!(origin.requests().len() < 1000, "{} of them reached the origin", origin.requests().len());
}

#[test]
fn a_header_block_without_end_is_not_kept() {
    let (weir, origin) = (Weir::explicit(""), small_origin());
    let before = weir.resident_kib();
    let endless = |nth: u32| match nth {
        0 => frame(HEADERS, END_STREAM, 1, &block(&[(":method", "GET")])),
        _ => frame(CONTINUATION, 0, 1, &block(&[("x", &"y".repeat(1000))])),
    };
    let code = code_after(&weir, &origin, 64 << 20, endless);
    assert!(matches!(code, Some(ENHANCE_YOUR_CALM | 1)), "{code:?}");
    let tiny = |nth: u32| match nth {
        0 => frame(HEADERS, END_STREAM, 1, &block(&[(":method", "GET")])),
        _ => frame(CONTINUATION, 0, 1, &[]),
    };
    let code = code_after(&weir, &origin, 4 << 20, tiny);
    assert!(matches!(code, Some(ENHANCE_YOUR_CALM | 1)), "{code:?}");
    assert!(weir.resident_kib() < before + (8 << 10), "from {before} KiB to {}", weir.resident_kib());
}

#[test]
fn a_small_block_that_unfolds_into_much_is_not_served() {
    let (weir, origin) = (Weir::explicit(""), small_origin());
    let before = weir.resident_kib();
    let mut client = Client::connect(weir.proxy);
    // A field of 4 kB goes into the dynamic table; each byte behind it is the whole of it again (RFC 7541 §6.1).
    let mut bomb = block(&[]);
    let fields = request(&origin);
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    bomb.extend_from_slice(&block(&fields));
    let entry = block(&[("bomb", &"x".repeat(3900))]);
    bomb.push(0x40);
    bomb.extend_from_slice(&entry[1..]);
    bomb.extend(std::iter::repeat_n(0xbe, 12_000 - entry.len()));
    for nth in 0..50 {
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * nth + 1, &bomb));
        let Ok(end) = client.until(|frame| frame.stream == 2 * nth + 1 || frame.kind == GOAWAY) else {
            break;
        };
        assert_ne!(end.payload.first(), Some(&STATUS_200), "it was served");
        if end.kind == GOAWAY {
            break;
        }
    }
    assert_eq!(origin.requests().len(), 0);
    assert!(weir.resident_kib() < before + (8 << 10), "from {before} KiB to {}", weir.resident_kib());
}

#[test]
fn clients_that_open_no_window_hold_little_and_not_for_ever() {
    let large = Origin::start(|_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 8 << 20);
        [head.into_bytes(), vec![b'x'; 8 << 20]].concat()
    });
    let weir = Weir::explicit("server: {timeouts: {write: 2s}}");
    let before = weir.resident_kib();
    let mut client = Client::connect(weir.proxy);
    client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    for nth in 0..100 {
        client.send(&get(2 * nth + 1, &large, true));
    }
    let began = Instant::now();
    let resets = (0..100).filter(|_| client.until(|frame| frame.kind == RST_STREAM).is_ok()).count();
    assert_eq!(resets, 100, "each stream is given up after server.timeouts.write");
    assert!(began.elapsed() < SOON);
    let held = weir.resident_kib().saturating_sub(before);
    assert!(held < 24 << 10, "{held} KiB for 100 streams of 8 MiB");
}

#[test]
fn an_idle_connection_is_ended_in_order() {
    let origin = small_origin();
    let weir = Weir::explicit("server: {timeouts: {idle: 1s}}");
    let mut client = Client::connect(weir.proxy);
    client.send(&get(1, &origin, true));
    assert!(client.until(|frame| frame.kind == DATA).is_ok());
    // Nothing is under way: GOAWAY, and then the end.
    let goaway = client.until(|frame| frame.kind == GOAWAY).expect("an idle connection is ended");
    assert_eq!(goaway.error_code(), Some(0));
    let mut rest = Vec::new();
    assert!(client.stream.read_to_end(&mut rest).is_ok(), "it ends in order");
}
