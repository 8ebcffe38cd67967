//! Requests for servers that are really elsewhere (a context's route, `upstream.rewrites`): they are asked of there, and what comes back is
//! told as the client knows it. Bodies are passed as they are.

use super::Engine;
use super::recording::Recording;
use super::request::Request;
use crate::http::authority::{Authority, Scheme, Shown};
use crate::http::head::ResponseHead;
use crate::http::headers::Headers;
use crate::policy::auth::Identity;
use crate::policy::rewrite::{Route, by_rule, is_above};
use crate::target::{Front, Target};

/// What a request was before.
#[derive(Debug, Clone)]
pub struct Rewritten {
    scheme: Scheme,
    authority: Authority,
    way: Way,
}

/// By what it is elsewhere.
#[derive(Debug, Clone)]
enum Way {
    /// A context's route: each loopback port is a server of its own.
    Route(Route),
    /// A rule of `upstream.rewrites`: that is where it is.
    Rule(Scheme, Authority),
}

/// Leads a target to where it really is, if its client's context has a route for it, or a rule names it.
pub(super) fn lead(engine: &Engine, target: &mut Target, identity: Option<&Identity>) -> Option<Rewritten> {
    let route = identity.and_then(|identity| identity.context.as_ref()?.route.as_ref());
    let rules = &engine.config.upstream.rewrites;
    if target.front != Front::Explicit || route.is_none() && rules.is_empty() {
        return None;
    }
    let authority = target.authority.clone()?;
    let led = route.and_then(|route| Some((Way::Route(route.clone()), route.of(&authority)?)));
    let (way, (scheme, there)) = led.or_else(|| {
        let there = by_rule(rules, &authority)?;
        Some((Way::Rule(there.0, there.1.clone()), there))
    })?;
    let rewritten = Rewritten { scheme: target.scheme, authority, way };
    (target.scheme, target.authority) = (scheme, Some(there));
    Some(rewritten)
}

/// The same for a request, with the fields that tell its server where it comes from.
pub(super) fn rewrite(engine: &Engine, request: &mut Request, flow: &mut Recording) {
    let Some(rewritten) = lead(engine, &mut request.target, request.identity.as_deref()) else { return };
    flow.authority = request.target.authority.as_ref().map(ToString::to_string);
    for name in ["Origin", "Referer"] {
        replace(&mut request.head.headers, name, |url| rewritten.there(url));
    }
    request.rewritten = Some(Box::new(rewritten));
}

/// Tells a response as its client knows the server.
pub(super) fn map_back(request: &Request, head: &mut ResponseHead) {
    let Some(rewritten) = &request.rewritten else { return };
    for name in ["Location", "Content-Location", "Access-Control-Allow-Origin"] {
        replace(&mut head.headers, name, |url| rewritten.back(url));
    }
    replace(&mut head.headers, "Set-Cookie", |cookie| rewritten.cookie(cookie));
}

impl Rewritten {
    /// A URL as the server there knows it. None: it is another one's.
    fn there(&self, url: &str) -> Option<String> {
        let (_, authority, rest) = split(url)?;
        let (scheme, there) = match &self.way {
            Way::Route(route) => route.of(&authority)?,
            Way::Rule(scheme, there) => (authority == self.authority).then(|| (*scheme, there.clone()))?,
        };
        Some(format!("{scheme}://{}{rest}", Shown(&there, scheme)))
    }

    /// A URL as the client knows it.
    fn back(&self, url: &str) -> Option<String> {
        // A reference without a scheme has that of the server there.
        let there = match &self.way {
            Way::Route(_) => Scheme::Https,
            Way::Rule(scheme, _) => *scheme,
        };
        let whole = if url.starts_with("//") { format!("{there}:{url}") } else { url.to_owned() };
        let (scheme, authority, rest) = split(&whole)?;
        let port = match &self.way {
            Way::Route(route) => route.port_of(scheme, &authority)?,
            Way::Rule(led, there) => {
                (*led == scheme && *there == authority).then_some(self.authority.port)?
            }
        };
        let known = Authority { host: self.authority.host.clone(), port };
        Some(format!("{}://{}{rest}", self.scheme, Shown(&known, self.scheme)))
    }

    /// A cookie for the server there, or a domain above it, is one for the host that the client knows.
    fn cookie(&self, cookie: &str) -> Option<String> {
        let domain = |attribute: &str| {
            let (name, value) = attribute.split_once('=')?;
            let value = value.trim().trim_start_matches('.').to_ascii_lowercase();
            name.trim().eq_ignore_ascii_case("domain").then_some(value)
        };
        let is_mapped = |attribute: &&str| {
            domain(attribute).is_some_and(|domain| match &self.way {
                Way::Route(route) => route.is_above(&domain, self.authority.port),
                Way::Rule(_, there) => is_above(&domain, &there.host),
            })
        };
        let mut attributes = cookie.split(';').skip(1);
        attributes.any(|attribute| is_mapped(&attribute)).then(|| {
            let kept = cookie.split(';').enumerate();
            let kept = kept.filter(|(at, attribute)| *at == 0 || !is_mapped(attribute));
            kept.map(|(_, attribute)| attribute).collect::<Vec<_>>().join(";")
        })
    }
}

/// Scheme, server, and the rest.
fn split(url: &str) -> Option<(Scheme, Authority, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
        _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = Authority::parse(&rest[..end], Some(scheme.default_port())).ok()?;
    Some((scheme, authority, &rest[end..]))
}

/// Replaces values of a field.
fn replace(headers: &mut Headers, name: &str, new: impl Fn(&str) -> Option<String>) {
    let is_named = |field: &[u8]| field.eq_ignore_ascii_case(name.as_bytes());
    let values: Vec<Vec<u8>> =
        headers.iter().filter(|field| is_named(field.name)).map(|field| field.value.to_vec()).collect();
    let changed: Vec<Option<String>> =
        values.iter().map(|value| std::str::from_utf8(value).ok().and_then(&new)).collect();
    if changed.iter().all(Option::is_none) {
        return;
    }
    headers.retain(|field| !is_named(field.name));
    for (value, changed) in values.iter().zip(&changed) {
        headers.push(name.as_bytes(), changed.as_ref().map_or(value, |changed| changed.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten() -> Rewritten {
        let variables = [("morph_id", "m"), ("scope", "s"), ("domain_suffix", "x.test")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Rewritten {
            scheme: Scheme::Http,
            authority: Authority::parse("localhost:3000", None).unwrap(),
            way: Way::Route(Route::new(None, &variables).unwrap()),
        }
    }

    #[test]
    fn urls() {
        let rewritten = rewritten();
        let there = |url: &str| rewritten.there(url);
        assert_eq!(there("http://localhost:3000/a?b").as_deref(), Some("https://cmux-m-s-3000.x.test/a?b"));
        assert_eq!(there("http://127.0.0.1:8080").as_deref(), Some("https://cmux-m-s-8080.x.test"));
        assert_eq!(there("http://localhost").as_deref(), Some("https://cmux-m-s-80.x.test"));
        assert_eq!((there("null"), there("http://other.test/")), (None, None));
        let back = |url: &str| rewritten.back(url);
        assert_eq!(
            back("https://cmux-m-s-3000.x.test/login#x").as_deref(),
            Some("http://localhost:3000/login#x")
        );
        assert_eq!(back("https://cmux-m-s-80.x.test").as_deref(), Some("http://localhost"));
        assert_eq!(back("//cmux-m-s-8080.x.test/").as_deref(), Some("http://localhost:8080/"));
        for other in
            ["/relative", "https://x.test/", "http://cmux-m-s-3000.x.test/", "https://cmux-m-t-3000.x.test/"]
        {
            assert_eq!(back(other), None, "{other}");
        }
    }

    #[test]
    fn cookies() {
        let rewritten = rewritten();
        let cookie = |text: &str| rewritten.cookie(text);
        assert_eq!(cookie("a=domain=x.test; Path=/"), None);
        assert_eq!(cookie("a=b; Domain=other.test"), None);
        for domain in ["x.test", ".X.test", "cmux-m-s-3000.x.test"] {
            assert_eq!(cookie(&format!("a=b; Domain={domain}; Secure")).as_deref(), Some("a=b; Secure"));
        }
    }
}
