//! A tunnel in which weir takes the server's place: its connection becomes a TLS session with the server, and that one the
//! first over which requests go. What the client is told is for the front.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::Engine;
use super::failure::Failure;
use super::recording::Recording;
use super::respond;
use super::tunnel::{Opened, Refused, Upgraded};
use crate::http::authority::Host;
use crate::net::transport::Transport;
use crate::netns::Namespace;
use crate::policy::auth::Identity;
use crate::policy::{Policy, Subject};
use crate::target::{Client, Front, Target};
use crate::telemetry::flow::Protocol;
use crate::tls::alpn;
use crate::upstream::{Addresses, Connection, Idle};

/// A tunnel that is not relayed.
#[derive(Debug)]
pub struct Taken {
    flow: Recording,
    /// The session with the server, or why there is none.
    session: Result<Box<Connection>, Failure>,
    namespace: Option<Arc<Namespace>>,
    addresses: Option<Box<Addresses>>,
}

impl Opened {
    /// Who has asked for it, where that is known.
    #[must_use]
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.flow.identity()
    }

    /// The socket on which it shows whether the server speaks first; None where something lies between, which speaks, too.
    #[must_use]
    pub fn socket(&self) -> Option<&TcpStream> {
        match &self.upstream {
            Upgraded::Connection(connection) => match &connection.stream {
                Transport::Plain(stream) => Some(stream),
                Transport::Tls(_) => None,
            },
            Upgraded::Stream(_) => None,
        }
    }

    /// Whether what a client calls its server in TLS has to be judged.
    #[must_use]
    pub fn asks_name(&self, engine: &Engine) -> bool {
        let own = self.flow.identity().and_then(|identity| identity.context.as_ref()?.policy.as_ref());
        engine.policy.current().asks_names() || own.is_some_and(Policy::asks_names)
    }

    /// Judges what a client calls its server in TLS, where that is another name than the one by which the tunnel was asked
    /// for, and has been judged.
    ///
    /// # Errors
    /// The refusal.
    pub fn check_name(
        &self,
        engine: &Engine,
        client: &Client,
        target: &Target,
        server_name: Option<&str>,
    ) -> Result<(), Failure> {
        let Some(name) = server_name else { return Ok(()) };
        let asked = target.authority.as_ref();
        let Ok(host) = Host::parse(name) else {
            return Err(Failure::BadRequest(
                "the name in the ClientHello is none that a server can have".into(),
            ));
        };
        if asked.is_some_and(|asked| asked.host == host) {
            return Ok(());
        }
        let original = match asked.map(|asked| &asked.host) {
            Some(Host::Address(address)) => Some(*address),
            _ => target.original_destination.map(|original| original.ip()),
        };
        let identity = self.flow.identity().map(|identity| &**identity);
        let subject = Subject::of(client, target, Some("CONNECT"), None).by(identity);
        let subject = Subject { host: Some(&host), original, ..subject };
        engine.policy.current().check(&subject)?;
        subject.own_policy().map(|own| own.check(&subject)).transpose()?;
        Ok(())
    }

    /// Refuses it after all.
    pub fn deny(mut self, failure: &Failure) {
        respond::note(&mut self.flow, failure);
    }

    /// Refuses it after all: its client has said something that it must not say.
    pub fn refuse(mut self, why: &'static str) {
        self.flow.verdict = Some(why.into());
        self.flow.verdict_rule = Some("tls".into());
        self.flow.end = "denied".into();
    }

    /// Makes a TLS session with the server, which must have `host`'s certificate, to speak one of these protocols.
    pub async fn secure(self, engine: &Engine, host: &Host, protocols: Vec<Vec<u8>>) -> Taken {
        let Self { mut flow, upstream, namespace, addresses } = self;
        flow.protocol = Protocol::Tls;
        let session = match upstream {
            Upgraded::Connection(connection) => engine
                .upstream
                .secure(*connection, host, protocols)
                .await
                .map(Box::new)
                .map_err(Failure::Connect),
            Upgraded::Stream(_) => Err(Failure::Internal("a tunnel on a stream can't be intercepted")),
        };
        flow.timings.tls_us = session.as_ref().ok().and_then(|connection| connection.tls_us);
        Taken { flow, session, namespace, addresses }
    }

    /// Leaves the server alone: its client does not ask for the one that it has asked for.
    #[must_use]
    pub fn misdirected(self, why: String) -> Taken {
        let Self { mut flow, namespace, addresses, .. } = self;
        flow.protocol = Protocol::Tls;
        Taken { flow, session: Err(Failure::BadRequest(why)), namespace, addresses }
    }
}

impl Taken {
    /// Why there is no session with the server.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.session.as_ref().err()
    }

    /// The protocol that the server has chosen.
    #[must_use]
    pub fn protocol(&self) -> Option<Vec<u8>> {
        self.session.as_ref().ok()?.stream.alpn()
    }

    /// The session, to hear whether the server speaks first.
    #[must_use]
    pub fn stream(&mut self) -> Option<&mut Transport> {
        self.session.as_mut().ok().map(|connection| &mut connection.stream)
    }

    /// Connects once more, for client and server to see to it themselves.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn reopen(self, engine: &Engine) -> Result<Opened, Refused> {
        let Self { mut flow, session, namespace, addresses } = self;
        let failure = session.err().unwrap_or(Failure::Internal("there is a session with the server"));
        let Some(addresses) = addresses else { return Err(Refused { flow, failure }) };
        match engine.upstream.connect(&Addresses { tls: None, ..(*addresses).clone() }).await {
            Ok(connection) => {
                flow.upstream = Some(connection.address);
                Ok(Opened { flow, upstream: connection.into(), namespace, addresses: Some(addresses) })
            }
            Err(error) => Err(Refused { flow, failure: error.into() }),
        }
    }

    /// Records that the client would not have weir in the server's place.
    pub fn note_client(mut self, why: String) {
        self.flow.end = why.into();
    }

    /// Records it, as requests inside it are recorded from now on, and has the session carry them. What belongs to this
    /// client alone is given back.
    pub async fn begin(mut self, engine: &Engine) -> Option<Idle> {
        self.flow.intercepted = true;
        let connection = match self.session {
            Ok(connection) => connection,
            Err(failure) => {
                respond::note(&mut self.flow, &failure);
                return None;
            }
        };
        self.flow.end = "intercepted".into();
        if connection.stream.alpn().as_deref() != Some(alpn::HTTP2) {
            return Some(Idle::from(*connection));
        }
        if let Some(mut addresses) = self.addresses {
            // Captured programs share their connections with nobody.
            let client = self.flow.client.address;
            addresses.owner = (self.flow.front == Front::Captured).then_some(client);
            // The next request finds out for itself what is wrong.
            let _ = engine.upstream.share(*connection, &addresses).await;
        }
        None
    }

    /// A tunnel between both sessions, for what is not HTTP.
    ///
    /// # Errors
    /// [`Refused`]: there is none with the server.
    pub fn into_opened(mut self) -> Result<Opened, Refused> {
        self.flow.intercepted = true;
        match self.session {
            Ok(connection) => Ok(Opened {
                flow: self.flow,
                upstream: Upgraded::Connection(connection),
                namespace: self.namespace,
                addresses: None,
            }),
            Err(failure) => Err(Refused { flow: self.flow, failure }),
        }
    }
}
