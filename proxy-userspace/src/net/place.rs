//! Content that lies in a file, too: the kernel can send it from there.

use std::fs::File;
use std::io;

use nix::sys::sendfile::sendfile64;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Where in a file content is. The file is nobody's but this process's, and what lies there is not changed while somebody
/// holds that content.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    file: &'static File,
    offset: u64,
}

impl Place {
    /// Content from `offset` on, in bytes.
    #[must_use]
    pub fn new(file: &'static File, offset: u64) -> Self {
        Self { file, offset }
    }

    /// What comes `count` bytes later.
    #[must_use]
    pub fn after(self, count: u64) -> Self {
        Self { offset: self.offset + count, ..self }
    }

    /// Sends as much of `count` bytes from here as the socket has room for, once it has some. How many that were.
    ///
    /// # Errors
    /// As sendfile(2) says it.
    pub async fn send(self, count: usize, socket: &TcpStream) -> io::Result<usize> {
        let mut offset = i64::try_from(self.offset).map_err(io::Error::other)?;
        let send = || sendfile64(socket, self.file, Some(&mut offset), count).map_err(io::Error::from);
        match socket.async_io(Interest::WRITABLE, send).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            sent => Ok(sent),
        }
    }
}
