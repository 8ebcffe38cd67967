//! `match` of a rule of `routing.rules`: which requests it is for. All that is given must hold.

use std::fmt;

use regex::{Regex, RegexBuilder};

use super::kinds::{Fault, optional, quoted};
use super::patterns::{HostPattern, PathPattern, host_pattern, path_pattern};
use super::section::Section;

/// What a request must have.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Match {
    pub host: Option<HostPattern>,
    pub path: Option<PathPattern>,
    /// The whole path, without the query.
    pub path_regex: Option<PathRegex>,
    /// One of these; any where there are none.
    pub methods: Vec<Box<str>>,
    /// All of these.
    pub headers: Vec<HeaderMatch>,
}

/// A regular expression for a whole path. It is compiled once, when the configuration is read.
#[derive(Debug, Clone)]
pub struct PathRegex(Regex);

impl PathRegex {
    /// As it is compiled: for the whole text.
    #[must_use]
    pub fn anchored(&self) -> &str {
        self.0.as_str()
    }

    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

impl PartialEq for PathRegex {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// A field that a request must have: with this value, or with any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// In lower case.
    pub name: Box<str>,
    pub value: Option<Box<str>>,
}

/// The memory that one compiled regular expression may take, in bytes.
const REGEX_SIZE: usize = 256 << 10;

pub(super) fn read(s: &mut Section<'_, '_>) -> Match {
    let found = Match {
        host: s.read("host", None, optional(host_pattern)),
        path: s.read("path", None, optional(path_pattern)),
        path_regex: s.read("path_regex", None, optional(path_regex)),
        methods: s.list("methods", Vec::new(), method),
        headers: s.list("headers", Vec::new(), header),
    };
    if !["host", "path", "path_regex", "methods", "headers"].iter().any(|key| s.has(key)) {
        s.error("nothing to match by: it would match everything; that is what default_backend is for");
    }
    if s.has("path") && s.has("path_regex") {
        s.error("`path` and `path_regex`: a path is compared with one of them");
    }
    found
}

fn path_regex(text: &str) -> Result<PathRegex, Fault> {
    let bad =
        |why: &dyn fmt::Display| Fault::from(format!("{} is not a regular expression: {why}", quoted(text)));
    // By itself first: `a)(b` would be none, and must not become one by what is put around it.
    RegexBuilder::new(text).size_limit(REGEX_SIZE).build().map_err(|error| bad(&last_line(&error)))?;
    RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(REGEX_SIZE)
        .build()
        .map(PathRegex)
        .map_err(|error| bad(&last_line(&error)))
}

/// The error's own words, without the picture above them.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn method(text: &str) -> Result<Box<str>, Fault> {
    if !is_token(text) {
        return Err(format!("{} is not a method such as GET", quoted(text)).into());
    }
    let upper = text.to_ascii_uppercase();
    if upper != text && ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"].contains(&upper.as_str())
    {
        let message = format!("{}: methods are case-sensitive (RFC 9110, section 9.1)", quoted(text));
        return Err(Fault { message, nearest: Some(upper) });
    }
    Ok(text.into())
}

/// `Name` or `Name: value`.
fn header(text: &str) -> Result<HeaderMatch, Fault> {
    let (name, value) = match text.split_once(':') {
        Some((name, value)) => (name, Some(value.trim().into())),
        None => (text, None),
    };
    if !is_token(name) {
        return Err(format!("{} is not `Name` or `Name: value`", quoted(text)).into());
    }
    Ok(HeaderMatch { name: name.to_ascii_lowercase().into(), value })
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

impl fmt::Display for Match {
    /// As in the configuration: `host *.example.com, path /app/*`.
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.host.as_ref().map(|host| format!("host {host}")));
        parts.extend(self.path.as_ref().map(|path| format!("path {path}")));
        parts.extend(self.path_regex.as_ref().map(|regex| {
            let anchored = regex.anchored();
            format!("path_regex {}", &anchored["^(?:".len()..anchored.len() - ")$".len()])
        }));
        if !self.methods.is_empty() {
            parts.push(format!("methods {}", self.methods.join(" ")));
        }
        parts.extend(self.headers.iter().map(|header| match &header.value {
            Some(value) => format!("header {}: {value}", header.name),
            None => format!("header {}", header.name),
        }));
        text.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load_files;

    #[track_caller]
    fn check(matches: &str, expected: Result<&str, &str>) {
        let text =
            format!("routing:\n  rules: [{{match: {{{matches}}}, forward: {{target: 'http://a'}}}}]\n");
        match (load_files(&[text.as_bytes()], &[], &[]), expected) {
            (Ok(config), Ok(shown)) => assert_eq!(config.routing.rules[0].to_string(), shown),
            (Err(errors), Err(part)) => assert!(errors.contains(part), "{errors}"),
            (found, _) => panic!("{matches}: {found:?}"),
        }
    }

    #[test]
    fn what_a_rule_asks_for() {
        check("methods: [GET, PURGE]", Ok("methods GET PURGE"));
        check(
            "path_regex: '/v[0-9]+/.*', headers: ['X-Beta', 'X-Version: 2']",
            Ok("path_regex /v[0-9]+/.*, header x-beta, header x-version: 2"),
        );
        check(
            "methods: [get]",
            Err("`get`: methods are case-sensitive (RFC 9110, section 9.1) (did you mean `GET`?)"),
        );
        check("methods: ['G T']", Err("`G T` is not a method"));
        check("headers: ['a b: c']", Err("`a b: c` is not `Name` or `Name: value`"));
        check("path_regex: 'a)(b'", Err("`a)(b` is not a regular expression: unopened group"));
        check(
            "path_regex: '(a{1000}){1000}'",
            Err("is not a regular expression: Compiled regex exceeds size limit"),
        );
        check("path: /a, path_regex: /b", Err("`path` and `path_regex`"));
    }
}
