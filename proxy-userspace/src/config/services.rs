//! `services`: apps that the gateway serves below a prefix of its own, each under its id.

use super::kinds::{Fault, none_or, optional, quoted, word};
use super::section::Section;
use super::shape::{Shape, shaped};
use crate::authority::{Authority, Scheme};

/// `services`.
#[derive(Debug, Clone, PartialEq)]
pub struct Services {
    /// Below which path they are. Without one there are none. Default /proxy.
    pub prefix: Option<Box<str>>,
    /// Those that are named. Default none.
    pub apps: Vec<App>,
}

/// An entry of `services.apps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// What it is called in URLs.
    pub name: Box<str>,
    /// Where it is.
    pub target: (Scheme, Authority),
    /// The handler that sees to it; None: the one that fits. Whether there is one of that name is not known here.
    pub framework: Option<Box<str>>,
}

/// The longest name, in bytes.
const MAX_NAME: usize = 128;

impl Default for Services {
    fn default() -> Self {
        Self { prefix: Some("/proxy".into()), apps: Vec::new() }
    }
}

pub(super) fn services(s: &mut Section<'_, '_>) -> Services {
    let d = Services::default();
    Services {
        prefix: s.read("prefix", d.prefix, none_or(prefix)),
        apps: s.sections("apps", app).into_iter().flatten().collect(),
    }
}

/// None: what is wrong was reported.
fn app(s: &mut Section<'_, '_>) -> Option<App> {
    let name = s.required("name", name);
    let target = s.required("target", shaped(Shape::Pattern(URL), server));
    let framework = s.read("framework", None, optional(word()));
    Some(App { name: name?, target: target?, framework: framework.map(String::into) })
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
    use crate::config::tests::load_files;

    #[test]
    fn apps() {
        for (line, expected) in [
            (
                "apps: [{name: ../x, target: 'http://a'}]",
                "services.apps.name: `../x` is no name for a service",
            ),
            ("apps: [{name: a}]", "services.apps: no `target`, which it needs"),
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
        let config = load_files(&[b"services: {prefix: none}"], &[], &[]).unwrap();
        assert_eq!(config.services.prefix, None);
    }
}
