//! What answers tell: names to the kernel half's rules, and whether a name was bound to an address that is not its to
//! have. For DNS over UDP and over TCP.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::message::Message;
use crate::config::{Access, Dns, Prefix, Rebinding};
use crate::net::address::{AddressClass, classify};
use crate::redirect::Names;
use crate::telemetry::metrics;

/// Looks at answers before captured clients get them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inspection {
    names: Names,
    resolvers: Vec<Prefix>,
    rebinding: Rebinding,
}

/// What is to become of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// The client gets [`super::message::refusal`].
    Refuse,
}

impl Inspection {
    #[must_use]
    pub fn new(config: &Dns, names: Names) -> Self {
        Self { names, resolvers: config.resolvers.clone(), rebinding: config.rebinding.clone() }
    }

    /// When this returns, rules know the names. `netns`: where the client is, as the kernel half calls it; None is weir's
    /// own.
    pub fn judge(&self, netns: Option<u64>, server: SocketAddr, response: &Message) -> Verdict {
        let (names, addresses) = response.resolved();
        if let Some(address) = self.rebound(response, &names) {
            metrics::with(|metrics| metrics.dns_rebindings.increment());
            tracing::warn!(
                "the name {} has the address {address}, which capture.dns.rebinding denies; the answer of {server} is refused",
                response.name
            );
            return Verdict::Refuse;
        }
        if !addresses.is_empty() && self.is_believed(server.ip()) {
            let addresses =
                addresses.into_iter().map(|(address, ttl)| (address, Duration::from_secs(ttl.into())));
            self.names.learn(netns, &names, addresses);
        }
        Verdict::Pass
    }

    /// Whether an answer has told that this address has this name: in lower case, without a dot at the end.
    #[must_use]
    pub fn knows(&self, netns: Option<u64>, address: IpAddr, name: &str) -> bool {
        self.names.of(netns, address).iter().any(|known| **known == *name)
    }

    fn is_believed(&self, server: IpAddr) -> bool {
        let server = Prefix::from(server);
        self.resolvers.is_empty() || self.resolvers.iter().any(|prefix| prefix.contains(server))
    }

    fn rebound(&self, response: &Message, names: &[&str]) -> Option<IpAddr> {
        let denied = response.addresses().find(|address| self.is_denied(*address))?;
        // Of an alias, the name that was asked for counts: it is what a browser's origin is made of.
        let asked = names.first()?;
        (!is_internal(asked) && !self.rebinding.names.iter().any(|domain| domain.admits(asked)))
            .then_some(denied)
    }

    fn is_denied(&self, address: IpAddr) -> bool {
        let access = match classify(address) {
            AddressClass::Public | AddressClass::NotUnicast => Access::Allow,
            AddressClass::Loopback => self.rebinding.loopback,
            AddressClass::LinkLocal => self.rebinding.link_local,
            AddressClass::Metadata => self.rebinding.metadata,
            AddressClass::Private => self.rebinding.private,
        };
        access == Access::Deny
    }
}

/// Names that nobody outside can give an address: of one label, or below a domain that is not delegated (RFC 6761,
/// RFC 6762, RFC 8375, and ICANN's reservation of `internal`).
fn is_internal(name: &str) -> bool {
    const RESERVED: [&str; 5] = ["localhost", "local", "internal", "lan", "home.arpa"];
    let is_below = |suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    !name.contains('.') || RESERVED.iter().any(|suffix| is_below(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_names() {
        for (name, internal) in [
            ("localhost", true),
            ("db", true),
            ("a.localhost", true),
            ("printer.local", true),
            ("metadata.google.internal", true),
            ("nas.home.arpa", true),
            ("example.com", false),
            ("xlocal.com", false),
            ("a.b.notlocal", false),
            ("home.arpa.example", false),
        ] {
            assert_eq!(is_internal(name), internal, "{name}");
        }
    }
}
