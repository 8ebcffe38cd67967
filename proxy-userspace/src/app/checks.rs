//! Checks of the members of backends: one task for all groups and workers, which asks each member that is due. What is
//! found goes into the member, where requests see it; nothing is decided here.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;

use crate::config::{self, Check, CheckKind, Limits};
use crate::http::authority::{Host, Scheme, Shown};
use crate::http::parse::{self, Parsed};
use crate::policy::acl::Acl;
use crate::route::{Group, Member};
use crate::running::Running;
use crate::tls::client::{self, ClientTls};

/// How often it is looked who is due.
const LOOK: Duration = Duration::from_millis(100);

/// Checks under way at one time. Who finds no place is looked at again soon.
const MOST: usize = 128;

/// Read at once from an answer.
const CHUNK: usize = 2048;

pub(super) async fn run(running: Arc<Running>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut under_way, mut trust) = (JoinSet::new(), Trust::default());
    loop {
        looks.tick().await;
        while under_way.try_join_next().is_some() {}
        let live = running.live();
        for group in live.routes.groups().filter(|group| group.settings.health.check.kind != CheckKind::Off) {
            for member in group.members() {
                if under_way.len() >= MOST || !member.check_is_due() {
                    continue;
                }
                let tls = match member.server.scheme {
                    Scheme::Https => trust.of(&live.config.upstream.tls),
                    Scheme::Http => None,
                };
                let asking = Asking { tls, acl: live.acl.clone(), limits: live.config.server.limits.clone() };
                under_way.spawn(asking.check(Arc::clone(group), Arc::clone(member)));
            }
        }
    }
}

/// Whom servers' certificates are from, read when it is first needed.
#[derive(Default)]
struct Trust(Option<(config::UpstreamTls, Option<Arc<ClientTls>>)>);

impl Trust {
    fn of(&mut self, settings: &config::UpstreamTls) -> Option<Arc<ClientTls>> {
        if self.0.as_ref().is_none_or(|(known, _)| known != settings) {
            // One that can't be read has kept the configuration from being put in force.
            self.0 = Some((settings.clone(), ClientTls::load(settings).ok().map(Arc::new)));
        }
        self.0.as_ref().and_then(|(_, tls)| tls.clone())
    }
}

/// What a check needs.
struct Asking {
    tls: Option<Arc<ClientTls>>,
    acl: Acl,
    limits: Limits,
}

impl Asking {
    async fn check(self, group: Arc<Group>, member: Arc<Member>) {
        let check = &group.settings.health.check;
        let found = match timeout(check.timeout, self.ask(check, &member)).await {
            Ok(found) => found,
            Err(_) => Err(format!("no answer within {} ms", check.timeout.as_millis())),
        };
        let (backend, name, complaint) = (&*group.settings.name, &*member.name, found.err());
        match (group.note_check(&member, complaint.as_deref()), complaint) {
            (Some(true), _) => tracing::info!(backend, member = name, "checks: it is up again"),
            (Some(false), complaint) => {
                tracing::warn!(
                    backend,
                    member = name,
                    "checks: it is down: {}",
                    complaint.unwrap_or_default()
                );
            }
            (None, _) => {}
        }
    }

    /// What is wrong with it.
    async fn ask(&self, check: &Check, member: &Member) -> Result<(), String> {
        let server = &member.server;
        let found: Vec<SocketAddr> = match &server.authority.host {
            Host::Address(address) => vec![SocketAddr::new(*address, server.authority.port)],
            Host::Name(name) => {
                let found = tokio::net::lookup_host((&**name, server.authority.port)).await;
                found.map_err(|error| format!("{name} could not be resolved: {error}"))?.collect()
            }
        };
        // As for requests: never weir itself.
        let allowed: Vec<_> =
            found.into_iter().filter(|address| self.acl.check_named(*address).is_ok()).collect();
        if allowed.is_empty() {
            return Err("it has no address that may be connected to".into());
        }
        let stream = TcpStream::connect(&allowed[..]).await.map_err(|error| of("connect", &error))?;
        if check.kind == CheckKind::Tcp {
            return Ok(());
        }
        let own = Shown(&server.authority, server.scheme).to_string();
        let host = check.host.as_deref().unwrap_or(&own);
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: weir-check\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            check.path
        );
        let status = match server.scheme {
            Scheme::Http => status(stream, &request, &self.limits).await?,
            Scheme::Https => {
                let tls = self.tls.as_ref().ok_or("upstream.tls can't be read")?;
                let name = client::server_name(&server.authority.host)
                    .ok_or("no certificate can be for its name")?;
                let connector = TlsConnector::from(tls.settings_for(&server.authority.host));
                let session = connector.connect(name, stream).await.map_err(|error| of("TLS", &error))?;
                status(session, &request, &self.limits).await?
            }
        };
        if check.statuses.contains(&status) { Ok(()) } else { Err(format!("status {status}")) }
    }
}

async fn status(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
    limits: &Limits,
) -> Result<u16, String> {
    stream.write_all(request.as_bytes()).await.map_err(|error| of("write", &error))?;
    let mut head = Vec::with_capacity(CHUNK);
    loop {
        if stream.read_buf(&mut head).await.map_err(|error| of("read", &error))? == 0 {
            return Err("it closed the connection without an answer".into());
        }
        match parse::response(&head, limits) {
            Ok(Parsed::Complete(head, _)) if head.status >= 200 => return Ok(head.status),
            // An interim one (RFC 9110 §15.2).
            Ok(Parsed::Complete(_, length)) => drop(head.drain(..length)),
            Ok(Parsed::Partial) => {}
            Err(error) => return Err(of("its answer", &error)),
        }
    }
}

fn of(what: &str, error: &dyn fmt::Display) -> String {
    format!("{what}: {error}")
}
