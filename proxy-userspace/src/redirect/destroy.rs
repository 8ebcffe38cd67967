//! Ends a socket of another process: SOCK_DESTROY of sock_diag(7) (linux/sock_diag.h, linux/inet_diag.h).
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::{Socket, Type};

use crate::config::Protocol;
use crate::netns::{self, NetnsId};
use crate::privilege;

use super::existing::Connected;

const SOCK_DESTROY: u16 = 21;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const MESSAGE_SIZE: u32 = 72;
/// Any state, any cookie.
const ANY: u32 = u32::MAX;

/// # Errors
/// `Unsupported` if this kernel can't; `PermissionDenied` without CAP_NET_ADMIN.
pub(super) fn destroy(pid: u32, connected: &Connected) -> io::Result<()> {
    let netlink = if NetnsId::of_process(pid)? == NetnsId::own()? {
        Socket::new(libc::AF_NETLINK.into(), Type::DGRAM.cloexec(), Some(libc::NETLINK_SOCK_DIAG.into()))?
    } else {
        of_namespace(netns::of_process(pid)?)?
    };
    match ask(&netlink, connected) {
        // It has ended by itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// For a person.
pub(super) fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => {
            "this kernel can't end other processes' sockets (CONFIG_INET_DIAG_DESTROY); restart the program"
                .to_owned()
        }
        _ => format!("{error}; restart the program"),
    }
}

/// A socket of another network namespace, to speak to the kernel about it.
fn of_namespace(namespace: File) -> io::Result<Socket> {
    let kind = Type::DGRAM.cloexec();
    if let Some(assistant) = privilege::assistant() {
        let arguments = (libc::AF_NETLINK, kind.into(), libc::NETLINK_SOCK_DIAG);
        return assistant.socket(namespace.as_fd(), arguments).map(Socket::from);
    }
    // A thread of its own, which ends there: this one stays where it is.
    let there = std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Socket::new(libc::AF_NETLINK.into(), kind, Some(libc::NETLINK_SOCK_DIAG.into()))
    });
    there.join().unwrap_or_else(|_| Err(io::Error::other("the thread in its network namespace panicked")))
}

fn ask(netlink: &Socket, connected: &Connected) -> io::Result<()> {
    // Not connected to anybody means: to the kernel.
    send(netlink.as_raw_fd(), &message(connected), MsgFlags::empty())?;
    let mut answer = [0; 1024];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    match status(&answer[..length]) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::other("the kernel's answer is none")),
    }
}

/// `struct nlmsghdr`, then `struct inet_diag_req_v2`.
fn message(connected: &Connected) -> Vec<u8> {
    let v4 = connected.local.is_ipv4();
    let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
    let protocol = match connected.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    };
    let mut message = Vec::with_capacity(MESSAGE_SIZE as usize);
    message.extend(MESSAGE_SIZE.to_ne_bytes());
    message.extend(SOCK_DESTROY.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family as u8, protocol as u8, 0, 0]);
    message.extend(ANY.to_ne_bytes());
    message.extend(connected.local.port().to_be_bytes());
    message.extend(connected.remote.port().to_be_bytes());
    message.extend(words(connected.local));
    message.extend(words(connected.remote));
    // Any device.
    message.extend([0; 4]);
    message.extend(ANY.to_ne_bytes());
    message.extend(ANY.to_ne_bytes());
    message
}

fn words(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The error of an NLMSG_ERROR, 0 for none, as a negative errno.
fn status(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let error = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_long_as_it_says() {
        for (local, remote) in [("198.18.0.1:1", "198.18.0.1:2"), ("[::1]:1", "[::1]:2")] {
            let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
            let message = message(&Connected { protocol: Protocol::Tcp, local, remote });
            assert_eq!(message.len(), MESSAGE_SIZE as usize);
        }
    }

    #[test]
    fn short_answers_are_none() {
        assert_eq!(status(&[]), None);
        assert_eq!(status(&[0; 19]), None);
        assert_eq!(status(&[0; 20]), None);
    }
}
