//! Original destinations: whose connection did the transparent listener just accept, and where was it meant to go?
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use proxy_common::{ClaimKey, Endpoint};

use super::rules::Deciding;
use super::sys;
use crate::target::Rule;

/// A captured connection, as the kernel half recorded it at connect().
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Where the application meant to go. A v4-mapped IPv6 destination is given as IPv4.
    pub original: SocketAddr,
    /// The process that called connect(), as the initial pid namespace numbers it.
    pub pid: u32,
    /// Its real user id.
    pub uid: u32,
    /// Its cgroup's id.
    pub cgroup: u64,
    /// Its name, at most 15 bytes; what isn't UTF-8, and control characters, are replaced. Where the kernel half may not ask for it (without
    /// CAP_PERFMON on newer kernels) it is read from /proc, and empty if the process is gone.
    pub comm: String,
    /// The rule that decided; None: what was selected is captured without one.
    pub rule: Option<Arc<dyn Rule>>,
}

/// Handle to the kernel's records of captured connections; cheap to clone, for any thread.
#[derive(Debug, Clone)]
pub struct OriginalDestinations {
    maps: Arc<Maps>,
    deciding: Deciding,
    /// The cookie of the network namespace in which the connections were accepted.
    netns: u64,
}

#[derive(Debug)]
struct Maps {
    claims: OwnedFd,
    closed: OwnedFd,
    atomic: bool,
}

impl OriginalDestinations {
    pub(super) fn new(claims: OwnedFd, closed: OwnedFd, deciding: Deciding, netns: u64) -> Self {
        // No connection has port 0.
        let absent = ClaimKey::new(Endpoint::default(), 0, netns);
        let atomic = sys::takes_atomically::<_, proxy_common::Captured>(claims.as_fd(), &absent);
        Self { maps: Arc::new(Maps { claims, closed, atomic }), deciding, netns }
    }

    /// The records of connections in another network namespace.
    #[must_use]
    pub fn in_namespace(&self, cookie: u64) -> Self {
        Self { maps: Arc::clone(&self.maps), deciding: self.deciding.clone(), netns: cookie }
    }

    /// Takes the record of the connection accepted at `port` whose peer address is `peer`. It can be taken once.
    ///
    /// None: there is no record, so the original destination is lost and the connection must be reset. One
    /// or two system calls, a few hundred nanoseconds.
    ///
    /// # Errors
    /// The kernel refused; the destination is as lost as with None.
    pub fn claim(&self, peer: SocketAddr, port: u16) -> io::Result<Option<Captured>> {
        let key = ClaimKey::new(endpoint(peer), port.to_be(), self.netns);
        // The kernel half puts a record into the second before it takes it from the first.
        for map in [&self.maps.claims, &self.maps.closed] {
            match sys::take::<_, proxy_common::Captured>(map.as_fd(), &key, self.maps.atomic) {
                // Differs only if the entry was replaced while it was being copied (not atomic: Linux < 5.14).
                Ok(record) if record.claim == key => {
                    let rule = self.deciding.rule(record.rule);
                    return Ok(Some(Captured { rule, ..captured(&record) }));
                }
                Ok(_) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

fn captured(record: &proxy_common::Captured) -> Captured {
    let name = record.comm.0.split(|&byte| byte == 0).next().unwrap_or_default();
    Captured {
        original: socket_addr(&record.original),
        pid: record.pid,
        uid: record.uid,
        cgroup: record.cgroup,
        comm: if name.is_empty() { name_in_proc(record.pid) } else { printable(name) },
        rule: None,
    }
}

fn name_in_proc(pid: u32) -> String {
    let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    printable(name.strip_suffix(b"\n").unwrap_or(&name))
}

/// A program chooses its name: a line feed in it must not make two lines of a log, an escape not command a terminal.
pub(super) fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name).replace(char::is_control, "\u{fffd}")
}

/// Network byte order, IPv4 as v4-mapped: what both halves agreed on.
fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::new(words(address.ip()), address.port().to_be())
}

pub(super) fn words(address: IpAddr) -> [u32; 4] {
    let ip = match address {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let octets = ip.octets();
    let word = |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}

pub(super) fn socket_addr(endpoint: &Endpoint) -> SocketAddr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(endpoint.address) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), u16::from_be(endpoint.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_cross_into_the_kernel_in_network_byte_order() {
        let end = endpoint("192.0.2.1:8080".parse().unwrap());
        let bytes: Vec<u8> = end.address.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(end.port.to_ne_bytes(), [0x1f, 0x90]);
    }

    #[test]
    fn addresses_come_back_as_they_went() {
        for text in ["192.0.2.1:80", "[2001:db8::1]:443", "[::1]:1", "255.255.255.255:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(socket_addr(&endpoint(address)), address);
        }
        let mapped = endpoint("[::ffff:192.0.2.1]:80".parse().unwrap());
        assert_eq!(socket_addr(&mapped), "192.0.2.1:80".parse().unwrap());
    }

    #[test]
    fn a_process_name_ends_at_nul_and_may_be_any_bytes() {
        let mut record = proxy_common::Captured::default();
        record.comm.0[..5].copy_from_slice(b"a\xffb\0c");
        assert_eq!(captured(&record).comm, "a\u{fffd}b");
        record.comm.0[..7].copy_from_slice(b"a\n\x1b[1m\0");
        assert_eq!(captured(&record).comm, "a\u{fffd}\u{fffd}[1m");
        record.comm.0 = *b"sixteen bytes...";
        assert_eq!(captured(&record).comm, "sixteen bytes...");
    }
}
