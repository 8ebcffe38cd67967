//! An HTTP/2 peer's frames as they arrive: counts those that cost more to take than to send, sees those of a size that
//! their kind can't have, and stops reading from a peer that sends either. What the frames say is for the `h2` crate to
//! know, which bounds its memory but not its work, and has one error code for much.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use h2::Reason;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffered::Inbox;
use super::transport::Transport;

/// Within how long the frames below are counted.
const PERIOD: Duration = Duration::from_secs(10);

/// PING, SETTINGS, PRIORITY, empty DATA and unknown frames in a period, if nothing is sent.
const FREE_CONTROL: u64 = 1000;

/// Streams that a peer opens and takes back in a period (CVE-2023-44487). A browser that leaves a page takes back
/// what it had asked for: at most as many as it may have open, a few times.
const MAX_RESETS: u32 = 500;

/// WINDOW_UPDATEs in a period, if nothing is sent.
const FREE_UPDATES: u64 = 1000;

/// The bytes sent that earn one more of either. Whoever receives updates windows, and measures the round trip by PINGs
/// meanwhile (gRPC does at every one).
const BYTES_PER_FRAME: u64 = 256;

/// RFC 9113 §6.5.
const SETTINGS: u8 = 4;

/// RFC 9113 §4.1.
const FRAME_HEAD: usize = 9;

/// RFC 9113 §3.4: what a client sends before its first frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose incoming frames are counted. When dropped, it leaves the stream in its [`Watch`], for an orderly
/// end.
#[derive(Debug)]
pub struct Watched<S> {
    stream: Option<S>,
    /// What was read before the connection was known to speak HTTP/2.
    ahead: Inbox,
    /// Bytes of the preface, or of a frame's payload, that are still to come.
    skip: usize,
    head: [u8; FRAME_HEAD],
    head_length: usize,
    /// A frame has come.
    begun: bool,
    count: Count,
    watch: Rc<Watch<S>>,
}

/// What is known of a watched connection from outside.
#[derive(Debug)]
pub struct Watch<S> {
    objection: Cell<Option<Reason>>,
    greeted: Cell<bool>,
    raised: Cell<bool>,
    shut_down: Cell<bool>,
    left: RefCell<Option<S>>,
}

impl<S> Watch<S> {
    /// Why the connection is to be ended: ENHANCE_YOUR_CALM if the peer has sent too much of what only costs. Says so
    /// once. Nothing more is read from it then.
    #[must_use]
    pub fn objection(&self) -> Option<Reason> {
        self.objection.get().filter(|_| !self.raised.replace(true))
    }

    /// Whether the peer's first frame, its SETTINGS, has come.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        self.greeted.get()
    }

    fn objects(&self) -> bool {
        self.objection.get().is_some()
    }

    /// Whether FIN was sent: the connection was ended in order, or with a reason that the peer is to read.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shut_down.get()
    }

    /// The stream, once nobody uses it as a [`Watched`] any more.
    #[must_use]
    pub fn stream(&self) -> Option<S> {
        self.left.take()
    }
}

impl<S> Watched<S> {
    /// A connection from which `ahead` was read already. `preface` is what precedes the peer's first frame.
    pub fn new(stream: S, ahead: Inbox, preface: usize) -> (Self, Rc<Watch<S>>) {
        let watch = Rc::new(Watch {
            objection: Cell::new(None),
            greeted: Cell::new(false),
            raised: Cell::new(false),
            shut_down: Cell::new(false),
            left: RefCell::new(None),
        });
        let watched = Self {
            stream: Some(stream),
            ahead,
            skip: preface,
            head: [0; FRAME_HEAD],
            head_length: 0,
            begun: false,
            count: Count::default(),
            watch: Rc::clone(&watch),
        };
        (watched, watch)
    }

    fn look(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.begun && self.skip == 0 {
                self.watch.greeted.set(true);
            }
            let wanted = (FRAME_HEAD - self.head_length).min(bytes.len());
            self.head[self.head_length..self.head_length + wanted].copy_from_slice(&bytes[..wanted]);
            self.head_length += wanted;
            bytes = &bytes[wanted..];
            if self.head_length == FRAME_HEAD {
                self.head_length = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                // RFC 9113 §3.4: SETTINGS come first.
                if !std::mem::replace(&mut self.begun, true) && kind != SETTINGS {
                    self.object(Reason::PROTOCOL_ERROR);
                }
                if !fits(kind, flags, self.skip) {
                    self.object(Reason::FRAME_SIZE_ERROR);
                }
                if self.count.is_too_much(kind, self.skip) {
                    self.object(Reason::ENHANCE_YOUR_CALM);
                }
            }
        }
    }

    fn object(&self, reason: Reason) {
        // What came first counts.
        self.watch.objection.set(self.watch.objection.get().or(Some(reason)));
    }

    fn stream(&mut self) -> io::Result<Pin<&mut S>>
    where
        S: Unpin,
    {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        self.watch.left.replace(self.stream.take());
    }
}

/// Whether a frame of this kind can have this size (RFC 9113 §6.3 to §6.9).
fn fits(kind: u8, flags: u8, length: usize) -> bool {
    const ACK: u8 = 1;
    match kind {
        2 => length == 5,
        3 | 8 => length == 4,
        SETTINGS if flags & ACK != 0 => length == 0,
        SETTINGS => length.is_multiple_of(6),
        6 => length == 8,
        _ => true,
    }
}

/// Frames, and bytes sent, since the period began.
#[derive(Debug, Default)]
struct Count {
    since: Option<Instant>,
    control: u64,
    resets: u32,
    updates: u64,
    sent: u64,
}

impl Count {
    /// Whether one more frame of `kind` (RFC 9113 §6) is more than a peer in its right mind sends.
    fn is_too_much(&mut self, kind: u8, length: usize) -> bool {
        match (kind, length) {
            // DATA with content and HEADERS are paid for by flow control and the limit of streams; GOAWAY ends
            // everything; CONTINUATION is bounded by h2.
            (0, 1..) | (1 | 5 | 7 | 9, _) => return false,
            (3, _) => self.resets += 1,
            (8, _) => self.updates += 1,
            _ => self.control += 1,
        }
        let earned = self.sent / BYTES_PER_FRAME;
        let within = self.resets <= MAX_RESETS
            && self.control <= FREE_CONTROL + earned
            && self.updates <= FREE_UPDATES + earned;
        if within {
            // The clock is asked only at the first frame of a period, and when there were many.
            self.since.get_or_insert_with(Instant::now);
            return false;
        }
        let too_soon = self.since.is_none_or(|since| since.elapsed() < PERIOD);
        *self = Self { since: Some(Instant::now()), ..Self::default() };
        too_soon
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.watch.objects() {
            return Poll::Pending;
        }
        let before = into.filled().len();
        if this.ahead.bytes().is_empty() {
            ready!(this.stream()?.poll_read(cx, into))?;
        } else {
            let count = this.ahead.bytes().len().min(into.remaining());
            into.put_slice(&this.ahead.bytes()[..count]);
            this.ahead.consume(count);
            this.ahead.release();
        }
        this.look(&into.filled()[before..]);
        if this.watch.objects() {
            // Whoever owns the connection is to see it before anything of this is worked on.
            into.set_filled(before);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched<Transport> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream()?.poll_write(cx, bytes))?;
        self.count.sent += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream()?.poll_write_vectored(cx, parts))?;
        self.count.sent += written as u64;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    /// An end in order: without this, close(2) would reset the connection (see [`super::listener`]).
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(stream) = &self.stream {
            SockRef::from(stream.socket()).set_linger(None)?;
        }
        self.watch.shut_down.set(true);
        self.stream()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;
    const DATA: u8 = 0;
    const RST_STREAM: u8 = 3;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        [&[0, 0, length, kind, 0, 0, 0, 0, 1], vec![7; usize::from(length)].as_slice()].concat()
    }

    /// Whether so many frames of a kind, in pieces of some bytes, are a flood.
    #[track_caller]
    fn check(kind: u8, length: u8, count: u32, flood: bool) {
        let bytes = [PREFACE, &frame(SETTINGS, 0), &frame(kind, length).repeat(count as usize)].concat();
        for piece in [1, 7, 1000] {
            let (mut watched, watch) = Watched::new((), Inbox::default(), PREFACE.len());
            bytes.chunks(piece).for_each(|piece| watched.look(piece));
            let objection = flood.then_some(Reason::ENHANCE_YOUR_CALM);
            assert_eq!(watch.objection(), objection, "{count} frames of kind {kind}");
        }
    }

    #[test]
    fn floods_are_told_from_use() {
        check(PING, 8, 999, false);
        check(PING, 8, 1000, true);
        check(DATA, 0, 1001, true);
        check(DATA, 1, 2000, false);
        check(RST_STREAM, 4, MAX_RESETS, false);
        check(RST_STREAM, 4, MAX_RESETS + 1, true);
        check(WINDOW_UPDATE, 4, 1000, false);
        check(WINDOW_UPDATE, 4, 1001, true);
        check(99, 3, 1001, true);
    }

    #[test]
    fn sizes_that_no_frame_of_its_kind_has() {
        for (kind, length, fitting) in
            [(PING, 7, false), (PING, 8, true), (4, 5, false), (4, 12, true), (2, 4, false)]
        {
            let (mut watched, watch) = Watched::new((), Inbox::default(), 0);
            watched.look(&[frame(SETTINGS, 0), frame(kind, length)].concat());
            assert_eq!(watch.objection().is_none(), fitting, "kind {kind}, {length} bytes");
        }
    }

    #[test]
    fn what_was_sent_earns_window_updates() {
        let (mut watched, watch) = Watched::new((), Inbox::default(), 0);
        watched.look(&frame(SETTINGS, 0));
        watched.count.sent = 10 << 20;
        (0..10_000).for_each(|_| watched.look(&frame(WINDOW_UPDATE, 4)));
        assert_eq!(watch.objection(), None);
    }

    #[test]
    fn a_period_begins_anew_after_its_time() {
        let mut count = Count { since: Instant::now().checked_sub(PERIOD), ..Count::default() };
        assert!((0..=FREE_CONTROL).all(|_| !count.is_too_much(PING, 8)));
    }
}
