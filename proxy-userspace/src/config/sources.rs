//! Where a configuration comes from: files in order, then the environment, then flags; the last one wins.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::errors::{Origin, Report};
use super::tree::{Node, Value};
use super::{Config, ConfigErrors};
use super::{clashes, keys, yaml};

/// Read when no file is named, if it exists.
pub const DEFAULT_FILE: &str = "/etc/weir/proxy.yaml";

/// No configuration file is larger; a larger one was named by mistake.
const MAX_FILE_SIZE: u64 = 1 << 20;

/// `WEIR__SERVER__PORT` sets `server.port`.
const PREFIX: &str = "WEIR__";

/// Short names for variables that containers are commonly given. The long names override them.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("PROXY_HOST", "server.host"),
    ("PROXY_PORT", "server.port"),
    ("CACHE_ENABLED", "cache.enabled"),
    ("CACHE_MAX_MEMORY", "cache.max_memory"),
    ("CLI_ENABLED", "cli.enabled"),
    ("CLI_MAX_CONCURRENT", "cli.max_concurrent"),
    ("LOG_LEVEL", "logging.level"),
    ("LOG_FORMAT", "logging.format"),
    ("RATE_LIMIT_ENABLED", "security.rate_limiting.enabled"),
    ("RATE_LIMIT_RPS", "security.rate_limiting.requests_per_second"),
    ("DEFAULT_BACKEND", "routing.default_backend"),
];

/// Everything a configuration is made of.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The base file and its overlays, in order.
    pub files: Vec<PathBuf>,
    /// Read where `files` is empty, if it exists.
    pub fallback: Option<PathBuf>,
    /// Environment variables; those that don't concern weir are ignored, and so are empty ones.
    pub environment: BTreeMap<String, String>,
    /// Flags, as `key.path=value`.
    pub overrides: Vec<String>,
}

impl Sources {
    /// These files and flags, this process's environment, and [`DEFAULT_FILE`] as the fallback.
    pub fn of_process(files: Vec<PathBuf>, overrides: Vec<String>) -> Self {
        let environment = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        Self { files, fallback: Some(DEFAULT_FILE.into()), environment, overrides }
    }
}

impl Sources {
    /// The files, whether they are there or not.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        let fallback = self.fallback.iter().filter(|_| self.files.is_empty());
        self.files.iter().chain(fallback).cloned().collect()
    }
}

/// Reads and checks a configuration.
///
/// # Errors
/// All that is wrong with it. A file that can't be read or parsed hides what is wrong inside the keys.
pub fn load(sources: &Sources) -> Result<Config, ConfigErrors> {
    checked(sources).map(|(config, _)| config)
}

/// As [`load`], for a weir that runs: a file without any content is one that is being saved, and an error.
///
/// # Errors
/// As [`load`].
pub fn load_again(sources: &Sources) -> Result<Config, ConfigErrors> {
    checked_again(sources).map(|(config, _)| config)
}

/// As [`checked`], for a weir that runs.
pub(super) fn checked_again(sources: &Sources) -> Result<(Config, Node), ConfigErrors> {
    checked_as(sources, Empty::Refused)
}

/// The configuration, and the tree that it was read from.
pub(super) fn checked(sources: &Sources) -> Result<(Config, Node), ConfigErrors> {
    checked_as(sources, Empty::Allowed)
}

/// Whether a file may have no content at all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    Allowed,
    Refused,
}

fn checked_as(sources: &Sources, empty: Empty) -> Result<(Config, Node), ConfigErrors> {
    let mut report = Report::default();
    let Some(tree) = merged(sources, empty, &mut report) else {
        return report.finish((Config::default(), Node::empty()));
    };
    let config = keys::read(&tree, &mut report);
    clashes::check(&config, &tree, &mut report);
    report.finish((config, tree))
}

/// All sources in one tree, or nothing where a file is not to be had.
fn merged(sources: &Sources, empty: Empty, report: &mut Report) -> Option<Node> {
    let mut layers = files(sources, empty, report);
    layers.extend(environment(&sources.environment, report).into_iter().map(Some));
    layers.extend(sources.overrides.iter().map(|flag| Some(override_flag(flag, report))));

    let layers: Option<Vec<Node>> = layers.into_iter().collect();
    let mut tree = Node::empty();
    for layer in layers? {
        tree.merge(layer, "", report);
    }
    Some(tree)
}

fn files(sources: &Sources, empty: Empty, report: &mut Report) -> Vec<Option<Node>> {
    let fallback = sources.fallback.iter().filter(|file| sources.files.is_empty() && file.exists());
    sources.files.iter().chain(fallback).map(|file| read_file(file, empty, report)).collect()
}

fn read_file(path: &Path, empty: Empty, report: &mut Report) -> Option<Node> {
    let file: Arc<str> = path.to_string_lossy().into();
    let at = |line, column| Origin::File { file: file.clone(), line, column };
    let bytes = match read_bytes(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            report.error(&Origin::Whole { file: file.clone() }, "", format!("can't be read: {error}"));
            return None;
        }
    };
    if bytes.is_empty() && empty == Empty::Refused {
        let message = "is empty: somebody may be saving it. A comment is enough of a content";
        report.error(&Origin::Whole { file }, "", message.to_owned());
        return None;
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => yaml::parse(text, &at, report),
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let last_line = before.rsplit('\n').next().unwrap_or_default();
            let origin = at(before.matches('\n').count() + 1, last_line.chars().count() + 1);
            report.error(&origin, "", "not UTF-8 text");
            None
        }
    }
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = File::open(path)?.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes)?;
    if length as u64 > MAX_FILE_SIZE {
        let message = format!("larger than {MAX_FILE_SIZE} bytes; is it a configuration file?");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

fn environment(variables: &BTreeMap<String, String>, report: &mut Report) -> Vec<Node> {
    let short =
        SHORT_NAMES.iter().filter_map(|(name, key)| Some((*name, (*key).to_owned(), variables.get(*name)?)));
    let long = variables.iter().filter_map(|(name, value)| {
        let key = name.strip_prefix(PREFIX)?.to_lowercase().replace("__", ".");
        Some((name.as_str(), key, value))
    });
    short
        .chain(long)
        // `PROXY_PORT= weir serve` is how a shell unsets a variable for one command.
        .filter(|(_, _, value)| !value.is_empty())
        .map(|(name, key, value)| assignment(&key, value, &Origin::Variable(name.into()), report))
        .collect()
}

fn override_flag(flag: &str, report: &mut Report) -> Node {
    match flag.split_once('=') {
        Some((key, value)) => assignment(key.trim(), value, &Origin::Flag(key.trim().into()), report),
        None => {
            report.error(&Origin::Flag(flag.into()), "", "no `=`; write key.path=value");
            Node::empty()
        }
    }
}

/// A value from outside a file: `[…]` is a list as in YAML, anything else the value as it stands.
fn assignment(key: &str, text: &str, origin: &Origin, report: &mut Report) -> Node {
    let path: Vec<&str> = key.split('.').collect();
    if path.iter().any(|name| name.is_empty()) {
        report.error(origin, key, "not a key; write section.key");
        return Node::empty();
    }
    let text = text.trim();
    let node = if text.starts_with('[') {
        yaml::parse(text, &|_, _| origin.clone(), report).unwrap_or_else(Node::empty)
    } else if text.is_empty() {
        Node { origin: origin.clone(), value: Value::Empty }
    } else {
        Node { origin: origin.clone(), value: Value::Text(text.to_owned()) }
    };
    Node::at_path(&path, node)
}
