//! A context's route: where its loopback addresses really are. `http://localhost:3000/` is, for whoever works in a context,
//! a server that is reached under a name made of that port and of what the context is told.

use std::net::IpAddr;
use std::str::FromStr as _;

use crate::config::Rewrite;

use crate::authority::{Authority, Host, Scheme};

/// The template of a context that names none.
const CMUX: &str = "https://cmux-{morph_id}-{scope}-{port}.{domain_suffix}";

/// The longest value of a variable.
const MAX_VALUE: usize = 200;

/// A template, all of whose variables but the port are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    scheme: Scheme,
    /// What stands before and behind the port in the name.
    before: Box<str>,
    behind: Box<str>,
    port: u16,
}

/// Why there is no such route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    #[error("the template needs `{0}`, which is not given")]
    Missing(String),
    #[error("`{0}` is none of the template's variables")]
    Unknown(String),
    #[error("the value of `{0}` is not one or more letters, digits, `-` and `.`")]
    Value(String),
    #[error("the template is not http:// or https://, a name with `{{port}}` once in it, and perhaps a port")]
    Template,
}

impl Route {
    /// The route by `template`, or by the built-in one, with these variables.
    ///
    /// # Errors
    /// [`NoRoute`].
    pub fn new(template: Option<&str>, variables: &[(String, String)]) -> Result<Self, NoRoute> {
        let mut text = template.unwrap_or(CMUX).to_owned();
        for (name, value) in variables {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
            if value.is_empty() || value.len() > MAX_VALUE || !value.bytes().all(fits) {
                return Err(NoRoute::Value(name.clone()));
            }
            let variable = format!("{{{name}}}");
            if name == "port" || !text.contains(&variable) {
                return Err(NoRoute::Unknown(name.clone()));
            }
            text = text.replace(&variable, &value.to_ascii_lowercase());
        }
        let (before, behind) = text.split_once("{port}").ok_or(NoRoute::Template)?;
        for part in [before, behind] {
            if let Some((_, rest)) = part.split_once('{') {
                let name = rest.split('}').next().unwrap_or_default().to_owned();
                return Err(if name == "port" { NoRoute::Template } else { NoRoute::Missing(name) });
            }
        }
        let (scheme, before) = match before.split_once("://") {
            Some(("http", before)) => (Scheme::Http, before),
            Some(("https", before)) => (Scheme::Https, before),
            _ => return Err(NoRoute::Template),
        };
        let behind = behind.strip_suffix('/').unwrap_or(behind);
        // With the longest port that there is: so every name that comes of it is one.
        let authority = Authority::parse(&format!("{before}65535{behind}"), Some(scheme.default_port()))
            .map_err(|_| NoRoute::Template)?;
        let Host::Name(name) = authority.host else { return Err(NoRoute::Template) };
        let behind = &name[name.rfind("65535").ok_or(NoRoute::Template)? + 5..];
        let before = &name[..name.len() - behind.len() - 5];
        Ok(Self { scheme, before: before.into(), behind: behind.into(), port: authority.port })
    }

    /// Where `authority` really is, if it is a loopback one.
    #[must_use]
    pub fn of(&self, authority: &Authority) -> Option<(Scheme, Authority)> {
        is_loopback(&authority.host).then(|| {
            let name = format!("{}{}{}", self.before, authority.port, self.behind);
            (self.scheme, Authority { host: Host::Name(name.into()), port: self.port })
        })
    }

    /// The loopback port that a URL's server stands for.
    #[must_use]
    pub fn port_of(&self, scheme: Scheme, authority: &Authority) -> Option<u16> {
        let Host::Name(name) = &authority.host else { return None };
        let port = name.strip_prefix(&*self.before)?.strip_suffix(&*self.behind)?;
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
        let port = u16::from_str(port).ok().filter(|_| is_number)?;
        (scheme == self.scheme && authority.port == self.port).then_some(port)
    }

    /// Whether a cookie's domain (in lower case, without a dot before it) is above a server of this route.
    #[must_use]
    pub fn is_above(&self, domain: &str, port: u16) -> bool {
        let name = format!("{}{port}{}", self.before, self.behind);
        name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// Where a server really is by the first of `upstream.rewrites` that names it.
#[must_use]
pub fn by_rule(rules: &[Rewrite], authority: &Authority) -> Option<(Scheme, Authority)> {
    let names = |rule: &&Rewrite| {
        rule.hosts.iter().any(|pattern| pattern.matches(&authority.host))
            && (rule.ports.is_empty() || rule.ports.iter().any(|ports| ports.contains(&authority.port)))
    };
    rules.iter().find(names)?.of(authority)
}

/// Whether a cookie's domain (in lower case, without a dot before it) is this server, or above it.
#[must_use]
pub fn is_above(domain: &str, host: &Host) -> bool {
    let Host::Name(name) = host else { return false };
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// RFC 6761 §6.3, and the addresses that connect to this host.
fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Name(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        Host::Address(address) => match address.to_canonical() {
            IpAddr::V4(address) => address.is_loopback() || address.is_unspecified(),
            IpAddr::V6(address) => address.is_loopback() || address.is_unspecified(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn cmux() -> Route {
        let known = [("morph_id", "M1"), ("scope", "base"), ("domain_suffix", "cmux.test")];
        Route::new(None, &variables(&known)).unwrap()
    }

    #[track_caller]
    fn check(route: &Route, authority: &str, expected: Option<&str>) {
        let authority = Authority::parse(authority, None).unwrap();
        let rewritten = route.of(&authority);
        if let Some((scheme, there)) = &rewritten {
            assert_eq!(route.port_of(*scheme, there), Some(authority.port));
        }
        let shown = rewritten.map(|(scheme, authority)| format!("{scheme}://{authority}"));
        assert_eq!(shown.as_deref(), expected, "{authority}");
    }

    #[test]
    fn loopback_is_elsewhere() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "app.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "0.0.0.0",
            "[::ffff:127.0.0.1]",
            "2130706433",
        ] {
            check(&cmux(), &format!("{host}:3000"), Some("https://cmux-m1-base-3000.cmux.test:443"));
        }
        for host in ["example.com", "localhost.example", "10.0.0.1", "[2001:db8::1]"] {
            check(&cmux(), &format!("{host}:3000"), None);
        }
        let other =
            Route::new(Some("http://p{port}.{zone}:8080/"), &variables(&[("zone", "x.test")])).unwrap();
        check(&other, "127.0.0.1:80", Some("http://p80.x.test:8080"));
    }

    #[test]
    fn and_back() {
        let port = |text: &str| cmux().port_of(Scheme::Https, &Authority::parse(text, Some(443)).unwrap());
        assert_eq!(port("cmux-m1-base-3001.cmux.test"), Some(3001));
        for other in [
            "cmux-m1-base-3001.cmux.test:8443",
            "cmux-m1-base-03001.cmux.test",
            "cmux-m1-base-.cmux.test",
            "cmux-m1-base-99999.cmux.test",
            "cmux-m2-base-3001.cmux.test",
        ] {
            assert_eq!(port(other), None, "{other}");
        }
        assert!(cmux().is_above("cmux.test", 3000) && cmux().is_above("cmux-m1-base-3000.cmux.test", 3000));
        assert!(!cmux().is_above("x.test", 3000) && !cmux().is_above("mux.test", 3000));
    }

    #[test]
    fn what_is_no_route() {
        let no = |template: Option<&str>, known: &[(&str, &str)]| {
            Route::new(template, &variables(known)).unwrap_err()
        };
        assert_eq!(no(None, &[("morph_id", "m")]), NoRoute::Missing("scope".into()));
        assert_eq!(no(None, &[("morph", "m")]), NoRoute::Unknown("morph".into()));
        assert_eq!(no(None, &[("morph_id", "a/b")]), NoRoute::Value("morph_id".into()));
        assert_eq!(no(None, &[("port", "1")]), NoRoute::Unknown("port".into()));
        for template in [
            "https://x.test",
            "ftp://{port}.test",
            "https://{port}.{port}.test",
            "https://x/{port}",
            "https://{port}",
        ] {
            assert_eq!(no(Some(template), &[]), NoRoute::Template, "{template}");
        }
    }
}
