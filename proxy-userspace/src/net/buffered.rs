//! Bytes that were read ahead of what could be used, in a buffer that exists only while there are any.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

/// What one read may bring. A request or small response with its head fits.
pub const BUFFER_SIZE: usize = 16 << 10;

/// Unused buffers kept per worker.
const POOL_SIZE: usize = 64;

/// What arrived on a connection and was not used yet.
#[derive(Debug, Default)]
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
}

impl Inbox {
    /// An inbox that begins with `bytes`.
    #[must_use]
    pub fn holding(bytes: &[u8]) -> Self {
        let mut inbox = Self::default();
        inbox.make_room(bytes.len());
        inbox.buffer.extend_from_slice(bytes);
        inbox
    }

    /// What is there.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Marks the first `count` bytes as used.
    pub fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.buffer.len());
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Reads once from `source`; 0 is the end of the stream.
    ///
    /// # Errors
    /// What read(2) says.
    pub async fn fill(&mut self, source: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.make_room(BUFFER_SIZE / 4);
        source.read_buf(&mut self.buffer).await
    }

    /// As [`Inbox::fill`], but holds no memory while it waits: for waits that may be long.
    ///
    /// # Errors
    /// What read(2) says.
    pub async fn fill_patiently(&mut self, source: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        poll_fn(|cx| {
            self.make_room(BUFFER_SIZE / 4);
            let read = pin!(source.read_buf(&mut self.buffer)).poll(cx);
            if read.is_pending() {
                self.release();
            }
            read
        })
        .await
    }

    /// As [`Inbox::fill`], but does not wait.
    ///
    /// # Errors
    /// What read(2) says: WouldBlock if nothing has arrived.
    pub fn try_fill(&mut self, source: &TcpStream) -> io::Result<usize> {
        self.make_room(BUFFER_SIZE / 4);
        source.try_read_buf(&mut self.buffer)
    }

    /// Gives the memory back if nothing is in it; called before a long wait.
    pub fn release(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > 0 {
            let buffer = std::mem::take(&mut self.buffer);
            POOL.with_borrow_mut(|pool| {
                if pool.len() < POOL_SIZE && buffer.capacity() == BUFFER_SIZE {
                    pool.push(buffer);
                }
            });
        }
    }

    fn make_room(&mut self, count: usize) {
        if self.buffer.capacity() == 0 {
            self.buffer = POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(BUFFER_SIZE));
        }
        if self.buffer.capacity() - self.buffer.len() < count && self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.reserve(count);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.buffer.clear();
        self.release();
    }
}

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}
