//! What is wrong with a configuration, and where each value came from.
//!
//! Nothing here decides what is right: that is told by the keys (`keys.rs`) and their kinds (`kinds.rs`).

use std::fmt;
use std::sync::Arc;

use super::schema::{Described, Form};

/// More errors than this are counted, not shown: a file of the wrong kind has thousands.
const MAX_SHOWN: usize = 50;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A file as a whole: it can't be read.
    Whole { file: Arc<str> },
    /// A place in a file; line and column count from 1, the column in characters.
    File { file: Arc<str>, line: usize, column: usize },
    /// An environment variable.
    Variable(Arc<str>),
    /// A `--set` flag.
    Flag(Arc<str>),
    /// Given nowhere: the default of the key.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { file } => write!(f, "{file}"),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(key) => write!(f, "--set {key}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One error: where, which key, what is wrong and how to put it right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    pub origin: Origin,
    /// The path of the key, such as `server.timeouts.read`; empty where the error concerns none.
    pub key: String,
    pub message: String,
    /// What was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.nearest {
            Some(nearest) => write!(f, " (did you mean `{nearest}`?)"),
            None => Ok(()),
        }
    }
}

/// All errors of a configuration, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().take(MAX_SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        match self.0.len().checked_sub(MAX_SHOWN) {
            Some(more) if more > 0 => write!(f, "\n… and {more} more errors"),
            _ => Ok(()),
        }
    }
}

/// Collects errors, so that one run of `weir config check` shows them all.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: Vec<ConfigError>,
    unknown: Vec<(Origin, String)>,
    known: Vec<String>,
    /// What the keys are, where that is asked.
    described: Option<Vec<Described>>,
}

impl Report {
    /// One that takes down what each key is. Lists of sections are read as if they had one entry.
    pub(super) fn describing() -> Self {
        Self { described: Some(Vec::new()), ..Self::default() }
    }

    pub(super) fn describes(&self) -> bool {
        self.described.is_some()
    }

    pub(super) fn describe(&mut self, path: &str, form: impl FnOnce() -> Form) {
        if let Some(described) = &mut self.described {
            described.push(Described { path: path.to_owned(), form: form(), is_required: false });
        }
    }

    /// Its section can't do without the key that was described last.
    pub(super) fn require_last(&mut self) {
        if let Some(last) = self.described.as_mut().and_then(|described| described.last_mut()) {
            last.is_required = true;
        }
    }

    pub(super) fn into_described(self) -> Vec<Described> {
        self.described.unwrap_or_default()
    }

    pub(super) fn error(&mut self, origin: &Origin, key: &str, message: impl Into<String>) {
        self.add(origin, key, message.into(), None);
    }

    pub(super) fn add(&mut self, origin: &Origin, key: &str, message: String, nearest: Option<String>) {
        self.errors.push(ConfigError { origin: origin.clone(), key: key.to_owned(), message, nearest });
    }

    /// A key that exists: what `unknown` keys are compared with.
    pub(super) fn known(&mut self, path: String) {
        self.known.push(path);
    }

    pub(super) fn unknown(&mut self, origin: &Origin, path: String) {
        self.unknown.push((origin.clone(), path));
    }

    /// Every key asked for, sections included, in reading order.
    pub(super) fn known_keys(self) -> Vec<String> {
        self.known
    }

    pub(super) fn finish<T>(mut self, value: T) -> Result<T, ConfigErrors> {
        for (origin, path) in std::mem::take(&mut self.unknown) {
            let (message, nearest) = self.explain_unknown(&path);
            self.errors.push(ConfigError { origin, key: path, message, nearest });
        }
        if self.errors.is_empty() {
            return Ok(value);
        }
        self.errors.sort();
        Err(ConfigErrors(self.errors))
    }

    /// The nearest key of the same section; else the same name in another section; else all keys of the section.
    fn explain_unknown(&self, path: &str) -> (String, Option<String>) {
        let (section, name) = split_path(path);
        let siblings = || self.known.iter().map(|known| split_path(known)).filter(|known| known.0 == section);
        let message = "unknown key".to_owned();
        if let Some(nearest) = nearest(name, siblings().map(|known| known.1)) {
            return (message, Some(nearest.to_owned()));
        }
        if let Some(elsewhere) = self.known.iter().find(|known| split_path(known).1 == name) {
            return (message, Some(elsewhere.clone()));
        }
        let names: Vec<_> = siblings().map(|known| known.1).collect();
        (format!("unknown key; known here: {}", names.join(", ")), None)
    }
}

/// The candidate that differs from `name` by a slip or two, if there is one.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// No key is longer; bounds the work on hostile names.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_lowercase().replace('-', "_");
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// (`server.timeouts`, `read`) of `server.timeouts.read`.
fn split_path(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_forgives_slips_only() {
        let keys = ["port", "port_range", "host", "timeouts"];
        for (name, expected) in [
            ("prot", Some("port")),
            ("Port", Some("port")),
            ("port-range", Some("port_range")),
            ("timeout", Some("timeouts")),
            ("colour", None),
        ] {
            assert_eq!(nearest(name, keys.into_iter()), expected, "{name}");
        }
    }

    #[test]
    fn many_errors_are_counted() {
        let mut report = Report::default();
        for _ in 0..MAX_SHOWN + 3 {
            report.error(&Origin::Default, "", "bad");
        }
        let text = report.finish(()).unwrap_err().to_string();
        assert_eq!(text.lines().count(), MAX_SHOWN + 1);
        assert!(text.ends_with("and 3 more errors"), "{text}");
    }
}
