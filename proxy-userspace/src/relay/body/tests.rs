//! Bodies over connections in memory: what gets through, what ends early, and what the sink has got by then.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;

use std::cell::Cell;

use super::http1::{Arriving, Leaving, Receiver};
use super::*;
use crate::http::framing::Framing;
use crate::net::buffered::Inbox;
use crate::net::deadline;

/// Room in a connection that is never full in these tests.
const ROOMY: usize = 1 << 20;

const READ: Duration = Duration::from_secs(2);
const WRITE: Duration = Duration::from_secs(1);

/// A body on its way from the downstream to the upstream.
#[derive(Debug, Clone, Copy)]
struct Body<'a> {
    arriving: Framing,
    leaving: Framing,
    limit: Option<u64>,
    bytes: &'a [u8],
}

/// What became of it: how the transfer ended (as Debug shows it), what the sink got, what was not read or used.
type Outcome = (String, Vec<u8>, Vec<u8>);

/// Runs `future` as far as it gets without anything more happening.
fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Moves a body whose sender says no more after it, and ends its connection. The first `early` bytes were read
/// together with the head.
fn moved(body: Body<'_>, early: usize) -> Outcome {
    let (mut client, reader) = duplex(ROOMY);
    let (writer, mut server) = duplex(ROOMY);
    let (early, later) = body.bytes.split_at(early.min(body.bytes.len()));
    let mut inbox = Inbox::holding(early);
    let deadline = Deadline::new();
    {
        let mut sent = pin!(client.write_all(later));
        assert!(poll(sent.as_mut()).is_ready());
    }
    drop(client);
    let ended = {
        let mut transfer = pin!(transfer_with(body, reader, &mut inbox, writer, &deadline));
        match poll(transfer.as_mut()) {
            Poll::Ready(ended) => format!("{ended:?}"),
            Poll::Pending => panic!("it waits, with everything there: {body:?}"),
        }
    };
    let mut got = Vec::new();
    let mut read = pin!(server.read_to_end(&mut got));
    assert!(poll(read.as_mut()).is_ready());
    (ended, got, inbox.bytes().to_vec())
}

impl Receiver for DuplexStream {
    /// A pipe in memory is never reset.
    async fn reset(&self) {
        std::future::pending::<()>().await;
    }

    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

async fn transfer_with(
    body: Body<'_>,
    reader: DuplexStream,
    inbox: &mut Inbox,
    writer: DuplexStream,
    deadline: &Deadline,
) -> Result<u64, BodyError> {
    let source = Arriving::new(Side::Downstream, reader, inbox, body.arriving);
    let moved = Cell::default();
    let mut sink = Leaving::new(Side::Upstream, writer, body.leaving);
    sink.stage_head(body.leaving, |out| out.extend_from_slice(b"head "));
    let patience = Patience { deadline, read: READ, write: WRITE, least_rate: 0, pace: None };
    let terms = Terms { patience, limit: body.limit, paces_streams: false, moved: Some(&moved) };
    transfer(source, sink, terms).await.map(|()| moved.get())
}

/// A body must end like that, and the sink must have got `got` behind the head, in however many pieces the body
/// arrives.
#[track_caller]
fn check(arriving: Framing, bytes: &str, leaving: Framing, limit: Option<u64>, ended: &str, got: &str) {
    let body = Body { arriving, leaving, limit, bytes: bytes.as_bytes() };
    for early in 0..=bytes.len() {
        let outcome = moved(body, early);
        let text = String::from_utf8_lossy(&outcome.1).into_owned();
        assert_eq!(outcome.0, ended, "{body:?}, {early} bytes early");
        assert_eq!(decoded(&text, leaving), got, "{body:?}, {early} bytes early: {text:?}");
        let whole = leaving == Framing::Chunked && text.ends_with("0\r\n\r\n");
        assert_eq!(whole, leaving == Framing::Chunked && ended.starts_with("Ok"), "{body:?}: {text:?}");
    }
}

/// The content behind the head, without the chunks that pieces become.
fn decoded(text: &str, framing: Framing) -> String {
    let Some(mut rest) = text.strip_prefix("head ") else { return text.to_owned() };
    if framing != Framing::Chunked {
        return rest.to_owned();
    }
    let mut content = String::new();
    while let Some((size, data)) = rest.split_once("\r\n")
        && let Ok(size @ 1..) = usize::from_str_radix(size, 16)
    {
        content.push_str(&data[..size]);
        rest = &data[size + 2..];
    }
    content
}

#[test]
fn whole_bodies_in_each_framing() {
    let bodies = [
        (Framing::Length(5), "hello"),
        (Framing::UntilClose, "hello"),
        (Framing::Chunked, "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: x\r\n\r\n"),
    ];
    for (arriving, bytes) in bodies {
        for leaving in [Framing::Length(5), Framing::Chunked, Framing::UntilClose] {
            check(arriving, bytes, leaving, None, "Ok(5)", "hello");
            check(arriving, bytes, leaving, Some(5), "Ok(5)", "hello");
        }
    }
    check(Framing::None, "", Framing::None, Some(0), "Ok(0)", "");
    check(Framing::Length(0), "", Framing::Length(0), Some(0), "Ok(0)", "");
    check(Framing::Chunked, "0\r\n\r\n", Framing::Chunked, Some(0), "Ok(0)", "");
    check(Framing::UntilClose, "", Framing::Chunked, None, "Ok(0)", "");
}

#[test]
fn what_follows_a_body_is_left() {
    let bodies = [
        (Framing::None, "", ""),
        (Framing::Length(5), "hello", "hello"),
        (Framing::Chunked, "5\r\nhello\r\n0\r\n\r\n", "hello"),
    ];
    for (arriving, bytes, content) in bodies {
        let both = format!("{bytes}GET / HTTP/1.1");
        let body = Body { arriving, leaving: Framing::UntilClose, limit: None, bytes: both.as_bytes() };
        let (ended, got, left) = moved(body, both.len());
        assert_eq!(ended, format!("Ok({})", content.len()));
        assert_eq!(String::from_utf8_lossy(&got), format!("head {content}"));
        assert_eq!(String::from_utf8_lossy(&left), "GET / HTTP/1.1");
    }
}

#[test]
fn a_body_that_is_cut_off_anywhere_is_truncated() {
    let cut = "Err(Truncated(Downstream))";
    for leaving in [Framing::Length(5), Framing::Chunked, Framing::UntilClose] {
        for length in 0..5 {
            check(Framing::Length(5), &"hello"[..length], leaving, None, cut, &"hello"[..length]);
        }
        let chunked = "2\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: x\r\n\r\n";
        for length in 0..chunked.len() {
            let content = match length {
                0..=3 => "",
                4 => "h",
                5..=9 => "he",
                10 => "he",
                11 => "hel",
                12 => "hell",
                _ => "hello",
            };
            check(Framing::Chunked, &chunked[..length], leaving, None, cut, content);
        }
    }
}

#[test]
fn a_body_beyond_the_limit_is_too_large() {
    let large = "Err(TooLarge(4))";
    for (arriving, bytes) in [(Framing::Length(5), "hello"), (Framing::Chunked, "5\r\nhello\r\n0\r\n\r\n")] {
        for early in 0..=bytes.len() {
            let body = Body { arriving, leaving: arriving, limit: Some(4), bytes: bytes.as_bytes() };
            let (ended, got, _) = moved(body, early);
            assert_eq!(ended, large, "{body:?}");
            assert!(!got.ends_with(b"hello") && !got.ends_with(b"0\r\n\r\n"), "{body:?}: {got:?}");
        }
    }
}

#[test]
fn what_is_not_chunked_is_malformed() {
    for bytes in ["x\r\n", "\r\n", "-1\r\n", "1\r\nhe\r\n0\r\n\r\n", "1\nh\n0\n\n", "1234567890abcdef0\r\n"] {
        let body = Body {
            arriving: Framing::Chunked,
            leaving: Framing::Chunked,
            limit: None,
            bytes: bytes.as_bytes(),
        };
        for early in [0, bytes.len()] {
            let (ended, got, _) = moved(body, early);
            assert!(ended.starts_with("Err(Malformed("), "{bytes:?}: {ended}");
            assert!(!got.ends_with(b"0\r\n\r\n"), "{bytes:?}: {got:?}");
        }
    }
}

/// How a transfer stands after some ticks: its Debug form, or None while it waits.
fn after_ticks(
    wait: Duration,
    mut transfer: std::pin::Pin<&mut impl Future<Output = Result<u64, BodyError>>>,
) -> Option<String> {
    for _ in 0..wait.as_millis() / deadline::TICK.as_millis() {
        if let Poll::Ready(ended) = poll(transfer.as_mut()) {
            return Some(format!("{ended:?}"));
        }
        deadline::tick();
    }
    match poll(transfer.as_mut()) {
        Poll::Ready(ended) => Some(format!("{ended:?}")),
        Poll::Pending => None,
    }
}

/// The ticks by which a deadline may be late, and one for the tick that is under way.
const LATE: Duration = deadline::TICK.saturating_mul(2);

#[test]
fn a_sender_that_falls_silent_runs_out_of_time() {
    let (mut client, reader) = duplex(ROOMY);
    let (writer, mut server) = duplex(ROOMY);
    let (mut inbox, deadline) = (Inbox::holding(b"he"), Deadline::new());
    let body = Body { arriving: Framing::Length(5), leaving: Framing::Length(5), limit: None, bytes: b"" };
    {
        let mut transfer = pin!(transfer_with(body, reader, &mut inbox, writer, &deadline));
        assert_eq!(after_ticks(READ / 2, transfer.as_mut()), None);
        // What arrives is time won.
        assert!(poll(pin!(client.write_all(b"l"))).is_ready());
        assert_eq!(after_ticks(READ / 2 + LATE, transfer.as_mut()), None);
        let ended = after_ticks(READ / 2 + LATE, transfer.as_mut());
        assert_eq!(ended.as_deref(), Some("Err(TimedOut(Downstream))"));
    }
    let mut got = Vec::new();
    assert!(poll(pin!(server.read_to_end(&mut got))).is_ready());
    assert_eq!(got, b"head hel", "what came is passed on before the wait");
}

#[test]
fn a_receiver_that_takes_nothing_runs_out_of_time() {
    let (_client, reader) = duplex(ROOMY);
    let (writer, _server) = duplex(4);
    let (mut inbox, deadline) = (Inbox::holding(b"hello"), Deadline::new());
    let body = Body { arriving: Framing::Length(5), leaving: Framing::Length(5), limit: None, bytes: b"" };
    let mut transfer = pin!(transfer_with(body, reader, &mut inbox, writer, &deadline));
    assert_eq!(after_ticks(WRITE / 2, transfer.as_mut()), None);
    let ended = after_ticks(WRITE / 2 + LATE, transfer.as_mut());
    assert_eq!(ended.as_deref(), Some("Err(TimedOut(Upstream))"));
}

#[test]
fn a_receiver_that_is_gone_is_an_error_of_its_side() {
    let (_client, reader) = duplex(ROOMY);
    let (writer, server) = duplex(ROOMY);
    drop(server);
    let (mut inbox, deadline) = (Inbox::holding(b"hello"), Deadline::new());
    let body = Body { arriving: Framing::Length(5), leaving: Framing::Length(5), limit: None, bytes: b"" };
    let mut transfer = pin!(transfer_with(body, reader, &mut inbox, writer, &deadline));
    let Poll::Ready(ended) = poll(transfer.as_mut()) else { panic!("it waits for somebody who is gone") };
    assert!(matches!(ended, Err(BodyError::Io(Side::Upstream, _))), "{ended:?}");
}
