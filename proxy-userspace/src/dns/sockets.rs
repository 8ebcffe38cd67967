//! The sockets on which redirected queries arrive, in one network namespace: one for all of 127.64.0.0/10, and a port
//! each for the IPv6 servers. Which server is meant is told by where a query came to; see `redirect::Slot`.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::cmsg_space;
use nix::sys::socket::sockopt::Ipv4PacketInfo;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
};
use socket2::{Domain, Protocol, SockFilter, Type};
use tokio::io::Interest;

use super::unreachable::Unreachable;
use crate::netns;
use crate::redirect::{Listeners, SERVERS_V6, Slot};

/// Tries to find as many free ports in a row as there are IPv6 servers.
const TRIES: usize = 16;

/// Bytes of queries that may wait; each socket's own.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Sockets that are bound, but not yet in use.
#[derive(Debug)]
pub struct Bound {
    v4: Option<UdpSocket>,
    v6: Vec<UdpSocket>,
    refusals: Unreachable,
}

impl Bound {
    /// Binds in the network namespace of this thread. A namespace without an address family has no sockets of it.
    ///
    /// # Errors
    /// What socket(2) and bind(2) say of IPv4.
    pub fn bind() -> io::Result<Self> {
        Ok(Self { v4: Some(bind_v4()?), v6: bind_v6().unwrap_or_default(), refusals: Unreachable::open() })
    }

    /// Tells the kernel half where to send queries.
    pub fn announce(&self, listeners: &mut Listeners) {
        let port = |socket: &UdpSocket| socket.local_addr().ok().map(|address| address.port());
        listeners.dns_v4 = self.v4.as_ref().and_then(port);
        listeners.dns_v6 = self.v6.first().and_then(port);
    }

    /// For use on this thread's runtime.
    pub(super) fn into_parts(self) -> (Vec<QuerySocket>, Unreachable) {
        let v4 = self.v4.into_iter().map(|socket| (socket, None));
        let v6 = (0..).zip(self.v6).map(|(number, socket)| (socket, Some(Slot::of_port(number))));
        let sockets = v4.chain(v6).filter_map(|(socket, slot)| {
            // Registering with epoll fails where there are no descriptors left; then its queries are not answered.
            let socket = tokio::net::UdpSocket::from_std(socket);
            Some(QuerySocket { socket: socket.ok()?, slot })
        });
        (sockets.collect(), self.refusals)
    }
}

/// A socket in use.
#[derive(Debug)]
pub(super) struct QuerySocket {
    socket: tokio::net::UdpSocket,
    /// None: by the address that the query came to.
    slot: Option<Slot>,
}

/// Where a query came from, and to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) client: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) slot: Slot,
}

impl QuerySocket {
    /// The first port on ::1, if it is that one's.
    pub(super) fn port_v6(&self) -> Option<u16> {
        let is_first = self.slot == Some(Slot::of_port(0));
        is_first.then(|| self.socket.local_addr().ok()).flatten().map(|address| address.port())
    }

    /// The next query. None: something that is none came.
    ///
    /// # Errors
    /// What recvmsg(2) says.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Arrival)>> {
        let local = self.socket.local_addr()?;
        let Some(slot) = self.slot else {
            return self
                .socket
                .async_io(Interest::READABLE, || receive_v4(&self.socket, local.port(), buffer))
                .await;
        };
        let (length, client) = self.socket.recv_from(buffer).await?;
        Ok(Some((length, Arrival { client, to: local, slot })))
    }

    /// Answers, from where the query came to. An answer for which there is no room is lost, as on any way.
    pub(super) fn send(&self, answer: &[u8], arrival: &Arrival) {
        let sent = match (arrival.to, arrival.client) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => send_v4(&self.socket, answer, from, to),
            _ => self.socket.try_send_to(answer, arrival.client).map(drop),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, client = %arrival.client, "an answer could not be sent");
        }
    }
}

fn receive_v4(
    socket: &tokio::net::UdpSocket,
    port: u16,
    buffer: &mut [u8],
) -> io::Result<Option<(usize, Arrival)>> {
    let mut control = cmsg_space!(libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let to = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())),
        _ => None,
    });
    let (Some(to), Some(client)) = (to, message.address) else { return Ok(None) };
    let client = SocketAddrV4::new(client.ip(), client.port()).into();
    let arrival = |slot| Arrival { client, to: SocketAddr::from((to, port)), slot };
    Ok(Slot::of_address(to).map(|slot| (message.bytes, arrival(slot))))
}

fn send_v4(
    socket: &tokio::net::UdpSocket,
    answer: &[u8],
    from: SocketAddrV4,
    to: SocketAddrV4,
) -> io::Result<()> {
    let address = libc::in_addr { s_addr: u32::from_ne_bytes(from.ip().octets()) };
    let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: address };
    let control = [ControlMessage::Ipv4PacketInfo(&info)];
    let flags = MsgFlags::MSG_DONTWAIT;
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(answer)], &control, flags, Some(&SockaddrIn::from(to)))?;
    Ok(())
}

fn bind_v4() -> io::Result<UdpSocket> {
    let socket = netns::socket(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    // Before it has an address: nothing else may come in.
    socket.attach_filter(&SLOTS_ONLY)?;
    setsockopt(&socket, Ipv4PacketInfo, &true)?;
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    Ok(socket.into())
}

/// A classic BPF program over the IP header: lets through what goes to 127.64.0.0/10, which never comes from outside. A
/// socket can't be bound to a network, and this one is bound to all addresses.
const SLOTS_ONLY: [SockFilter; 5] = [
    SockFilter::new(0x20, 0, 0, NETWORK_HEADER + 16), // ld [destination address]
    SockFilter::new(0x54, 0, 0, 0xffc0_0000),         // and #/10
    SockFilter::new(0x15, 0, 1, 0x7f40_0000),         // jeq #127.64.0.0
    SockFilter::new(0x06, 0, 0, u32::MAX),            // ret #-1: keep
    SockFilter::new(0x06, 0, 0, 0),                   // ret #0: drop
];

/// `SKF_NET_OFF` of the kernel's linux/filter.h.
const NETWORK_HEADER: u32 = (-0x10_0000_i32).cast_unsigned();

/// Ports in a row, on ::1.
fn bind_v6() -> io::Result<Vec<UdpSocket>> {
    let bind = |port| {
        let socket = netns::socket(Domain::IPV6, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
        socket.bind(&SocketAddr::from(SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0)).into())?;
        io::Result::Ok(UdpSocket::from(socket))
    };
    let mut last: io::Result<Vec<UdpSocket>> = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..TRIES {
        let first = bind(0)?;
        let port = first.local_addr()?.port();
        let next = |number| bind(port.checked_add(number).ok_or(io::ErrorKind::AddrInUse)?);
        last = std::iter::once(Ok(first)).chain((1..SERVERS_V6).map(next)).collect();
        if last.is_ok() {
            break;
        }
    }
    last
}
