//! The bytes of a connection, in the clear or through TLS. What they mean, and which certificates count, is for others
//! to say.
//!
//! Both kinds end alike: dropped, the connection is reset; and one that its peer ends without saying so in TLS
//! (close_notify) reads as an error, never as an orderly end (RFC 9112 §9.8).

mod socket;

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ConnectionCommon;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp;
use tokio_rustls::TlsStream;

pub use socket::Socket;

/// A connection.
#[derive(Debug)]
pub enum Transport {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

/// A TLS connection whose handshake is done.
#[derive(Debug)]
pub struct Tls {
    /// In a cell, as both halves of the connection use it; each only while it is polled.
    session: RefCell<TlsStream<Socket>>,
    socket: Socket,
}

impl Transport {
    /// A connection through TLS, over `socket`.
    #[must_use]
    pub fn tls(session: TlsStream<Socket>, socket: Socket) -> Self {
        Self::Tls(Box::new(Tls { session: RefCell::new(session), socket }))
    }

    /// The socket beneath.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &tls.socket.stream,
        }
    }

    /// Whether the peer's bytes pass TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The protocol that both sides agreed on in the handshake (RFC 7301).
    #[must_use]
    pub fn alpn(&self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.session.borrow().get_ref().1.alpn_protocol().map(<[u8]>::to_vec),
        }
    }

    /// Both directions, to be used by one task.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match self {
            Self::Plain(stream) => {
                let (reader, writer) = stream.split();
                (ReadHalf::Plain(reader), WriteHalf::Plain(writer))
            }
            Self::Tls(tls) => (ReadHalf::Tls(tls), WriteHalf::Tls(tls)),
        }
    }

    /// Whether there is decrypted content that nobody has read, or an end.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => !tls.has_nothing(None),
        }
    }

    /// Whether the peer has said nothing that is not read yet, and has not ended the connection: between two messages it
    /// must not have. What TLS has to say for itself (session tickets) is taken note of.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let tls = match self {
            Self::Tls(tls) if !tls.socket.nested => tls,
            Self::Tls(tls) => return !says_something(&tls.socket.stream) && tls.has_nothing(None),
            Self::Plain(stream) => return !says_something(stream),
        };
        let socket = SockRef::from(&*tls.socket.stream);
        tls.has_nothing(Some(&socket))
    }

    /// The same connection for the runtime of the calling thread. Nothing may be under way on it.
    ///
    /// # Errors
    /// What taking the socket out of one epoll and putting it into another says. The connection is lost then.
    pub fn adopted(self) -> io::Result<Self> {
        match self {
            Self::Plain(stream) => Ok(Self::Plain(TcpStream::from_std(stream.into_std()?)?)),
            Self::Tls(mut tls) => {
                // The session owns its socket for good: it is given a second descriptor, and the first one closed.
                let socket = std::net::TcpStream::from(tls.socket.stream.as_fd().try_clone_to_owned()?);
                let stream = Arc::new(TcpStream::from_std(socket)?);
                tls.session.get_mut().get_mut().0.replace(&stream);
                tls.socket.stream = stream;
                Ok(Self::Tls(tls))
            }
        }
    }

    /// Lets an orderly end follow: what comes next is FIN, not RST. Through TLS, the peer is told first.
    pub fn end_in_order(&self) {
        // Of a session within another one the peer hears nothing then: it would have to be wrapped, which may wait.
        if let Self::Tls(tls) = self
            && !tls.socket.nested
        {
            // Best effort: it is a few bytes into a socket that is nearly always ready.
            let mut socket = Direct(&tls.socket.stream);
            let _ = match &mut *tls.session.borrow_mut() {
                TlsStream::Client(session) => {
                    session.get_mut().1.send_close_notify();
                    session.get_mut().1.write_tls(&mut socket)
                }
                TlsStream::Server(session) => {
                    session.get_mut().1.send_close_notify();
                    session.get_mut().1.write_tls(&mut socket)
                }
            };
        }
        // Fails only if the socket is gone already.
        let _ = SockRef::from(self.socket()).set_linger(None);
    }
}

/// Asked of the kernel: what the runtime knows of a socket may be a moment old. An end is something, too.
fn says_something(stream: &TcpStream) -> bool {
    let peeked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
    !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl Tls {
    /// Whether nothing was said in the session, once what lies in `socket` is read.
    fn has_nothing(&self, socket: Option<&socket2::Socket>) -> bool {
        match &mut *self.session.borrow_mut() {
            TlsStream::Client(session) => has_nothing(session.get_mut().1, socket),
            TlsStream::Server(session) => has_nothing(session.get_mut().1, socket),
        }
    }
}

fn has_nothing<Data>(session: &mut ConnectionCommon<Data>, socket: Option<&socket2::Socket>) -> bool {
    loop {
        let state = session.process_new_packets();
        if !state.is_ok_and(|state| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed()) {
            return false;
        }
        let Some(mut socket) = socket else { return true };
        match session.read_tls(&mut socket) {
            Ok(1..) => {}
            result => return matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock),
        }
    }
}

/// Writes at once or not at all.
struct Direct<'a>(&'a TcpStream);

impl io::Write for Direct<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reading half of a connection.
#[derive(Debug)]
pub enum ReadHalf<'a> {
    Plain(tcp::ReadHalf<'a>),
    Tls(&'a Tls),
}

/// The writing half of a connection.
#[derive(Debug)]
pub enum WriteHalf<'a> {
    Plain(tcp::WriteHalf<'a>),
    Tls(&'a Tls),
}

impl WriteHalf<'_> {
    /// Ready once the connection has been reset.
    pub async fn reset(&self) {
        // Fails only while the runtime ends.
        let _ = match self {
            Self::Plain(writer) => writer.ready(Interest::ERROR).await,
            Self::Tls(tls) => tls.socket.stream.ready(Interest::ERROR).await,
        };
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(reader) => Pin::new(reader).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(&mut *tls.session.borrow_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(writer) => Pin::new(writer).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(&mut *tls.session.borrow_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(writer) => Pin::new(writer).poll_write_vectored(cx, parts),
            Self::Tls(tls) => Pin::new(&mut *tls.session.borrow_mut()).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(writer) => Pin::new(writer).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut *tls.session.borrow_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(writer) => Pin::new(writer).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut *tls.session.borrow_mut()).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls.session.get_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls.session.get_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(tls) => Pin::new(tls.session.get_mut()).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls.session.get_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.session.get_mut()).poll_shutdown(cx),
        }
    }
}
