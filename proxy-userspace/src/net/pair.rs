//! Two ends of one connection inside this process, for what has to be a socket and is none: a stream on a connection that
//! others share.

use std::io;
use std::net::Ipv4Addr;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

/// Connections that others may make meanwhile: they are not taken.
const MAX_STRANGERS: usize = 16;

/// Both ends. Dropped, either is reset.
///
/// # Errors
/// What socket(2) and its like say.
pub async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let one = TcpStream::connect(listener.local_addr()?).await?;
    let own = one.local_addr()?;
    for _ in 0..MAX_STRANGERS {
        let (other, peer) = listener.accept().await?;
        if peer == own {
            for end in [&one, &other] {
                end.set_nodelay(true)?;
                SockRef::from(end).set_linger(Some(std::time::Duration::ZERO))?;
            }
            return Ok((one, other));
        }
    }
    Err(io::Error::other("too many others connect to a port of weir's own"))
}
