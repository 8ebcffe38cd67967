//! TLS with clients: the handshake at the beginning of a connection to the explicit proxy's port.

use std::io;

use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::config::Timeouts;
use crate::net::stream::Downstream;
use crate::net::transport::{Socket, Transport};
use crate::telemetry::metrics;
use crate::tls::server::Acceptance;

/// The first byte of a TLS connection: a handshake record (RFC 8446 §5.1).
pub(super) const FIRST_BYTE: u8 = 0x16;

/// Makes a TLS session of a connection in the clear. None: the client would not have it.
pub(super) async fn accept(
    acceptance: &Acceptance,
    downstream: Downstream,
    timeouts: &Timeouts,
) -> Option<Downstream> {
    let Downstream { stream: Transport::Plain(stream), inbox, client, deadline, admitted } = downstream
    else {
        return None;
    };
    let (socket, own) = Socket::pair(stream, inbox);
    let handshake = TlsAcceptor::from(acceptance.current()).accept(own);
    let failure = match deadline.limit(timeouts.request_head, handshake).await {
        Ok(Ok(session)) => {
            metrics::with(|metrics| metrics.downstream_tls_sessions.increment());
            let stream = Transport::tls(TlsStream::Server(session), socket);
            return Some(Downstream { stream, inbox: super::Inbox::default(), client, deadline, admitted });
        }
        Ok(Err(error)) => error,
        Err(_) => io::ErrorKind::TimedOut.into(),
    };
    metrics::with(|metrics| metrics.downstream_tls_failures.increment());
    // Whoever reaches the port can bring this about: the counter tells, the log is not to be flooded.
    tracing::debug!(client = %client.address, error = %failure, "a TLS handshake with a client failed");
    // The alert that says why is to arrive: an orderly end, not a reset.
    let _ = socket2::SockRef::from(socket.stream()).set_linger(None);
    None
}
