//! Where a request or connection goes, how that was learned, and who asks. Every front ends in these.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;

use crate::config::{Backend, Parent};
use crate::http::authority::{Authority, Host, Scheme};
use crate::http::basic::Presented;
use crate::netns::Namespace;

/// Where it goes.
#[derive(Debug, Clone)]
pub struct Target {
    pub front: Front,
    /// `host:port` as the client named it: CONNECT, absolute-form, Host, or SNI. It is where an explicit request goes.
    pub authority: Option<Authority>,
    /// What is spoken there: Https where weir itself is to speak TLS.
    pub scheme: Scheme,
    /// Where a captured connection was going; or, where TLS is intercepted, the address that was asked for. If present, it
    /// decides; the authority never does.
    pub original_destination: Option<SocketAddr>,
    pub vantage: Vantage,
    /// The one of `capture.rules` that redirected it, if one did.
    pub rule: Option<Arc<dyn Rule>>,
    /// Who a client of the explicit proxy says that it is.
    pub credentials: Option<Arc<Presented>>,
    /// weir has taken the server's place in TLS: `authority` is what it was asked for as.
    pub intercepted: bool,
}

/// A rule by which a connection was captured.
pub trait Rule: fmt::Debug + Send + Sync {
    fn name(&self) -> &Arc<str>;

    /// Whether its clients may use its own names only.
    fn is_strict(&self) -> bool;

    /// Whether a client may call its server so. Of a rule that isn't strict, any name.
    fn admits(&self, name: &str) -> bool;
}

/// Rules that hold at one time have names of their own.
impl PartialEq for dyn Rule {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for dyn Rule {}

/// From where a connection is made: from where the captured one was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Vantage {
    /// The local address: that of a captured socket which was bound before it connected.
    pub source: Option<IpAddr>,
    /// The network namespace, if it is not weir's own.
    pub namespace: Option<Arc<Namespace>>,
}

impl Target {
    /// What is known of it at a front's door.
    #[must_use]
    pub fn of(front: Front) -> Self {
        Self {
            front,
            authority: None,
            scheme: Scheme::Http,
            original_destination: None,
            vantage: Vantage::default(),
            rule: None,
            credentials: None,
            intercepted: false,
        }
    }
}

/// Where to connect to: what a route makes of a target.
#[derive(Debug, Clone)]
pub enum Hop {
    /// A name or address to find addresses for, and whether to speak TLS there.
    Authority(Authority, Scheme),
    /// An address that is settled, from where to connect to it, and whose certificate the server there must have if TLS is
    /// to be spoken.
    Address(SocketAddr, Vantage, Option<Host>),
    /// A server that the operator has named.
    Backend(Arc<Backend>),
    /// One of the ways to an app.
    Service(Arc<Reach>),
    /// A name or address behind a parent proxy; `tunnel` where the proxy is not to read what passes.
    Parent { parent: Arc<Parent>, authority: Authority, scheme: Scheme, tunnel: bool },
}

/// A way to an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// For people: what kind of way it is.
    pub kind: &'static str,
    /// What limits know the app as: its addresses may be those of others in other places.
    pub service: Authority,
    pub scheme: Scheme,
    pub at: Authority,
    /// From where it is reached there.
    pub vantage: Vantage,
}

impl Hop {
    /// The server that it leads to.
    #[must_use]
    pub fn authority(&self) -> Authority {
        match self {
            Self::Authority(authority, _) | Self::Parent { authority, .. } => authority.clone(),
            Self::Backend(backend) => backend.authority.clone(),
            Self::Service(way) => way.service.clone(),
            Self::Address(address, ..) => {
                Authority { host: Host::Address(address.ip()), port: address.port() }
            }
        }
    }

    /// For a connection that carries no plain requests.
    #[must_use]
    pub fn as_tunnel(self) -> Self {
        match self {
            Self::Parent { parent, authority, scheme, .. } => {
                Self::Parent { parent, authority, scheme, tunnel: true }
            }
            hop => hop,
        }
    }
}

/// Through which door it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Front {
    Explicit,
    Captured,
    Gateway,
}

/// Who asks.
#[derive(Debug, Clone, Serialize)]
pub struct Client {
    /// The peer address of the downstream connection.
    #[serde(rename = "client")]
    pub address: SocketAddr,
    /// Known for captured connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Arc<Process>>,
}

/// The process that called connect().
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Thread group id, in the initial pid namespace.
    pub pid: u32,
    pub uid: u32,
    /// cgroup v2 id: the inode number of its directory.
    pub cgroup: u64,
    /// The container that it lives in, if it was captured as that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<Container>>,
    /// The command name, at most 15 bytes (`TASK_COMM_LEN`).
    pub comm: String,
}

/// A container, as its engine knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Container {
    pub id: Box<str>,
    pub name: Box<str>,
    pub image: Box<str>,
}

impl fmt::Display for Front {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            Self::Explicit => "explicit",
            Self::Captured => "captured",
            Self::Gateway => "gateway",
        })
    }
}

impl fmt::Display for Client {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some(process) => {
                if let Some(container) = &process.container {
                    write!(text, "{}/", container.name)?;
                }
                write!(text, "{}[{}]", process.comm, process.pid)
            }
            None => write!(text, "{}", self.address),
        }
    }
}
