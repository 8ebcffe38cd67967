//! TLS over a connection that stands: the handshake, and what its failure means.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};

use super::ConnectError;
use crate::http::authority::Host;
use crate::net::buffered::Inbox;
use crate::net::transport::{Socket, Transport};
use crate::tls::client::{self, ClientTls};

/// Why a handshake failed. Nothing of the request was sent.
#[derive(Debug, thiserror::Error)]
#[error("no TLS session with {host} at {address}: {why}")]
pub struct Insecure {
    host: Host,
    address: SocketAddr,
    why: String,
    /// RFC 9209 §2.3.
    pub kind: &'static str,
}

/// Makes a TLS session with the server that must have `host`'s certificate, to speak one of these protocols.
pub(super) async fn secure(
    tls: &ClientTls,
    beneath: Transport,
    address: SocketAddr,
    host: &Host,
    protocols: Vec<Vec<u8>>,
    limit: Duration,
) -> Result<Transport, ConnectError> {
    let failed = |kind, why| ConnectError::Tls(Box::new(Insecure { host: host.clone(), address, why, kind }));
    let Some(name) = client::server_name(host) else {
        return Err(failed("tls_protocol_error", "no certificate can be for such a name".into()));
    };
    let (socket, own) = match beneath {
        Transport::Plain(stream) => Socket::pair(stream, Inbox::default()),
        Transport::Tls(outer) => Socket::within(*outer, Inbox::default()),
    };
    let connector = TlsConnector::from(tls.settings_for(host));
    let connecting = connector.with_alpn(protocols).connect(name, own);
    match timeout(limit, connecting).await {
        Ok(Ok(session)) => Ok(Transport::tls(TlsStream::Client(session), socket)),
        Ok(Err(error)) => Err(match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(error) => failed(kind(error), client::reason(error)),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                failed("tls_protocol_error", "it closed the connection during the handshake".into())
            }
            None => failed("connection_terminated", error.to_string()),
        }),
        Err(_) => Err(ConnectError::TimedOut { address, after: limit }),
    }
}

fn kind(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            "tls_certificate_error"
        }
        rustls::Error::AlertReceived(_) => "tls_alert_received",
        _ => "tls_protocol_error",
    }
}
