//! The kernel pipe that splice(2) needs between two sockets, pooled per worker thread.
//!
//! A pipe is taken when a direction turns out to carry bulk and goes back as soon as that direction is
//! empty, so an idle tunnel owns none.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};

/// Empty pipes kept for the next taker, per worker. Each is two descriptors, and no pages while empty.
const POOL_SIZE: usize = 32;

/// What is asked of the kernel when the configured size is refused: the most an unprivileged user may have by
/// default is /proc/sys/fs/pipe-max-size, and `pipe-user-pages-soft` lowers it when many pipes are open.
const MODEST_SIZE: usize = 256 << 10;

/// An empty or partly filled pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    capacity: usize,
    filled: usize,
}

impl Pipe {
    /// A pipe from the pool, or a new one of `size` bytes if the kernel grants that.
    ///
    /// # Errors
    /// What pipe2(2) says: EMFILE and ENFILE above all. The caller goes on copying.
    pub(super) fn take(size: usize) -> io::Result<Self> {
        if let Some(pipe) = POOL.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        let capacity = [size, MODEST_SIZE.min(size)]
            .into_iter()
            .find_map(|size| fcntl(&writer, FcntlArg::F_SETPIPE_SZ(i32::try_from(size).ok()?)).ok())
            .or_else(|| fcntl(&writer, FcntlArg::F_GETPIPE_SZ).ok())
            .and_then(|granted| usize::try_from(granted).ok())
            .ok_or_else(io::Error::last_os_error)?;
        Ok(Self { reader, writer, capacity, filled: 0 })
    }

    /// Gives the pipe back. One that still holds bytes is closed: they belong to no other tunnel.
    pub(super) fn give_back(self) {
        if self.filled == 0 {
            POOL.with_borrow_mut(|pool| {
                if pool.len() < POOL_SIZE {
                    pool.push(self);
                }
            });
        }
    }

    /// Bytes in the pipe.
    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    /// Moves what `socket` has received into the pipe, which must be empty: only then does EAGAIN mean
    /// "nothing received" and never "pipe full". 0 is the end of the stream.
    pub(super) fn fill_from(&mut self, socket: impl AsFd) -> io::Result<usize> {
        debug_assert_eq!(self.filled, 0);
        let moved = splice(socket, None, &self.writer, None, self.capacity, FLAGS)?;
        self.filled += moved;
        Ok(moved)
    }

    /// Moves what the pipe holds into `socket`. EAGAIN means that its send buffer is full.
    pub(super) fn drain_to(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let moved = splice(&self.reader, None, socket, None, self.filled, FLAGS)?;
        self.filled -= moved;
        Ok(moved)
    }
}

const FLAGS: SpliceFFlags = SpliceFFlags::SPLICE_F_NONBLOCK.union(SpliceFFlags::SPLICE_F_MOVE);

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_pipe_with_bytes_in_it_is_never_pooled() {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"somebody's secret").unwrap();
        let mut pipe = Pipe::take(64 << 10).unwrap();
        assert_eq!(pipe.fill_from(&far).unwrap(), 17);
        pipe.give_back();

        let mut next = Pipe::take(64 << 10).unwrap();
        assert_eq!(next.filled(), 0);
        near.write_all(b"x").unwrap();
        next.fill_from(&far).unwrap();
        assert_eq!(next.drain_to(&far).unwrap(), 1);
        let mut received = [0; 32];
        assert_eq!(near.read(&mut received).unwrap(), 1);
    }
}
