//! `forwarded`: what the gateway, and the proxy, tell servers of who asked.

use ipnet::IpNet;

use super::kinds::{Fault, choice, quoted};
use super::section::Section;

/// `forwarded`: what servers are told of who asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Forwarding {
    /// For requests of the gateway. Default x_forwarded.
    pub gateway: ForwardedFields,
    /// For requests of the explicit proxy. Default off.
    pub explicit: ForwardedFields,
    /// Proxies in front of weir, whose word counts. Default none.
    pub trusted: Vec<IpNet>,
}

/// Which fields say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedFields {
    /// None; what the client sent goes on as it is.
    Off,
    /// X-Forwarded-For, -Proto and -Host.
    XForwarded,
    /// Forwarded (RFC 7239).
    Forwarded,
    Both,
}

impl ForwardedFields {
    #[must_use]
    pub fn has_x(self) -> bool {
        matches!(self, Self::XForwarded | Self::Both)
    }

    #[must_use]
    pub fn has_standard(self) -> bool {
        matches!(self, Self::Forwarded | Self::Both)
    }
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { gateway: ForwardedFields::XForwarded, explicit: ForwardedFields::Off, trusted: Vec::new() }
    }
}

pub(super) fn forwarding(s: &mut Section<'_, '_>) -> Forwarding {
    const FIELDS: &[(&str, ForwardedFields)] = &[
        ("off", ForwardedFields::Off),
        ("x_forwarded", ForwardedFields::XForwarded),
        ("forwarded", ForwardedFields::Forwarded),
        ("both", ForwardedFields::Both),
    ];

    let d = Forwarding::default();
    Forwarding {
        gateway: s.read("gateway", d.gateway, choice(FIELDS)),
        explicit: s.read("explicit", d.explicit, choice(FIELDS)),
        trusted: s.list("trusted", d.trusted, network),
    }
}

/// An address, or a network such as 10.0.0.0/8.
fn network(text: &str) -> Result<IpNet, Fault> {
    let address = text.parse().map(|address: std::net::IpAddr| IpNet::from(address));
    address.or_else(|_| text.parse::<IpNet>().map(|network| network.trunc())).map_err(|_| {
        format!("{} is neither an IP address nor a network such as 10.0.0.0/8", quoted(text)).into()
    })
}

#[cfg(test)]
mod tests {
    use crate::config::tests::check;

    #[test]
    fn trusted_networks() {
        check(
            "forwarded: {trusted: [10.0.0.0/8, 10.0.0.0/40]}",
            "a.yaml:1:35: forwarded.trusted: `10.0.0.0/40` is neither an IP address nor a network such as 10.0.0.0/8",
        );
    }
}
