//! A downstream connection: its socket, what was read ahead, and who is at the other end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWriteExt;

use super::buffered::Inbox;
use super::deadline::Deadline;
use super::transport::Transport;
use crate::target::Client;
use crate::telemetry::metrics;

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
    pub admitted: Admitted,
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

/// How many downstream connections there are, and may be.
#[derive(Debug)]
pub struct Admission {
    limit: usize,
    open: AtomicUsize,
}

impl Admission {
    /// Room for `limit` connections.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, open: AtomicUsize::new(0) })
    }

    /// A place for one connection, if there is one.
    pub fn admit(self: &Arc<Self>) -> Option<Admitted> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.open.fetch_sub(1, Ordering::Relaxed);
            metrics::with(|metrics| metrics.refused_connections.increment());
            return None;
        }
        Some(Admitted(Arc::clone(self)))
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub struct Admitted(Arc<Admission>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        metrics::with(|metrics| metrics.closed_connections.increment());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_given_back() {
        let admission = Admission::new(2);
        let first = admission.admit().unwrap();
        let _second = admission.admit().unwrap();
        assert!(admission.admit().is_none());
        drop(first);
        assert!(admission.admit().is_some());
    }
}
