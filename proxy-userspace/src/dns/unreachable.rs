//! "Nobody listens there", said as the server's kernel would have: an ICMP error to the client's socket, which then fails
//! with ECONNREFUSED if it is connected. Without CAP_NET_RAW nothing is said, and the client waits.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::netns;

/// Raw sockets in one network namespace.
#[derive(Debug)]
pub(super) struct Unreachable {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

const UDP: u8 = 17;

impl Unreachable {
    /// In the network namespace of this thread.
    #[must_use]
    pub(super) fn open() -> Self {
        let open = |domain, protocol| {
            let socket = netns::socket(domain, Type::RAW.nonblocking().cloexec(), Some(protocol)).ok()?;
            // Nothing is to be read from it.
            socket.set_recv_buffer_size(0).ok()?;
            Some(socket)
        };
        Self { v4: open(Domain::IPV4, Protocol::ICMPV4), v6: open(Domain::IPV6, Protocol::ICMPV6) }
    }

    /// Tells `client` that its datagram to `to` found nobody.
    pub(super) fn tell(&self, client: SocketAddr, to: SocketAddr) {
        let (socket, packet) = match (client, to) {
            (SocketAddr::V4(client), SocketAddr::V4(to)) => {
                let ports = [client.port(), to.port()];
                (&self.v4, port_unreachable_v4((*client.ip(), *to.ip()), ports))
            }
            (SocketAddr::V6(client), SocketAddr::V6(to)) => {
                let ports = [client.port(), to.port()];
                (&self.v6, port_unreachable_v6((*client.ip(), *to.ip()), ports))
            }
            _ => return,
        };
        // It is a courtesy; without it the client waits.
        let target = SocketAddr::new(client.ip(), 0);
        let _ = socket.as_ref().map(|socket| socket.send_to(&packet, &target.into()));
    }
}

/// RFC 792, with the header of the datagram and its first 8 bytes.
fn port_unreachable_v4((client, to): (Ipv4Addr, Ipv4Addr), ports: [u16; 2]) -> Vec<u8> {
    let mut packet = vec![3, 3, 0, 0, 0, 0, 0, 0];
    packet.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0]);
    packet.extend(client.octets());
    packet.extend(to.octets());
    udp_header(&mut packet, ports);
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// RFC 4443 §3.1. The kernel fills in the checksum.
fn port_unreachable_v6((client, to): (Ipv6Addr, Ipv6Addr), ports: [u16; 2]) -> Vec<u8> {
    let mut packet = vec![1, 4, 0, 0, 0, 0, 0, 0];
    packet.extend([0x60, 0, 0, 0, 0, 8, UDP, 64]);
    packet.extend(client.octets());
    packet.extend(to.octets());
    udp_header(&mut packet, ports);
    packet
}

fn udp_header(packet: &mut Vec<u8>, ports: [u16; 2]) {
    packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    packet.extend([0, 8, 0, 0]);
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
    let sum: u32 = words.map(u32::from).sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    let folded = (folded >> 16) + (folded & 0xffff);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_with_its_checksum_sums_up_to_zero() {
        let packet = port_unreachable_v4(([127, 0, 0, 1].into(), [127, 64, 1, 2].into()), [40000, 53]);
        assert_eq!(packet.len(), 8 + 20 + 8);
        assert_eq!(checksum(&packet), 0);
        assert_eq!(port_unreachable_v6((Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST), [1, 2]).len(), 8 + 40 + 8);
    }
}
