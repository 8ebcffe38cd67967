//! The listeners of captured connections in one network namespace: some ports in a row on 127.0.0.1, and on ::1.
//!
//! One port has room for as many connections from loopback as net.ipv4.ip_local_port_range has numbers; the kernel half
//! chooses among them. Which namespace it is, who serves them, and that the kernel half learns of them, is for others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use proxy_common::CAPTURE_PORTS;

use crate::net::listener;
use crate::redirect::Listeners;

/// Tries to find free ports in a row.
const TRIES: usize = 16;

/// As `net::listener` has them: so many sockets on one address.
type Listen = fn(SocketAddr, usize) -> io::Result<Vec<TcpListener>>;

/// All of one network namespace.
#[derive(Debug, Default)]
pub struct CaptureListeners {
    v4: Vec<TcpListener>,
    v6: Vec<TcpListener>,
}

impl CaptureListeners {
    /// Opens them in the network namespace of this thread, with as many sockets as it takes to give `workers` workers
    /// equal shares of every address family.
    ///
    /// # Errors
    /// What socket(2), bind(2) and listen(2) say of IPv4. Where there is no IPv6, there is nothing of it to capture.
    pub fn open(workers: usize) -> io::Result<Self> {
        Self::open_with(listener::listen, workers)
    }

    /// As [`CaptureListeners::open`], a socket for each port, in a network namespace whose loopback device may still be
    /// down.
    ///
    /// # Errors
    /// As [`CaptureListeners::open`].
    pub fn open_ahead() -> io::Result<Self> {
        Self::open_with(listener::listen_ahead, 1)
    }

    fn open_with(listen: Listen, workers: usize) -> io::Result<Self> {
        let v4 = in_a_row(listen, Ipv4Addr::LOCALHOST.into(), workers)?;
        let v6 = in_a_row(listen, Ipv6Addr::LOCALHOST.into(), workers).unwrap_or_default();
        Ok(Self { v4, v6 })
    }

    /// As the kernel half is told of them.
    #[must_use]
    pub fn announced(&self) -> Listeners {
        let mut listeners = Listeners { further: CAPTURE_PORTS - 1, ..Listeners::default() };
        let first = [&self.v4, &self.v6].into_iter().filter_map(|sockets| sockets.first()?.local_addr().ok());
        for address in first {
            match address {
                SocketAddr::V4(address) => listeners.v4 = Some(address),
                SocketAddr::V6(address) => listeners.v6 = Some(address),
            }
        }
        listeners
    }

    /// Every port's address, once.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let ports = usize::from(CAPTURE_PORTS);
        let first = |sockets: &[TcpListener]| -> Vec<SocketAddr> {
            sockets.iter().take(ports).filter_map(|socket| socket.local_addr().ok()).collect()
        };
        [first(&self.v4), first(&self.v6)].concat()
    }

    /// The sockets, in the order in which they are to be dealt out to workers, one after the other.
    #[must_use]
    pub fn into_sockets(self) -> Vec<TcpListener> {
        self.v4.into_iter().chain(self.v6).collect()
    }
}

/// Sockets on [`CAPTURE_PORTS`] ports, a port after the other and then from the first one again.
fn in_a_row(listen: Listen, address: IpAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let each = sockets_of_a_port(workers);
    let mut last = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..TRIES {
        last = row(listen, address, each);
        if !matches!(&last, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
            break;
        }
    }
    last
}

fn row(listen: Listen, address: IpAddr, each: usize) -> io::Result<Vec<TcpListener>> {
    let first = listen(SocketAddr::new(address, 0), each)?;
    let port = first.first().ok_or(io::ErrorKind::InvalidInput)?.local_addr()?.port();
    let mut ports = vec![first.into_iter()];
    for number in 1..CAPTURE_PORTS {
        let port = port.checked_add(number).ok_or(io::ErrorKind::AddrInUse)?;
        ports.push(listen(SocketAddr::new(address, port), each)?.into_iter());
    }
    Ok((0..each).flat_map(|_| ports.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>()).collect())
}

/// The least number for which dealing out the sockets of all ports gives each worker equally many.
fn sockets_of_a_port(workers: usize) -> usize {
    let ports = usize::from(CAPTURE_PORTS);
    let fits = |each: &usize| (each * ports).is_multiple_of(workers.max(1));
    (1..=workers).find(fits).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_one_another_and_every_worker_has_an_equal_share() {
        for workers in 1..=9 {
            let listeners = CaptureListeners::open(workers).unwrap();
            let first = listeners.announced().v4.unwrap().port();
            let ports: Vec<u16> = listeners.addresses().iter().map(SocketAddr::port).collect();
            assert_eq!(&ports[..4], [first, first + 1, first + 2, first + 3]);

            let mut shares = vec![0; workers];
            for (turn, socket) in listeners.v4.iter().enumerate() {
                assert_eq!(socket.local_addr().unwrap().port(), first + u16::try_from(turn % 4).unwrap());
                shares[turn % workers] += 1;
            }
            assert!(shares.iter().all(|share| *share == shares[0] && *share > 0), "{workers}: {shares:?}");
        }
    }
}
