//! Sockets that were connected before they would have been captured or refused: found in /proc, and ended on request, so
//! that their programs connect anew. The kernel half sees connect() only; these have it behind them.
//!
//! Looks at all processes: for `weir status --existing`, not for every status. Sockets that a process received from
//! others are found with every process that has them open.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::Serialize;

use crate::config::Protocol;
use crate::netns::NetnsId;
use crate::privilege;

use super::{Redirect, destroy};

/// Most sockets told of at one time.
const MAX_FOUND: usize = 4096;

/// States in /proc/net/tcp and /proc/net/udp (`TCP_ESTABLISHED`, `TCP_SYN_SENT`, `TCP_LISTEN` of net/tcp_states.h).
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const LISTEN: u8 = 10;

/// A connected socket whose connect() would end differently today.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExistingSocket {
    pub pid: u32,
    pub comm: String,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// `redirect` or `deny`.
    pub would: &'static str,
    pub reason: String,
}

/// What became of them.
#[derive(Debug, Default, Serialize)]
pub struct Ended {
    pub ended: Vec<ExistingSocket>,
    /// Those that are still there, and why.
    pub left: Vec<(ExistingSocket, String)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Connected {
    pub(super) protocol: Protocol,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

impl Redirect {
    /// Sockets of other processes that are connected, and would be redirected or refused if they connected now.
    ///
    /// # Errors
    /// /proc can't be read. A process that ends meanwhile is none.
    pub fn existing(&self) -> io::Result<Vec<ExistingSocket>> {
        Ok(self.look()?.into_iter().map(|(socket, _)| socket).collect())
    }

    /// Ends them: their programs get an error from what they do next, and connect anew.
    ///
    /// # Errors
    /// /proc can't be read.
    pub fn recapture(&self) -> io::Result<Ended> {
        let mut result = Ended::default();
        for (socket, connected) in self.look()? {
            match destroy::destroy(socket.pid, &connected) {
                Ok(()) => result.ended.push(socket),
                Err(error) => result.left.push((socket, destroy::explain(&error))),
            }
        }
        Ok(result)
    }

    fn look(&self) -> io::Result<Vec<(ExistingSocket, Connected)>> {
        let (mut tables, mut found) = (HashMap::new(), Vec::new());
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if pid == std::process::id() {
                continue;
            }
            // Gone, or a kernel thread.
            let Ok(netns) = NetnsId::of_process(pid) else { continue };
            let table = tables.entry(netns).or_insert_with(|| sockets_seen_by(pid));
            for inode in privilege::sockets(pid).unwrap_or_default() {
                let Some(connected) = table.get(&inode) else { continue };
                let Ok(explained) = self.explain(pid, connected.protocol, connected.remote) else { continue };
                if explained.verdict == "direct" {
                    continue;
                }
                found.push((told(pid, connected, &explained), *connected));
                if found.len() >= MAX_FOUND {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }
}

fn told(pid: u32, connected: &Connected, explained: &super::Explained) -> ExistingSocket {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    ExistingSocket {
        pid,
        comm: comm.trim_end().replace(char::is_control, "\u{fffd}"),
        protocol: match connected.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        },
        local: canonical(connected.local),
        remote: canonical(connected.remote),
        would: explained.verdict,
        reason: explained.reason.clone(),
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The connected sockets of a process's network namespace that were not accepted there, by inode number.
fn sockets_seen_by(pid: u32) -> HashMap<u64, Connected> {
    let mut connected = HashMap::new();
    let mut served = HashSet::new();
    for (name, protocol) in
        [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)]
    {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
        for row in table.lines().skip(1).filter_map(parse) {
            match (protocol, row.state) {
                (Protocol::Tcp, LISTEN) => {
                    served.insert(row.local.port());
                }
                (_, ESTABLISHED) | (Protocol::Tcp, SYN_SENT) if row.remote.port() != 0 => {
                    connected.insert(row.inode, Connected { protocol, local: row.local, remote: row.remote });
                }
                _ => {}
            }
        }
    }
    // Somebody else connected these.
    connected.retain(|_, socket| socket.protocol != Protocol::Tcp || !served.contains(&socket.local.port()));
    connected
}

/// The peers of the connected sockets that a text of /proc/net/udp or udp6 lists.
pub fn udp_peers(table: &str) -> impl Iterator<Item = SocketAddr> {
    let rows = table.lines().skip(1).filter_map(parse);
    rows.filter(|row| row.state == ESTABLISHED).map(|row| canonical(row.remote))
}

struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    inode: u64,
}

/// A line of /proc/net/tcp (proc_pid_net(5)): `sl local remote state queues timer retransmits uid timeout inode ...`.
fn parse(line: &str) -> Option<Row> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote) = (address(fields.next()?)?, address(fields.next()?)?);
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    Some(Row { local, remote, state, inode: fields.nth(5)?.parse().ok()? })
}

/// `0100007F:1F90`: words as they lie in memory, each printed as a number; the port in host byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let bytes: Vec<u8> = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn reads_the_tables_of_proc() {
        let line = "   1: 0100007F:A2C4 010012C6:01BB 01 00000000:00000000 02:00000A5D 00000000  1000 0 71035 2 0 20";
        let row = parse(line).unwrap();
        assert_eq!(
            (row.local, row.remote),
            ("127.0.0.1:41668".parse().unwrap(), "198.18.0.1:443".parse().unwrap())
        );
        assert_eq!((row.state, row.inode), (ESTABLISHED, 71035));
        let v6 = address("B80D0120000000000000000001000000:0050").unwrap();
        assert_eq!(v6, "[2001:db8::1]:80".parse().unwrap());
        for text in ["", ":", "0100007F", "0100007F:", "é00007F:1", "01:1", "0100007G:1"] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
