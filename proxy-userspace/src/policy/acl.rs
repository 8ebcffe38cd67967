//! The access list for destination addresses. It is what stands between a client and SSRF: a name is
//! resolved once, the address is checked here, and that address is connected to.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use crate::config::{Access, Destinations};
use crate::net::address::{AddressClass, classify};

/// The access list, with weir's own addresses.
#[derive(Debug, Clone)]
pub struct Acl {
    destinations: Destinations,
    own: Vec<SocketAddr>,
    local_addresses: fn() -> Vec<IpAddr>,
}

/// A refusal, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// For people: what was refused and by which rule.
    pub reason: Cow<'static, str>,
}

impl Acl {
    /// The rules of the configuration; `own` are the addresses that weir itself listens on.
    #[must_use]
    pub fn new(destinations: &Destinations, own: &[SocketAddr]) -> Self {
        Self {
            destinations: destinations.clone(),
            own: own.to_vec(),
            local_addresses: crate::net::address::local_addresses,
        }
    }

    /// Whether weir may connect to `address`.
    ///
    /// # Errors
    /// [`Denied`], with the rule's name in it.
    pub fn check(&self, address: SocketAddr) -> Result<(), Denied> {
        let ip = address.ip().to_canonical();
        let class = classify(ip);
        if self.is_own(ip, class, address.port()) {
            return denied(format!("{address} is weir's own; a proxy must not be used to reach itself"));
        }
        let (what, key, access) = match class {
            AddressClass::Public => return Ok(()),
            AddressClass::NotUnicast => return denied(format!("{address} is no unicast address")),
            AddressClass::Loopback => ("a loopback address", "loopback", self.destinations.loopback),
            AddressClass::LinkLocal => ("a link-local address", "link_local", self.destinations.link_local),
            AddressClass::Metadata => ("a cloud metadata address", "metadata", self.destinations.metadata),
            AddressClass::Private => ("a private address", "private", self.destinations.private),
        };
        match access {
            Access::Allow => Ok(()),
            Access::Deny => {
                denied(format!("{address} is {what}; refused by security.acl.destinations.{key}: deny"))
            }
        }
    }

    /// Whether weir may connect to `address` for a place that the operator has named: the classes are there to
    /// protect from what clients name.
    ///
    /// # Errors
    /// [`Denied`], where it is weir's own.
    pub fn check_named(&self, address: SocketAddr) -> Result<(), Denied> {
        let ip = address.ip().to_canonical();
        if self.is_own(ip, classify(ip), address.port()) {
            return denied(format!("{address} is weir's own; a route must not lead back to it"));
        }
        Ok(())
    }

    /// Whether weir itself may be reached there. A socket on loopback is reached by loopback addresses alone: on
    /// the host's other addresses the same port is somebody else's.
    fn is_own(&self, ip: IpAddr, class: AddressClass, port: u16) -> bool {
        let mut same_port = self.own.iter().filter(|own| own.port() == port).peekable();
        match class {
            AddressClass::Loopback => same_port.peek().is_some(),
            _ => same_port.any(|own| !own.ip().is_loopback()) && (self.local_addresses)().contains(&ip),
        }
    }
}

fn denied(reason: String) -> Result<(), Denied> {
    Err(Denied { reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(destinations: &Destinations, address: &str, refused_by: Option<&str>) {
        let own = ["127.0.0.1:22180".parse().unwrap(), "0.0.0.0:22181".parse().unwrap()];
        let mut acl = Acl::new(destinations, &own);
        acl.local_addresses = || vec!["192.0.2.7".parse().unwrap()];
        let verdict = acl.check(address.parse().unwrap());
        match (verdict, refused_by) {
            (Ok(()), None) => {}
            (Err(denied), Some(rule)) => {
                assert!(denied.reason.contains(rule), "{address}: {}", denied.reason);
            }
            (verdict, expected) => panic!("{address}: {verdict:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn defaults() {
        let defaults = Destinations::default();
        check(&defaults, "93.184.216.34:443", None);
        check(&defaults, "10.1.2.3:80", None);
        check(&defaults, "127.0.0.1:80", Some("destinations.loopback"));
        check(&defaults, "[::1]:80", Some("destinations.loopback"));
        check(&defaults, "[::ffff:127.0.0.1]:80", Some("destinations.loopback"));
        check(&defaults, "0.0.0.0:80", Some("destinations.loopback"));
        check(&defaults, "169.254.0.9:80", Some("destinations.link_local"));
        check(&defaults, "169.254.169.254:80", Some("destinations.metadata"));
        check(&defaults, "224.0.0.1:80", Some("no unicast"));
    }

    #[test]
    fn own_ports_are_refused_whatever_the_rules_say() {
        let open = Destinations {
            loopback: Access::Allow,
            link_local: Access::Allow,
            metadata: Access::Allow,
            private: Access::Allow,
        };
        check(&open, "127.0.0.1:80", None);
        check(&open, "127.0.0.1:22180", Some("own"));
        check(&open, "127.9.9.9:22180", Some("own"));
        check(&open, "[::1]:22180", Some("own"));
        check(&open, "[::ffff:127.0.0.1]:22180", Some("own"));
        check(&open, "0.0.0.0:22180", Some("own"));
        check(&open, "127.0.0.1:22181", Some("own"));
        check(&open, "192.0.2.7:22181", Some("own"));
        check(&open, "192.0.2.8:22181", None);
    }

    #[test]
    fn what_the_operator_names_may_be_anywhere_but_here() {
        let own = ["127.0.0.1:22180".parse().unwrap()];
        let acl = Acl::new(&Destinations::default(), &own);
        for (address, allowed) in [("127.0.0.1:80", true), ("169.254.1.1:80", true), ("[::1]:22180", false)] {
            assert_eq!(acl.check_named(address.parse().unwrap()).is_ok(), allowed, "{address}");
        }
    }

    #[test]
    fn the_port_of_a_loopback_socket_is_free_on_other_addresses() {
        check(&Destinations::default(), "192.0.2.7:22180", None);
    }
}
