//! `services`: apps that the gateway serves below a prefix of its own, each under its id.

use super::kinds::{Fault, choice, none_or, number, optional, quoted, word};
use super::section::Section;
use super::shape::{Shape, shaped};
use crate::authority::{Authority, Scheme};

/// `services`.
#[derive(Debug, Clone, PartialEq)]
pub struct Services {
    /// Below which path they are. Without one there are none. Default /proxy.
    pub prefix: Option<Box<str>>,
    /// Which containers are services. Default labelled.
    pub discover: Discover,
    /// Those that are named. Default none.
    pub apps: Vec<App>,
}

/// `services.discover`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Discover {
    /// Those alone that `services.apps` names.
    Off,
    /// Those with a label of weir's, too.
    #[default]
    Labelled,
    /// Those with a TCP port that is published or exposed, too.
    Exposed,
}

/// An entry of `services.apps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// What it is called in URLs.
    pub name: Box<str>,
    pub place: AppPlace,
    /// The handler that sees to it; None: the one that fits. Whether there is one of that name is not known here.
    pub framework: Option<Box<str>>,
}

/// Where an app is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppPlace {
    Server(Scheme, Authority),
    /// A container, by its name or id, and the port there; None: the one that it exposes.
    Container(Box<str>, Option<u16>),
}

/// The longest name, in bytes.
const MAX_NAME: usize = 128;

impl Default for Services {
    fn default() -> Self {
        Self { prefix: Some("/proxy".into()), discover: Discover::default(), apps: Vec::new() }
    }
}

pub(super) fn services(s: &mut Section<'_, '_>) -> Services {
    const DISCOVER: &[(&str, Discover)] =
        &[("off", Discover::Off), ("labelled", Discover::Labelled), ("exposed", Discover::Exposed)];

    let d = Services::default();
    Services {
        prefix: s.read("prefix", d.prefix, none_or(prefix)),
        discover: s.read("discover", d.discover, choice(DISCOVER)),
        apps: s.sections("apps", app).into_iter().flatten().collect(),
    }
}

/// None: what is wrong was reported.
fn app(s: &mut Section<'_, '_>) -> Option<App> {
    let name = s.required("name", name);
    let target = s.read("target", None, optional(shaped(Shape::Pattern(URL), server)));
    let container = s.read("container", None, optional(word()));
    let port = s.read("port", None, optional(number(1..=u16::MAX)));
    let framework = s.read("framework", None, optional(word()));
    let place = match (target, container) {
        (Some((scheme, authority)), None) if port.is_none() => AppPlace::Server(scheme, authority),
        (Some(_), None) => {
            s.error("`port` is for a `container`; that of a `target` stands in its URL");
            return None;
        }
        (None, Some(container)) => AppPlace::Container(container.into(), port),
        _ if s.has("target") == s.has("container") => {
            s.error("either `target` or `container` has to say where it is");
            return None;
        }
        // What is wrong with the one that is there was reported.
        _ => return None,
    };
    Some(App { name: name?, place, framework: framework.map(String::into) })
}

const URL: &str = "^[hH][tT][tT][pP][sS]?://";

/// `/proxy`: segments that need no encoding.
fn prefix(text: &str) -> Result<Box<str>, Fault> {
    let fits = |segment: &str| !segment.is_empty() && is_name(segment);
    let path = text.strip_prefix('/').unwrap_or_default();
    if path.is_empty() || !path.split('/').all(fits) {
        let message = format!("{} is not a path such as /proxy or /my/apps", quoted(text));
        return Err(message.into());
    }
    Ok(text.into())
}

fn name(text: &str) -> Result<Box<str>, Fault> {
    service_name(text).map(Into::into).ok_or_else(|| {
        let what = "letters, digits, `-`, `_` and `.`, the first a letter or digit";
        format!("{} is no name for a service: {what}, at most {MAX_NAME}", quoted(text)).into()
    })
}

/// What can stand in a URL for a service, as it is.
#[must_use]
pub fn service_name(text: &str) -> Option<&str> {
    (!text.is_empty() && text.len() <= MAX_NAME && is_name(text)).then_some(text)
}

fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.bytes().all(fits) && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// `http://host:port`, for who names a service otherwise than by the configuration.
///
/// # Errors
/// What is wrong with it.
pub fn service_target(text: &str) -> Result<(Scheme, Authority), String> {
    server(text).map_err(|fault| fault.message)
}

fn server(text: &str) -> Result<(Scheme, Authority), Fault> {
    let fault = |why: &str| Fault::from(format!("{} {why}", quoted(text)));
    let Some((scheme, rest)) = text.split_once("://") else {
        let message = format!("{} is not a URL such as http://127.0.0.1:8501", quoted(text));
        return Err(Fault { message, nearest: Some(format!("http://{text}")) });
    };
    let scheme = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
        _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
        _ => return Err(fault("is neither an http:// nor an https:// URL")),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(fault("has a path; an app is a server, and gets what stands behind its prefix"));
    }
    let authority = Authority::parse(authority, Some(scheme.default_port()));
    Ok((scheme, authority.map_err(|error| fault(&format!("names no server: {error}")))?))
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{check, load_files};

    #[test]
    fn apps() {
        for (line, expected) in [
            (
                "apps: [{name: ../x, target: 'http://a'}]",
                "services.apps.name: `../x` is no name for a service",
            ),
            ("apps: [{name: a}]", "services.apps: either `target` or `container` has to say where it is"),
            ("apps: [{name: a, container: b, target: 'http://a'}]", "services.apps: either `target` or"),
            ("apps: [{name: a, target: 'http://a', port: 1}]", "services.apps: `port` is for a `container`"),
            ("apps: [{name: a, target: 'http://a/b'}]", "services.apps.target: `http://a/b` has a path"),
            ("apps: [{name: a, target: 'ftp://a'}]", "services.apps.target: `ftp://a` is neither"),
            ("prefix: proxy", "services.prefix: `proxy` is not a path such as /proxy"),
            ("prefix: /a//b", "services.prefix: `/a//b` is not a path"),
            ("prefix: /..", "services.prefix: `/..` is not a path"),
        ] {
            let errors = load_files(&[format!("services:\n  {line}\n").as_bytes()], &[], &[]).unwrap_err();
            let first = errors.lines().next().unwrap();
            assert!(first.contains(expected), "{line}: {first}");
        }
        check(
            "services: {discover: all}",
            "a.yaml:1:22: services.discover: `all` is not one of off, labelled, exposed",
        );
        let config = load_files(&[b"services: {prefix: none}"], &[], &[]).unwrap();
        assert_eq!(config.services.prefix, None);
    }
}
