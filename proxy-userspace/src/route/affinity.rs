//! What binds a request to a member: what it is hashed by, and the cookie by which a client stays where it was.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use super::balance::random;
use crate::config::{Algorithm, BackendGroup, HashBy};
use crate::http::authority::Scheme;
use crate::http::headers::Headers;

/// What one request says of where it wants to go.
#[derive(Debug, Clone, Copy)]
pub struct Affinity {
    /// What it has in common with others; random if it has nothing.
    pub(super) key: u64,
    /// The member that it was sent to before.
    pub(super) member: Option<u64>,
}

impl Affinity {
    pub(super) fn of(group: &BackendGroup, headers: &Headers, client: IpAddr) -> Self {
        let key = match (group.balance, &group.hash_by) {
            (Algorithm::RoundRobin | Algorithm::LeastRequests | Algorithm::RandomTwo, _) => None,
            (Algorithm::Hash, HashBy::Client) => Some(match client.to_canonical() {
                IpAddr::V4(address) => xxh3_64(&address.octets()),
                IpAddr::V6(address) => xxh3_64(&address.octets()),
            }),
            (Algorithm::Hash, HashBy::Header(name)) => field(headers, name).next().map(xxh3_64),
            (Algorithm::Hash, HashBy::Cookie(name)) => cookie(headers, name).map(xxh3_64),
        };
        let told = group.sticky_cookie.as_ref().and_then(|name| cookie(headers, name));
        let member = told.and_then(|text| u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok());
        Self { key: key.unwrap_or_else(random), member }
    }
}

/// The Set-Cookie by which a client comes back to this member. It does not say which server that is.
pub(super) fn set_cookie(name: &str, member: u64, scheme: Scheme) -> String {
    let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
    format!("{name}={member:016x}; Path=/; HttpOnly; SameSite=Lax{secure}")
}

fn field<'a>(headers: &'a Headers, name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()))
        .map(|field| field.value)
}

/// RFC 6265 §4.2.1; HTTP/2 may have it in several fields (RFC 9113 §8.2.3).
fn cookie<'a>(headers: &'a Headers, name: &str) -> Option<&'a [u8]> {
    let pairs = field(headers, "cookie").flat_map(|value| value.split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::group;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        fields.iter().for_each(|(name, value)| headers.push(name.as_bytes(), value.as_bytes()));
        headers
    }

    #[test]
    fn what_a_request_is_hashed_by() {
        let key = |by: &str, fields: &[(&str, &str)], client: &str| {
            let group = group(&format!("balance: hash, hash_by: '{by}', members: [{{url: 'http://a'}}]"));
            group.affinity(&headers(fields), client.parse().unwrap()).key
        };
        assert_eq!(key("client", &[], "192.0.2.1"), key("client", &[("a", "b")], "::ffff:192.0.2.1"));
        assert_ne!(key("client", &[], "192.0.2.1"), key("client", &[], "192.0.2.2"));
        let by_user = |value| key("header:X-User", &[("x-user", value)], "192.0.2.1");
        assert_eq!(by_user("a"), by_user("a"));
        assert_ne!(by_user("a"), by_user("b"));
        let by_cookie =
            |value| key("cookie:sid", &[("Cookie", "xsid=1; a=b"), ("Cookie", value)], "192.0.2.1");
        assert_eq!(by_cookie("sid=1"), by_cookie("other=2; sid=1 ;x=y"));
        assert_ne!(by_cookie("sid=1"), by_cookie("sid=2"));
        // Without it there is nothing to go by: anywhere.
        assert_ne!(by_cookie("sib=1"), by_cookie("sib=1"));
    }

    #[test]
    fn a_cookie_names_a_member() {
        let group = group("sticky_cookie: at, members: [{url: 'http://a'}]");
        let id = group.members()[0].id;
        let told = set_cookie("at", id, Scheme::Https);
        assert!(told.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"), "{told}");
        let sent = told.split(';').next().unwrap();
        let member = |cookie: &str| {
            group.affinity(&headers(&[("cookie", cookie)]), "192.0.2.1".parse().unwrap()).member
        };
        assert_eq!(member(sent), Some(id));
        assert_eq!((member("at=zz"), member("at="), member("b=1")), (None, None, None));
    }
}
