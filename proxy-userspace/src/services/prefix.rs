//! What an app says of itself, as its clients know it: references, cookies and redirections that begin at its root begin
//! below its prefix for them. Pure functions over the values of fields; what is in bodies is `relay::prefixed`'s affair.

use crate::authority::Authority;

/// An app's root for its client.
#[derive(Debug, Clone, Copy)]
pub struct Root<'a> {
    /// `/proxy/{id}`, as the client has written it.
    pub prefix: &'a str,
    /// As whom the client knows the gateway, and by what the app itself is reached: both are the app's own to it.
    pub own: [Option<&'a Authority>; 2],
    /// The request was found to be its without the prefix: a cookie without a path would be for another one.
    pub is_led: bool,
}

impl Root<'_> {
    /// The value of a response's field, as its client is to get it. None: as it is.
    #[must_use]
    pub fn field(&self, name: &[u8], value: &str) -> Option<String> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            4 if is("Link") => self.links(value),
            7 if is("Refresh") => self.refresh(value),
            8 if is("Location") => self.reference(value),
            10 if is("Set-Cookie") => self.cookie(value),
            16 if is("Content-Location") => self.reference(value),
            22 if is("Service-Worker-Allowed") => self.reference(value),
            _ => None,
        }
    }

    /// A reference (RFC 3986 §4.1). None: it is not from the app's root, or below the prefix already.
    #[must_use]
    pub fn reference(&self, url: &str) -> Option<String> {
        let path = match url.strip_prefix('/') {
            Some(rest) if !rest.starts_with('/') => url,
            Some(rest) => self.after_own(&rest[1..])?,
            None => {
                let (scheme, rest) = url.split_once("://")?;
                let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
                let path = self.after_own(rest).filter(|_| is_http)?;
                // A path alone says the same, and is right in whichever scheme the client has asked.
                if self.is_below(path) {
                    return Some(path.to_owned());
                }
                path
            }
        };
        if self.is_below(path) {
            return None;
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Some(format!("{}{slash}{path}", self.prefix))
    }

    /// What stands behind an authority that is the app's own.
    fn after_own<'u>(&self, rest: &'u str) -> Option<&'u str> {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let named = &rest[..end];
        let is_own = self.own.iter().flatten().any(|own| {
            [80, 443]
                .iter()
                .any(|port| Authority::parse(named, Some(*port)).is_ok_and(|named| named == **own))
        });
        is_own.then_some(&rest[end..])
    }

    fn is_below(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    }

    /// A cookie for all of the app is one for all below the prefix, and for no other app's (RFC 6265 §5.2.4).
    fn cookie(&self, cookie: &str) -> Option<String> {
        let mut parts = cookie.split(';');
        let pair = parts.next().unwrap_or_default();
        // Browsers take these with Path=/ only, and without Domain.
        if pair
            .trim_start()
            .get(..HOST_PREFIX.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(HOST_PREFIX))
        {
            return None;
        }
        let mut out = pair.to_owned();
        let mut has_path = false;
        for attribute in parts {
            let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            let (name, value) = (name.trim(), value.trim());
            if name.eq_ignore_ascii_case("domain") {
                // The app does not know whose host this is.
                continue;
            }
            if name.eq_ignore_ascii_case("path") && value.starts_with('/') {
                has_path = true;
                let mapped =
                    if self.is_below(value) { value.to_owned() } else { format!("{}{value}", self.prefix) };
                out.push_str("; Path=");
                out.push_str(&mapped);
                continue;
            }
            out.push(';');
            out.push_str(attribute);
        }
        if !has_path && self.is_led {
            out.push_str("; Path=");
            out.push_str(self.prefix);
            out.push('/');
        }
        (out != cookie).then_some(out)
    }

    /// `5; url=/there`, the URL in quotes perhaps.
    #[must_use]
    pub fn refresh(&self, value: &str) -> Option<String> {
        let at = value.to_ascii_lowercase().find("url=")? + "url=".len();
        let (before, url) = value.split_at(at);
        let quote = url.chars().next().filter(|c| matches!(c, '"' | '\''));
        let inner = quote.map_or(url, |quote| url.trim_start_matches(quote).trim_end_matches(quote)).trim();
        let mapped = self.reference(inner)?;
        let quote = quote.map(String::from).unwrap_or_default();
        Some(format!("{before}{quote}{mapped}{quote}"))
    }

    /// RFC 8288 §3: each target stands between angle brackets.
    fn links(&self, value: &str) -> Option<String> {
        let (mut out, mut rest, mut changed) = (String::with_capacity(value.len()), value, false);
        while let Some((before, behind)) = rest.split_once('<') {
            let Some((target, after)) = behind.split_once('>') else { break };
            let mapped = self.reference(target);
            changed |= mapped.is_some();
            out.push_str(before);
            out.push('<');
            out.push_str(mapped.as_deref().unwrap_or(target));
            out.push('>');
            rest = after;
        }
        out.push_str(rest);
        changed.then_some(out)
    }
}

const HOST_PREFIX: &str = "__Host-";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_root<T>(then: impl FnOnce(Root<'_>) -> T) -> T {
        let client = Authority::parse("gate.test:22180", None).unwrap();
        let app = Authority::parse("127.0.0.1:8501", None).unwrap();
        then(Root { prefix: "/proxy/a", own: [Some(&client), Some(&app)], is_led: false })
    }

    #[track_caller]
    fn check(name: &str, value: &str, expected: Option<&str>) {
        let mapped = with_root(|root| root.field(name.as_bytes(), value));
        assert_eq!(mapped.as_deref(), expected, "{name}: {value}");
    }

    #[test]
    fn redirections() {
        check("Location", "/login?next=/x", Some("/proxy/a/login?next=/x"));
        check("location", "/", Some("/proxy/a/"));
        check("Location", "/proxy/ab", Some("/proxy/a/proxy/ab"));
        check("Location", "http://gate.test:22180/x#y", Some("/proxy/a/x#y"));
        check("Location", "https://gate.test:22180", Some("/proxy/a/"));
        check("Location", "http://127.0.0.1:8501?q", Some("/proxy/a/?q"));
        check("Location", "//127.0.0.1:8501/x", Some("/proxy/a/x"));
        check("Location", "http://gate.test:22180/proxy/a/x", Some("/proxy/a/x"));
        check("Content-Location", "/x", Some("/proxy/a/x"));
        for own in ["/proxy/a", "/proxy/a/", "/proxy/a?x", "login", "../x", "?x", "", "//other.test/x"] {
            check("Location", own, None);
        }
        for other in
            ["http://gate.test/x", "https://other.test:22180/", "mailto:a@b", "ftp://127.0.0.1:8501/"]
        {
            check("Location", other, None);
        }
        check("Refresh", "5; url=/x", Some("5; url=/proxy/a/x"));
        check("Refresh", "0;URL='/x'", Some("0;URL='/proxy/a/x'"));
        check("Refresh", "5", None);
        check("X-Location", "/x", None);
    }

    #[test]
    fn cookies() {
        check("Set-Cookie", "a=/; Path=/; HttpOnly", Some("a=/; Path=/proxy/a/; HttpOnly"));
        check("Set-Cookie", "a=b;path=/x;Secure", Some("a=b; Path=/proxy/a/x;Secure"));
        check("Set-Cookie", "a=b; Domain=.test; Path=/proxy/a", Some("a=b; Path=/proxy/a"));
        check("Set-Cookie", "a=b; Path=/proxy/ab", Some("a=b; Path=/proxy/a/proxy/ab"));
        check("Set-Cookie", "a=b", None);
        check("Set-Cookie", "__Host-a=b; Path=/; Secure", None);
        let led = |value: &str| with_root(|root| Root { is_led: true, ..root }.field(b"Set-Cookie", value));
        assert_eq!(led("a=b; Secure").as_deref(), Some("a=b; Secure; Path=/proxy/a/"));
    }

    #[test]
    fn links() {
        check(
            "Link",
            "</a.css>; rel=preload, <b.css>; rel=\"x\", <https://cdn.test/c>; as=font, </d>",
            Some(
                "</proxy/a/a.css>; rel=preload, <b.css>; rel=\"x\", <https://cdn.test/c>; as=font, </proxy/a/d>",
            ),
        );
        check("Link", "<b.css>; rel=x", None);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_is_mapped_twice(value in "(/|a|=|;|<|>|url|://|ä|%|gate.test:22180|/proxy/a){0,12}") {
            for name in ["Link", "Refresh", "Location"] {
                let once = with_root(|root| root.field(name.as_bytes(), &value));
                if let Some(once) = once && name == "Location" {
                    prop_assert!(with_root(|root| root.field(name.as_bytes(), &once)).is_none());
                }
            }
            with_root(|root| root.field(b"Set-Cookie", &value));
        }
    }
}
