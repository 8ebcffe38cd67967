//! Messages between two processes over a Unix stream, and open descriptors that go with them (SCM_RIGHTS in unix(7)).
#![expect(unsafe_code, reason = "received descriptors are numbers; nobody else makes owners of them")]

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// `SCM_MAX_FD` of the kernel's net/scm.h.
pub const MAX_DESCRIPTORS: usize = 253;

/// Longest message, in bytes.
const MAX_MESSAGE: usize = 64 << 20;

/// A message begins with its length: four bytes, big-endian.
const HEADER: usize = 4;

/// Sends a message and up to [`MAX_DESCRIPTORS`] descriptors.
///
/// # Errors
/// The peer is gone, or there is too much to send.
pub fn send(mut stream: &UnixStream, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if message.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
        let (bytes, count) = (message.len(), descriptors.len());
        return Err(io::Error::other(format!(
            "{bytes} bytes and {count} descriptors are too much for one message"
        )));
    }
    let header = u32::try_from(message.len()).map_err(io::Error::other)?.to_be_bytes();
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let rights = if numbers.is_empty() { &[] } else { &rights[..] };
    let sent =
        sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&header)], rights, MsgFlags::MSG_NOSIGNAL, None)?;
    stream.write_all(&header[sent..])?;
    stream.write_all(message)
}

/// Receives a message, and the descriptors that came with it.
///
/// # Errors
/// `UnexpectedEof` if the peer is gone; or what came is no such message.
pub fn receive(mut stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut header = [0; HEADER];
    let mut space = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let (count, descriptors) = {
        let mut bytes = [IoSliceMut::new(&mut header)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(stream.as_raw_fd(), &mut bytes, Some(&mut space), flags)?;
        let mut descriptors = Vec::new();
        for control in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                // SAFETY: the kernel has just opened them for us, and nobody else knows them.
                descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        if received.flags.contains(MsgFlags::MSG_CTRUNC) {
            return Err(io::Error::other("no room for the descriptors that came (too many open files?)"));
        }
        (received.bytes, descriptors)
    };
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stream.read_exact(&mut header[count..])?;
    let length = u32::from_be_bytes(header) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::other(format!("a message of {length} bytes is announced")));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    Ok((message, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_socket_goes_over_with_its_message() {
        let (one, other) = UnixStream::pair().unwrap();
        let (kept, given) = UnixStream::pair().unwrap();
        send(&one, b"take this", &[given.as_fd()]).unwrap();
        drop(given);
        let (message, mut descriptors) = receive(&other).unwrap();
        assert_eq!((message.as_slice(), descriptors.len()), (&b"take this"[..], 1));
        let taken = UnixStream::from(descriptors.remove(0));
        (&kept).write_all(b"x").unwrap();
        assert_eq!((&taken).read(&mut [0; 8]).unwrap(), 1);
    }

    #[test]
    fn the_end_and_what_is_no_message_are_errors() {
        let (one, other) = UnixStream::pair().unwrap();
        (&one).write_all(&[0xff; 8]).unwrap();
        assert!(receive(&other).unwrap_err().to_string().contains("announced"));
        let (one, other) = UnixStream::pair().unwrap();
        drop(one);
        assert_eq!(receive(&other).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
