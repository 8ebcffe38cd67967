//! The form in which a request is sent on: its target, Host, what is said of the client, credentials for a parent proxy;
//! what its fields tell of it, and how long either side may take.

use std::borrow::Cow;

use super::exchange::Exchange;
use crate::config::{ForwardedFields, HostField};
use crate::http::authority::{Authority, Host, Scheme, Shown};
use crate::http::forward::{self, Form};
use crate::http::forwarded::Forwarded;
use crate::http::headers::Headers;
use crate::net::deadline::Deadline;
use crate::net::pacing::Pace;
use crate::relay::body::Patience;
use crate::target::{Front, Hop};
use crate::upstream::basic;

impl Exchange<'_, '_> {
    /// The request target: as a server expects it, or a parent proxy (RFC 9112 §3.2.2).
    pub(super) fn request_target(&self, host: Shown<'_>) -> Cow<'_, str> {
        let path = self.request.app().map_or(&*self.request.path, |app| &app.target);
        match self.hop {
            Hop::Parent { tunnel: false, .. } if path == "*" => Cow::Owned(format!("{}://{host}", host.1)),
            Hop::Parent { tunnel: false, .. } => Cow::Owned(format!("{}://{host}{path}", host.1)),
            _ => Cow::Borrowed(path),
        }
    }

    /// The form in which the request is sent on.
    pub(super) fn form<'a>(&'a self, target: &'a str, host: Shown<'a>) -> Form<'a> {
        let proxy_authorization = match self.hop {
            Hop::Parent { parent, tunnel: false, .. } => parent.credentials.as_ref().map(basic),
            _ => None,
        };
        Form {
            target,
            host,
            framing: self.framing,
            upgrade: forward::wants_connection(&self.request.head),
            forwarded: self.forwarded(),
            proxy_authorization,
        }
    }

    /// What goes into Host.
    pub(super) fn host(&self) -> (Cow<'_, Authority>, Scheme) {
        let target = &self.request.target;
        match (self.hop, &target.authority) {
            (Hop::Backend(backend), Some(authority)) if backend.host == HostField::Client => {
                (Cow::Borrowed(authority), target.scheme)
            }
            (Hop::Backend(backend), _) => (Cow::Borrowed(&backend.authority), backend.scheme),
            (_, Some(authority)) => (Cow::Borrowed(authority), target.scheme),
            (Hop::Service(way), None) => (Cow::Borrowed(&way.at), way.scheme),
            // RFC 9112 §3.2: for want of a name, the address.
            (_, None) => {
                let address = self.flow.upstream.unwrap_or(self.addresses.addresses[0]);
                let host = Host::Address(address.ip());
                (Cow::Owned(Authority { host, port: address.port() }), Scheme::Http)
            }
        }
    }

    /// How long either side may keep the other waiting. Captured programs have not asked for a proxy: they may
    /// wait for as long as a tunnel may.
    pub(super) fn patience<'a>(&self, deadline: &'a Deadline, pace: Option<&'a Pace>) -> Patience<'a> {
        let timeouts = &self.engine.config.server.timeouts;
        match self.request.target.front {
            Front::Captured => {
                let idle = timeouts.tunnel_idle;
                Patience { deadline, read: idle, write: idle, least_rate: 0, pace }
            }
            Front::Explicit | Front::Gateway => {
                let least_rate = self.engine.config.server.limits.min_rate;
                Patience { deadline, read: timeouts.read, write: timeouts.write, least_rate, pace }
            }
        }
    }

    /// What the server is told of the client. Captured programs have not asked for a proxy: nothing.
    fn forwarded(&self) -> Option<Forwarded<'_>> {
        let settings = &self.engine.config.forwarded;
        let fields = match self.request.target.front {
            Front::Captured => ForwardedFields::Off,
            Front::Explicit => settings.explicit,
            Front::Gateway => settings.gateway,
        };
        let prefix = self.request.app().map(|app| &*app.prefix);
        (fields != ForwardedFields::Off || prefix.is_some()).then(|| Forwarded {
            fields,
            prefix,
            client: self.client.ip(),
            trusted: settings
                .trusted
                .iter()
                .any(|network| network.contains(&self.client.ip().to_canonical())),
            scheme: self.request.target.scheme,
            host: self.request.target.authority.as_ref(),
        })
    }
}

/// Whether a call of gRPC is made.
pub(super) fn is_grpc(headers: &Headers) -> bool {
    let types = headers.iter().filter(|field| field.name.eq_ignore_ascii_case(b"content-type"));
    types.into_iter().any(|field| field.value.starts_with(b"application/grpc"))
}
