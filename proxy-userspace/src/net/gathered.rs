//! What an HTTP/2 connection sends, gathered: h2 flushes behind every frame of content, and a system call for each costs
//! more than all else that weir does for a response. Here a flush is put off until the connection's task is polled
//! once more, behind the tasks of streams that are ready to send meanwhile.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is held: full TLS records, and still little beside what the kernel holds for a connection.
const MAX_HELD: usize = 32 << 10;

/// Unused buffers that a worker keeps.
const MAX_SPARE: usize = 16;

/// A connection whose writes are gathered. Reading and writing belong to one task, which is woken for what is held.
#[derive(Debug)]
pub struct Gathered<S> {
    stream: S,
    held: Vec<u8>,
    /// How much of it is sent.
    start: usize,
    stage: Stage,
}

/// How what is held stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing was read yet: a handshake, in which the peer may wait for every byte.
    Handshake,
    /// To be put off at the next flush.
    Gathering,
    /// Put off; the task was woken.
    PutOff,
    /// The task has begun anew (it reads first): the next flush sends.
    Due,
}

impl<S> Gathered<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, held: Vec::new(), start: 0, stage: Stage::Handshake }
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.held.capacity() == 0 {
            self.held = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(MAX_HELD));
        }
        self.held.extend_from_slice(bytes);
    }

    fn release(&mut self) {
        (self.start, self.stage) = (0, Stage::Gathering);
        let mut held = std::mem::take(&mut self.held);
        held.clear();
        if held.capacity() == MAX_HELD {
            // While the thread ends, its spare ones may be gone.
            let _ = SPARE.try_with(|spare| {
                let mut spare = spare.borrow_mut();
                if spare.len() < MAX_SPARE {
                    spare.push(held);
                }
            });
        }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.stage = Stage::Due;
        while self.start < self.held.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held[self.start..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.start += sent,
            }
        }
        self.release();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        if this.held.len() + length > MAX_HELD {
            ready!(this.poll_send(cx))?;
            // What is large gains nothing by being copied.
            if length > MAX_HELD / 2 {
                return Pin::new(&mut this.stream).poll_write_vectored(cx, parts);
            }
        }
        parts.iter().for_each(|part| this.hold(part));
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.stage {
            Stage::Gathering if !this.held.is_empty() => {
                this.stage = Stage::PutOff;
                cx.waker().wake_by_ref();
                Poll::Ready(Ok(()))
            }
            Stage::PutOff => Poll::Ready(Ok(())),
            Stage::Gathering => Pin::new(&mut this.stream).poll_flush(cx),
            Stage::Handshake | Stage::Due => {
                let handshake = this.stage == Stage::Handshake;
                ready!(this.poll_send(cx))?;
                if handshake {
                    this.stage = Stage::Handshake;
                }
                Pin::new(&mut this.stream).poll_flush(cx)
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.stage == Stage::PutOff {
            this.stage = Stage::Due;
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, into))?;
        if this.stage == Stage::Handshake && into.filled().len() > before {
            this.stage = Stage::Gathering;
        }
        Poll::Ready(Ok(()))
    }
}

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// Bytes that have arrived at the other end.
    fn arrived(peer: &mut tokio::io::DuplexStream) -> usize {
        let (mut bytes, mut cx) = ([0; 4 * MAX_HELD], Context::from_waker(Waker::noop()));
        let mut buffer = ReadBuf::new(&mut bytes);
        let _ = Pin::new(peer).poll_read(&mut cx, &mut buffer);
        buffer.filled().len()
    }

    async fn gathering() -> (Gathered<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (stream, mut peer) = duplex(8 * MAX_HELD);
        let mut gathered = Gathered::new(stream);
        gathered.write_all(b"hello").await.unwrap();
        gathered.flush().await.unwrap();
        assert_eq!(arrived(&mut peer), 5, "a handshake waits for nothing");
        peer.write_all(b"x").await.unwrap();
        gathered.read_exact(&mut [0]).await.unwrap();
        (gathered, peer)
    }

    #[tokio::test]
    async fn what_is_written_in_one_round_is_sent_in_the_next() {
        let (mut gathered, mut peer) = gathering().await;
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            gathered.write_all(b"frame").await.unwrap();
            gathered.flush().await.unwrap();
            assert_eq!(arrived(&mut peer), 0);
        }
        let _ = Pin::new(&mut gathered).poll_read(&mut cx, &mut ReadBuf::new(&mut [0; 8]));
        gathered.write_all(b"frame").await.unwrap();
        gathered.flush().await.unwrap();
        assert_eq!(arrived(&mut peer), 20);
        assert_eq!(gathered.held.capacity(), 0, "an idle connection holds nothing");
    }

    #[tokio::test]
    async fn no_more_than_the_bound_is_held_and_nothing_is_lost() {
        let (mut gathered, mut peer) = gathering().await;
        let frame = [7; 10_000];
        for _ in 0..10 {
            gathered.write_all(&frame).await.unwrap();
            gathered.flush().await.unwrap();
            assert!(gathered.held.len() <= MAX_HELD);
        }
        gathered.write_all(&[8; MAX_HELD]).await.unwrap();
        gathered.shutdown().await.unwrap();
        let mut all = Vec::new();
        drop(gathered);
        peer.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 100_000 + MAX_HELD);
        assert!(all[..100_000].iter().all(|byte| *byte == 7));
    }
}
