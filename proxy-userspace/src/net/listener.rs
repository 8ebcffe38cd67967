//! Listening sockets. What is set on them is inherited by every connection they accept, at no cost per
//! connection: TCP_NODELAY, and SO_LINGER{on, 0} so that a connection which weir does not end on purpose is
//! reset, even by SIGKILL.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use crate::netns;

/// Connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn.
pub const BACKLOG: i32 = 8192;

/// Opens `count` listening sockets on one address, so that each worker accepts on its own (SO_REUSEPORT).
///
/// The first one is bound without the option: an address that somebody else listens on is taken, whoever
/// that is and whatever options he set.
///
/// # Errors
/// What socket(2), bind(2) and listen(2) say; AddrInUse if the address is taken.
pub fn listen(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    open(address, count, false)
}

/// As [`listen`], on an address that this network namespace may not have yet (IP_FREEBIND in ip(7)): a new one's
/// loopback device is down.
///
/// # Errors
/// As [`listen`].
pub fn listen_ahead(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    open(address, count, true)
}

fn open(address: SocketAddr, count: usize, ahead: bool) -> io::Result<Vec<TcpListener>> {
    let first = bound(address, false, ahead)?;
    let address = first.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    if count > 1 {
        first.set_reuse_port(true)?;
    }
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(bound(address, true, ahead)?);
    }
    sockets.into_iter().map(into_listener).collect()
}

/// As [`listen`], on `port` or the first free port of `range`.
///
/// # Errors
/// As [`listen`]; AddrInUse only if all of them are taken.
pub fn listen_in_range(
    host: IpAddr,
    port: u16,
    range: &RangeInclusive<u16>,
    count: usize,
) -> io::Result<Vec<TcpListener>> {
    let others = range.clone().filter(|other| *other != port);
    let mut taken = None;
    for port in std::iter::once(port).chain(others) {
        match listen(SocketAddr::new(host, port), count) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken = Some(error),
            result => return result,
        }
    }
    Err(taken.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

/// `count` more on the address of one that is there, for more workers.
///
/// # Errors
/// As [`listen`].
pub fn listen_beside(present: &TcpListener, count: usize) -> io::Result<Vec<TcpListener>> {
    let address = present.local_addr()?;
    if count > 0 {
        SockRef::from(present).set_reuse_port(true)?;
    }
    (0..count).map(|_| into_listener(bound(address, true, false)?)).collect()
}

/// Lets no further handshake begin: a SYN is dropped, and tried again by its sender a second later (RFC 6298 §2.1), when
/// nobody listens here or the next weir does. Handshakes that have begun go on.
///
/// # Errors
/// What setsockopt(2) says: a filter of another's that is locked.
pub fn refuse_handshakes(listener: &impl AsFd) -> io::Result<()> {
    SockRef::from(listener).attach_filter(&NO_SYN)
}

/// A classic BPF program over the TCP header (RFC 9293 §3.1): drop what carries SYN, let all else through.
const NO_SYN: [SockFilter; 4] = [
    SockFilter::new(0x30, 0, 0, 13),       // ldb [13]: the flags
    SockFilter::new(0x45, 0, 1, 0x02),     // jset #SYN
    SockFilter::new(0x06, 0, 0, 0),        // ret #0: drop
    SockFilter::new(0x06, 0, 0, u32::MAX), // ret #-1: keep
];

fn bound(address: SocketAddr, reuse_port: bool, ahead: bool) -> io::Result<Socket> {
    let socket = netns::socket(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Without it, connections of an earlier weir in TIME_WAIT would block the address.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    match address {
        SocketAddr::V4(_) if ahead => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) if ahead => socket.set_freebind_v6(true)?,
        _ => {}
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn into_listener(socket: Socket) -> io::Result<TcpListener> {
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn the_next_free_port_is_taken() {
        let first = listen(SocketAddr::new(LOOPBACK, 0), 2).unwrap();
        let port = first[0].local_addr().unwrap().port();
        assert_eq!(first[1].local_addr().unwrap().port(), port);

        let range = port..=port.saturating_add(9);
        let second = listen_in_range(LOOPBACK, port, &range, 2).unwrap();
        assert_ne!(second[0].local_addr().unwrap().port(), port);
    }

    #[test]
    fn a_taken_port_is_an_error_even_if_its_owner_shares_it() {
        let owner = bound(SocketAddr::new(LOOPBACK, 0), true, false).unwrap();
        owner.listen(1).unwrap();
        let address = owner.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(listen(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
