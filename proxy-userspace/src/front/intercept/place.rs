//! Which server weir is taken for, and where requests inside go: what was asked for, what the ClientHello names and what each
//! request says have to agree.

use std::net::SocketAddr;

use crate::http::authority::{Authority, Host, Scheme};
use crate::pipeline::failure::Failure;
use crate::target::Target;
use crate::tls::client_hello::ClientHello;

/// Where requests inside go, and which server weir is taken for.
pub(super) struct Place {
    pub base: Target,
    /// Whose certificate the client is shown.
    pub shown: Host,
    /// Why requests inside are not for the server that the connection leads to.
    pub misdirected: Option<String>,
}

impl Place {
    /// None: what the client calls its server is no name.
    pub(super) fn of(target: &Target, hello: &ClientHello) -> Option<Self> {
        let named = match &hello.server_name {
            Some(name) => Some(Host::parse(name).ok()?),
            None => None,
        };
        let inside = |authority: Authority, original: Option<SocketAddr>| Target {
            authority: Some(authority),
            original_destination: original,
            scheme: Scheme::Https,
            intercepted: true,
            ..target.clone()
        };
        let (base, shown) = match (target.original_destination, &target.authority, named) {
            (Some(original), _, named) => {
                let host = named.unwrap_or_else(|| Host::Address(original.ip()));
                (inside(Authority { host: host.clone(), port: original.port() }, Some(original)), host)
            }
            // The address is where it leads; the name is what it must prove to be.
            (None, Some(Authority { host: Host::Address(address), port }), Some(host @ Host::Name(_))) => {
                let original = SocketAddr::new(*address, *port);
                (inside(Authority { host: host.clone(), port: *port }, Some(original)), host)
            }
            (None, Some(authority), named) => {
                let shown = named.unwrap_or_else(|| authority.host.clone());
                (inside(authority.clone(), None), shown)
            }
            (None, None, _) => return None,
        };
        let expected = &base.authority.as_ref()?.host;
        let misdirected = (!is_same(expected, &shown)).then(|| {
            format!("the connection was asked for to {expected}, and its ClientHello names {shown}")
        });
        Some(Self { base, shown, misdirected })
    }
}

/// The root's dot changes nothing (RFC 3986 §3.2.2).
fn is_same(one: &Host, other: &Host) -> bool {
    match (one, other) {
        (Host::Name(one), Host::Name(other)) => one.trim_end_matches('.') == other.trim_end_matches('.'),
        (one, other) => one == other,
    }
}

/// Whether a request inside an intercepted session is for the server that this was opened to.
///
/// # Errors
/// 421 (RFC 9110 §15.5.20): another connection may lead there.
pub(in crate::front) fn check_direction(asked: Option<&Authority>, base: &Target) -> Result<(), Failure> {
    match (asked, &base.authority) {
        (None, _) => Ok(()),
        (Some(asked), Some(there)) if asked.port == there.port && is_same(&asked.host, &there.host) => Ok(()),
        (Some(asked), there) => {
            let there = there.as_ref().map(ToString::to_string).unwrap_or_default();
            Err(Failure::Misdirected(format!("{asked} is asked for over a connection to {there}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Front;

    /// `original authority server-name`, and `authority original shown`.
    #[track_caller]
    fn check_place(asked: &str, expected: Option<(&str, &str, &str)>, is_misdirected: bool) {
        let words: Vec<_> = asked.split(' ').map(|word| Some(word).filter(|word| *word != "-")).collect();
        let [original, authority, server_name] = words[..] else { panic!("{asked}") };
        let target = Target {
            original_destination: original.map(|original| original.parse().unwrap()),
            authority: authority.map(|authority| Authority::parse(authority, None).unwrap()),
            ..Target::of(Front::Explicit)
        };
        let hello = ClientHello { server_name: server_name.map(str::to_owned), ..ClientHello::default() };
        let place = Place::of(&target, &hello);
        let found = place.as_ref().map(|place| {
            let original =
                place.base.original_destination.map_or("-".into(), |original| original.to_string());
            (place.base.authority.as_ref().unwrap().to_string(), original, place.shown.to_string())
        });
        let expected = expected.map(|(one, two, three)| (one.to_owned(), two.to_owned(), three.to_owned()));
        assert_eq!(found, expected, "{asked}");
        assert_eq!(place.is_some_and(|place| place.misdirected.is_some()), is_misdirected, "{asked}");
    }

    #[test]
    fn which_server_weir_is_taken_for() {
        let all_agree = Some(("a.test:443", "-", "a.test"));
        check_place("- a.test:443 a.test", all_agree, false);
        check_place("- a.test:443 -", all_agree, false);
        check_place("- a.test:443 b.test", Some(("a.test:443", "-", "b.test")), true);
        check_place("- 192.0.2.1:443 a.test", Some(("a.test:443", "192.0.2.1:443", "a.test")), false);
        check_place("- 192.0.2.1:443 -", Some(("192.0.2.1:443", "-", "192.0.2.1")), false);
        check_place("192.0.2.1:8443 - a.test", Some(("a.test:8443", "192.0.2.1:8443", "a.test")), false);
        check_place("192.0.2.1:443 - -", Some(("192.0.2.1:443", "192.0.2.1:443", "192.0.2.1")), false);
        check_place("- a.test:443 *.test", None, false);
    }
}
