//! The bytes beneath a TLS session: a socket's, or those of the session within which it is.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::Tls;
use crate::net::buffered::Inbox;

/// A socket that can be asked about while a TLS session owns it.
#[derive(Debug)]
pub struct Socket {
    pub(super) stream: Arc<TcpStream>,
    /// Bytes that were read before the session began.
    early: Inbox,
    /// What lies between: the session with a proxy, through which another one goes.
    outer: Option<Box<TlsStream<Socket>>>,
    /// There is such a session.
    pub(super) nested: bool,
}

impl Socket {
    /// A socket, and the same once more for the session: it begins with the bytes that were read already.
    #[must_use]
    pub fn pair(stream: TcpStream, early: Inbox) -> (Self, Self) {
        let stream = Arc::new(stream);
        let handle =
            Self { stream: Arc::clone(&stream), early: Inbox::default(), outer: None, nested: false };
        (handle, Self { stream, early, outer: None, nested: false })
    }

    /// The same for a session through `outer`.
    #[must_use]
    pub fn within(outer: Tls, early: Inbox) -> (Self, Self) {
        let Tls { session, socket } = outer;
        let (stream, session) = (Arc::clone(&socket.stream), Some(Box::new(session.into_inner())));
        let handle = Self { stream: Arc::clone(&stream), early: Inbox::default(), outer: None, nested: true };
        (handle, Self { stream, early, outer: session, nested: true })
    }

    pub(super) fn replace(&mut self, stream: &Arc<TcpStream>) {
        self.stream = Arc::clone(stream);
        if let Some(outer) = &mut self.outer {
            outer.get_mut().0.replace(stream);
        }
    }

    /// The socket itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let early = self.early.bytes();
        if !early.is_empty() {
            let count = early.len().min(buffer.remaining());
            buffer.put_slice(&early[..count]);
            self.early.consume(count);
            self.early.release();
            return Poll::Ready(Ok(()));
        }
        if let Some(outer) = &mut self.outer {
            return Pin::new(outer).poll_read(cx, buffer);
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(outer) = &mut self.outer {
            return Pin::new(outer).poll_write(cx, bytes);
        }
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.outer {
            Some(outer) => Pin::new(outer).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(outer) = &mut self.outer {
            return Pin::new(outer).poll_shutdown(cx);
        }
        Poll::Ready(SockRef::from(&*self.stream).shutdown(Shutdown::Write))
    }
}
