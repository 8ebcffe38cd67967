//! The session with the client: what is spoken in it, its handshake, and what a failed one means to a person.

use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, ServerConfig};
use socket2::SockRef;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::Asking;
use crate::net::buffered::Inbox;
use crate::net::stream::Downstream;
use crate::net::transport::{Socket, Transport};
use crate::pipeline::Engine;
use crate::pipeline::interception::Taken;
use crate::policy::interception::Asked;
use crate::target::Client;
use crate::telemetry::metrics;
use crate::tls::alpn::{HTTP1, HTTP2};
use crate::tls::client_hello::ClientHello;

/// What is offered to the server: what the client offers to speak, as far as weir does. A client that does not want HTTP is
/// spoken for as it is.
pub(super) fn offered(hello: &ClientHello, http2: bool) -> Vec<Vec<u8>> {
    let understood = |protocol: &&Vec<u8>| *protocol == HTTP1 || *protocol == HTTP2 && http2;
    let common: Vec<_> = hello.protocols.iter().filter(understood).cloned().collect();
    if common.is_empty() { hello.protocols.clone() } else { common }
}

/// What is spoken with the client: what the server has chosen. Where that could not be asked, what shows why.
pub(super) fn chosen(hello: &ClientHello, taken: &Taken) -> Vec<Vec<u8>> {
    match taken.failure() {
        None => taken.protocol().into_iter().collect(),
        Some(_) => [HTTP1, HTTP2]
            .into_iter()
            .find(|protocol| hello.offers(protocol))
            .map(<[u8]>::to_vec)
            .into_iter()
            .collect(),
    }
}

/// The handshake with the client. Its ClientHello is still in the inbox.
pub(super) async fn accept(
    engine: &Engine,
    downstream: Downstream,
    settings: Arc<ServerConfig>,
) -> Result<Downstream, io::Error> {
    let Downstream { stream, inbox, client, deadline, admitted } = downstream;
    let (socket, own) = match stream {
        Transport::Plain(stream) => Socket::pair(stream, inbox),
        Transport::Tls(outer) => Socket::within(*outer, inbox),
    };
    let handshake = TlsAcceptor::from(settings).accept(own);
    let error = match deadline.limit(engine.config.server.timeouts.request_head, handshake).await {
        Ok(Ok(session)) => {
            let stream = Transport::tls(TlsStream::Server(session), socket);
            return Ok(Downstream { stream, inbox: Inbox::default(), client, deadline, admitted });
        }
        Ok(Err(error)) => error,
        Err(_) => io::ErrorKind::TimedOut.into(),
    };
    // The alert that says why is to arrive: an orderly end, not a reset.
    let _ = SockRef::from(socket.stream()).set_linger(None);
    Err(error)
}

/// Records why there is no session with the client, in words that say what to do.
pub(super) fn note_client(
    engine: &Engine,
    client: &Client,
    asking: &Asking<'_>,
    taken: Taken,
    error: &io::Error,
) {
    use AlertDescription as Alert;
    let alert = match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    };
    let distrusts = matches!(
        alert,
        Some(
            Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateUnknown
                | Alert::CertificateExpired
                | Alert::CertificateRevoked
                | Alert::AccessDenied
        )
    );
    let leaves = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
    let rule = asking.rule;
    let what = match (alert, distrusts) {
        (Some(alert), true) => format!("the client does not take weir's certificate (alert {alert:?})"),
        (Some(alert), false) => format!("the client refused the TLS session (alert {alert:?})"),
        (None, _) if leaves => {
            "the client went away when it had seen weir's certificate, which it may not trust".to_owned()
        }
        (None, _) => format!("no TLS session with the client: {error}"),
    };
    let hint = if distrusts || leaves {
        format!(
            ": have it trust weir's authority (`weir ca export`, `weir ca trust`), or, if it takes only its own, pass its \
             servers by a rule of tls.intercept or set `on_failure: pass_through` in rule `{}`",
            rule.name
        )
    } else {
        String::new()
    };
    metrics::with(|metrics| match distrusts || leaves {
        true => metrics.intercept_distrusted.increment(),
        false => metrics.intercept_client_failures.increment(),
    });
    if distrusts || leaves {
        let server_name = asking.hello.server_name.as_deref();
        let identity = asking.identity.as_deref();
        let asked = Asked { client, identity, target: asking.target, server_name };
        if let Some(interception) = &engine.interception {
            interception.note_refusal(&asked, rule);
        }
    }
    tracing::debug!(client = %client.address, rule = rule.name, "{what}");
    taken.note_client(format!("{what}{hint}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_offered(client: &[&[u8]], http2: bool, expected: &[&[u8]]) {
        let protocols = client.iter().map(|protocol| protocol.to_vec()).collect();
        assert_eq!(offered(&ClientHello { protocols, ..ClientHello::default() }, http2), expected);
    }

    #[test]
    fn the_server_is_offered_what_both_speak() {
        check_offered(&[b"h2", b"http/1.1"], true, &[b"h2", b"http/1.1"]);
        check_offered(&[b"h2", b"http/1.1"], false, &[b"http/1.1"]);
        check_offered(&[b"spdy/3", b"http/1.1"], true, &[b"http/1.1"]);
        check_offered(&[], true, &[]);
        check_offered(&[b"imap"], true, &[b"imap"]);
    }
}
