//! How much the sockets of a bulk transfer may hold in the kernel.
//!
//! Left alone, TCP grows both buffers for as long as the reader is the slower one, up to net.ipv4.tcp_rmem and
//! tcp_wmem: many megabytes that a stalled reader makes the kernel hold, and that push each other out of the CPU's
//! cache before they are read. Between two machines that is what fills the line. A peer on this machine has no line
//! to fill.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

/// For a peer on this machine. Half of it took a seventh more CPU a byte (more wake-ups); without a bound a single stream
/// had a tenth less throughput.
const LOCAL: usize = 1 << 20;

/// Bounds what `from` may hold unread and `to` unsent, as `configured`; without that, where the peer is local.
/// Failure leaves the kernel's own bound.
pub(super) fn bound(from: &TcpStream, to: &TcpStream, configured: Option<usize>) {
    let size = |socket: &TcpStream| configured.or_else(|| is_local(socket).then_some(LOCAL));
    if let Some(size) = size(from) {
        let _ = SockRef::from(from).set_recv_buffer_size(size);
    }
    if let Some(size) = size(to) {
        let _ = SockRef::from(to).set_send_buffer_size(size);
    }
}

fn is_local(socket: &TcpStream) -> bool {
    let ends = || -> io::Result<(SocketAddr, SocketAddr)> { Ok((socket.peer_addr()?, socket.local_addr()?)) };
    ends().is_ok_and(|(peer, own)| peer.ip().is_loopback() || peer.ip() == own.ip())
}
