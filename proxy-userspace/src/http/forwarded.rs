//! Who asked, told to the server: X-Forwarded-For, -Proto and -Host, and Forwarded (RFC 7239).
//!
//! What a client says of itself in these fields is worth nothing, and a server that believes it can be deceived. So
//! they are written anew; only what a trusted proxy in front of weir wrote is kept, and added to.

use std::io::Write;
use std::net::IpAddr;

use super::authority::{Authority, Scheme, Shown};
use super::headers::Headers;
use crate::config::ForwardedFields;

/// What is known of the client, and in which fields it is told.
#[derive(Debug, Clone, Copy)]
pub struct Forwarded<'a> {
    pub fields: ForwardedFields,
    pub client: IpAddr,
    /// The client is a proxy whose word counts.
    pub trusted: bool,
    pub scheme: Scheme,
    /// What the client wrote into Host.
    pub host: Option<&'a Authority>,
    /// What of the path the client asked for has been taken off its beginning.
    pub prefix: Option<&'a str>,
}

impl Forwarded<'_> {
    /// Whether a field of the client's must not go on as it is.
    #[must_use]
    pub fn replaces(&self, name: &[u8]) -> bool {
        if !self.trusted {
            return is_forwarded(name);
        }
        if self.prefix.is_some() && is(name, X_PREFIX) {
            return true;
        }
        let (x, standard) = (self.fields.has_x(), self.fields.has_standard());
        (standard && is(name, FORWARDED)) || (x && [X_FOR, X_PROTO, X_HOST].iter().any(|own| is(name, own)))
    }

    /// Appends the fields to `out`; `received` are the client's.
    pub fn write(&self, received: &Headers, out: &mut Vec<u8>) {
        if self.fields.has_x() {
            let client = self.client.to_canonical();
            self.append(received, X_FOR, &client.to_string(), out);
            self.keep_or(received, X_PROTO, &self.scheme.to_string(), out);
            if let Some(host) = self.host {
                self.keep_or(received, X_HOST, &Shown(host, self.scheme).to_string(), out);
            }
        }
        if let Some(prefix) = self.prefix {
            start(X_PREFIX, out);
            out.extend_from_slice(prefix.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if self.fields.has_standard() {
            self.append(received, FORWARDED, &self.element(), out);
        }
    }

    /// One element of Forwarded. RFC 7239 §6: an IPv6 address, and whatever has a colon, is quoted.
    fn element(&self) -> String {
        let client = match self.client.to_canonical() {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        let host = match self.host.map(|host| Shown(host, self.scheme).to_string()) {
            Some(host) if host.contains([':', '[']) => format!(";host=\"{host}\""),
            Some(host) => format!(";host={host}"),
            None => String::new(),
        };
        format!("{client}{host};proto={}", self.scheme)
    }

    /// A list, which every proxy on the way adds to.
    fn append(&self, received: &Headers, name: &str, value: &str, out: &mut Vec<u8>) {
        start(name, out);
        if self.trusted {
            for before in received.iter().filter(|field| is(field.name, name)) {
                out.extend_from_slice(before.value);
                out.extend_from_slice(b", ");
            }
        }
        // Writing to a Vec does not fail.
        let _ = write!(out, "{value}\r\n");
    }

    /// A single value: that of the first proxy, which alone has seen the client.
    fn keep_or(&self, received: &Headers, name: &str, value: &str, out: &mut Vec<u8>) {
        let before = received.iter().find(|field| self.trusted && is(field.name, name));
        start(name, out);
        out.extend_from_slice(before.map_or(value.as_bytes(), |field| field.value));
        out.extend_from_slice(b"\r\n");
    }
}

const FORWARDED: &str = "Forwarded";
const X_FOR: &str = "X-Forwarded-For";
const X_PROTO: &str = "X-Forwarded-Proto";
const X_HOST: &str = "X-Forwarded-Host";
const X_PREFIX: &str = "X-Forwarded-Prefix";

fn start(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
}

fn is(name: &[u8], known: &str) -> bool {
    name.eq_ignore_ascii_case(known.as_bytes())
}

/// Forwarded, X-Real-IP, and all that begins with X-Forwarded-. An underscore counts as a hyphen: to programs that
/// get their fields as CGI variables (RFC 3875 §4.1.18) both are the same.
fn is_forwarded(name: &[u8]) -> bool {
    let alike = |known: &str| {
        name.len() >= known.len()
            && known
                .bytes()
                .zip(name)
                .all(|(known, byte)| known.eq_ignore_ascii_case(byte) || (known == b'-' && *byte == b'_'))
    };
    alike("X-Forwarded-")
        || [FORWARDED, "X-Real-IP"].iter().any(|known| name.len() == known.len() && alike(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::http::parse::{self, Parsed};

    #[track_caller]
    fn check(fields: ForwardedFields, trusted: bool, received: &str, expected: &str) {
        let text = format!("GET / HTTP/1.1\r\n{received}\r\n");
        let Ok(Parsed::Complete(head, _)) = parse::request(text.as_bytes(), &Limits::default()) else {
            panic!("not a head: {text}")
        };
        let host = Authority::parse("a.example:81", None).unwrap();
        let client = "::ffff:192.0.2.9".parse().unwrap();
        let (scheme, host) = (Scheme::Http, Some(&host));
        let forwarded = Forwarded { fields, client, trusted, scheme, host, prefix: None };
        let mut out = Vec::new();
        for field in head.headers.iter().filter(|field| !forwarded.replaces(field.name)) {
            let (name, value) = (String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value));
            write!(out, "kept {name}: {value}\r\n").unwrap();
        }
        forwarded.write(&head.headers, &mut out);
        assert_eq!(String::from_utf8_lossy(&out).replace("\r\n", "\n"), expected, "{received}");
    }

    const SPOOFED: &str = "X-Forwarded-For: 1.1.1.1\r\nx_forwarded-proto: https\r\nX-Real-Ip: 2\r\n\
                           X-Forwarded-Port: 1\r\nForwarded: for=3\r\nX-Forwardedness: 4\r\n";

    #[test]
    fn what_clients_claim_is_dropped() {
        let x = "X-Forwarded-For: 192.0.2.9\nX-Forwarded-Proto: http\nX-Forwarded-Host: a.example:81\n";
        let standard = "Forwarded: for=192.0.2.9;host=\"a.example:81\";proto=http\n";
        let kept = "kept X-Forwardedness: 4\n";
        check(ForwardedFields::XForwarded, false, SPOOFED, &format!("{kept}{x}"));
        check(ForwardedFields::Forwarded, false, SPOOFED, &format!("{kept}{standard}"));
        check(ForwardedFields::Both, false, SPOOFED, &format!("{kept}{x}{standard}"));
    }

    #[test]
    fn what_a_trusted_proxy_says_is_added_to() {
        check(
            ForwardedFields::Both,
            true,
            "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: https\r\n\
             Forwarded: for=1.1.1.1\r\nX-Forwarded-Port: 443\r\n",
            "kept X-Forwarded-Port: 443\n\
             X-Forwarded-For: 1.1.1.1, 2.2.2.2, 192.0.2.9\nX-Forwarded-Proto: https\n\
             X-Forwarded-Host: a.example:81\n\
             Forwarded: for=1.1.1.1, for=192.0.2.9;host=\"a.example:81\";proto=http\n",
        );
    }
}
