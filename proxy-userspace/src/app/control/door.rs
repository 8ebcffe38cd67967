//! The explicit proxy's listeners: opened, closed, and moved. A new one is there before an old one goes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::watch;

use super::Control;
use crate::app::sockets::Explicit;
use crate::config;
use crate::running::{Capture, NotStarted, Started, Wanted};
use crate::sysproxy::{Refused, Restored};

/// How long the listeners may take to close.
const CLOSING: Duration = Duration::from_secs(2);

/// Listeners that are served.
#[derive(Debug)]
pub(in crate::app) struct Door {
    pub(in crate::app) address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Door {
    /// One that is open, and what tells its listeners when it no longer is.
    pub(in crate::app) fn new(address: SocketAddr) -> (Self, watch::Receiver<bool>) {
        let (open, told) = watch::channel(true);
        (Self { address, open }, told)
    }

    /// Ready when nobody accepts there any more. Connections that waited have been accepted.
    async fn close(self) {
        self.open.send_replace(false);
        if tokio::time::timeout(CLOSING, self.open.closed()).await.is_err() {
            tracing::warn!("listeners on {} are slow to close", self.address);
        }
    }
}

impl Control {
    /// Listeners at the place that the configuration wants, if the proxy listens, and elsewhere.
    pub(super) fn elsewhere(&self, server: &config::Server) -> Result<Option<Explicit>, NotStarted> {
        let Some(door) = &self.door else { return Ok(None) };
        let now = &self.plan.config.server;
        // What was started elsewhere stays there until its own key changes.
        if (now.host, now.port, &now.port_range) == (server.host, server.port, &server.port_range) {
            return Ok(None);
        }
        let port = door.address.port();
        let fits = server.port == port || server.port == 0 || server.port_range.contains(&port);
        if door.address.ip() == server.host && (fits && server.port == now.port || server.port == port) {
            return Ok(None);
        }
        open(server, server.host, None).map(Some)
    }

    /// Where it listens. Asked for once more, it is told the same.
    pub(super) async fn start(&mut self, wanted: Wanted) -> Result<Started, NotStarted> {
        let address = self.listen(wanted.port, wanted.host).await?;
        let system_proxy = match wanted.system_proxy {
            true => self.configure_or_warn(None).await,
            false => None,
        };
        Ok(Started { address, system_proxy })
    }

    async fn listen(&mut self, port: Option<u16>, host: Option<IpAddr>) -> Result<SocketAddr, NotStarted> {
        if let Some(door) = &self.door {
            let here = host.is_none_or(|host| host == door.address.ip())
                && port.is_none_or(|port| port == 0 || port == door.address.port());
            return if here { Ok(door.address) } else { Err(NotStarted::Elsewhere(door.address)) };
        }
        let config = self.plan.config.clone();
        let host = host.unwrap_or(config.server.host);
        if !host.is_loopback() && host != config.server.host {
            return Err(NotStarted::Open(host));
        }
        let explicit = open(&config.server, host, port)?;
        let address = explicit.address;
        if let Capture::On(redirect) = &*self.running.capture()
            && redirect.explicit_listener() != address
        {
            return Err(NotStarted::Unknown(redirect.explicit_listener()));
        }
        self.open(explicit).await;
        let address = address.unwrap_or_else(|| SocketAddr::new(host, 0));
        tracing::info!("explicit proxy on http://{address}");
        Ok(address)
    }

    /// An error: the system uses it, and can't be had to use something else. Then it goes on.
    pub(super) async fn stop(&mut self) -> Result<Option<Restored>, Refused> {
        let restored = self.restore_system().await?;
        let Some(door) = self.door.take() else { return Ok(restored) };
        tracing::info!("the explicit proxy on {} is stopped", door.address);
        self.giver.set_explicit(&Explicit::none(self.plan.config.server.workers));
        door.close().await;
        self.tell_workers().await;
        self.tell_everybody();
        Ok(restored)
    }

    /// Has these listeners served, in the place of those that are.
    pub(super) async fn open(&mut self, explicit: Explicit) {
        let Some(address) = explicit.address else { return };
        self.giver.set_explicit(&explicit);
        let (door, told) = Door::new(address);
        let old = self.door.replace(door);
        // Before anybody can ask for it: it must not lead to itself.
        self.tell_workers().await;
        self.orders.open(explicit.groups, &told).await;
        drop(told);
        if let Some(old) = old {
            tracing::info!("explicit proxy on http://{address}, no longer on {}", old.address);
            self.retarget().await;
            old.close().await;
        }
        self.tell_everybody();
    }
}

/// At this port alone, if it is given.
fn open(server: &config::Server, host: IpAddr, port: Option<u16>) -> Result<Explicit, NotStarted> {
    let (first, range) = match port {
        Some(port) => (port, port..=port),
        None => (server.port, server.port_range.clone()),
    };
    let address = SocketAddr::new(host, first);
    Explicit::open(host, first, &range, server.workers).map_err(|error| NotStarted::Listen { address, error })
}
