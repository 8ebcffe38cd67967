//! A downstream connection: its socket, what was read ahead, and who is at the other end.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWriteExt;

use super::admission::Admitted;
use super::buffered::Inbox;
use super::deadline::Deadline;
use super::transport::Transport;
use crate::target::Client;

/// How long, and how much, a client may go on sending before its connection is closed for good (RFC 9112 §9.6):
/// one in the middle of an upload sends more than any buffer holds, before it looks for an answer.
const LINGER: Duration = Duration::from_secs(5);
const MAX_DISCARD: usize = 256 << 20;

/// An accepted connection. Dropping it resets it; [`Downstream::close`] ends it in order.
#[derive(Debug)]
pub struct Downstream {
    pub stream: Transport,
    pub inbox: Inbox,
    pub client: Client,
    pub deadline: Deadline,
    /// None for one that is a part of another.
    pub admitted: Option<Admitted>,
}

impl Downstream {
    /// Ends the connection so that the client gets all that was sent to it.
    pub async fn close(mut self) {
        // Without this, close(2) would send RST: see `listener`.
        if SockRef::from(self.stream.socket()).set_linger(None).is_err()
            || self.stream.shutdown().await.is_err()
        {
            return;
        }
        // Closing with unread bytes resets the connection, which can destroy the answer on its way.
        let _ = self.deadline.limit(LINGER, discard(&mut self.stream, &mut self.inbox)).await;
    }

    /// Ends a connection on which nothing is under way.
    pub fn close_idle(self) {
        self.stream.end_in_order();
    }
}

async fn discard(stream: &mut Transport, inbox: &mut Inbox) -> io::Result<()> {
    let mut discarded = 0;
    while discarded < MAX_DISCARD {
        inbox.consume(usize::MAX);
        match inbox.fill(stream).await? {
            0 => break,
            count => discarded += count,
        }
    }
    Ok(())
}
