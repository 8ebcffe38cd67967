//! A configuration as it holds: every key with its value and where that comes from, secrets hidden.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::errors::{ConfigErrors, Origin};
use super::schema::{Described, Form};
use super::shape::Shape;
use super::sources::{self, Sources};
use super::tree::{Node, Value};
use super::{Config, keys, reference};

/// Every key, in the order of the reference.
#[derive(Debug)]
pub struct Effective {
    described: Vec<Described>,
    tree: Node,
}

/// A configuration, and what can be told of it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub effective: Effective,
}

/// What these sources come to.
///
/// # Errors
/// As [`super::load`].
pub fn effective(sources: &Sources) -> Result<Effective, ConfigErrors> {
    load_whole(sources).map(|loaded| loaded.effective)
}

/// The configuration, and what these sources come to.
///
/// # Errors
/// As [`super::load`].
pub fn load_whole(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    whole(sources::checked(sources)?)
}

/// As [`load_whole`], for a weir that runs: see [`super::load_again`].
///
/// # Errors
/// As [`super::load`].
pub fn load_whole_again(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    whole(sources::checked_again(sources)?)
}

fn whole((config, given): (Config, Node)) -> Result<Loaded, ConfigErrors> {
    let mut tree = reference::defaults();
    // It has been merged once, and only its own files can disagree on what is a section.
    tree.merge(given, "", &mut super::errors::Report::default());
    Ok(Loaded { config, effective: Effective { described: keys::described(), tree } })
}

/// The defaults of the keys that are no sections.
pub(super) fn effective_defaults() -> BTreeMap<String, Json> {
    let all = Effective { described: keys::described(), tree: reference::defaults() };
    all.each().map(|key| (key.path.to_owned(), key.json)).collect()
}

/// A key that is no section.
struct Shown<'a> {
    path: &'a str,
    json: Json,
    origin: &'a Origin,
}

impl Effective {
    /// As a configuration file, secrets aside; with the origins behind the values if they are wanted.
    #[must_use]
    pub fn yaml(&self, with_origins: bool) -> String {
        let mut lines = Vec::new();
        let mut open: Vec<&str> = Vec::new();
        for key in self.each() {
            let (sections, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
            let sections: Vec<&str> = sections.split('.').filter(|name| !name.is_empty()).collect();
            let same = open.iter().zip(&sections).take_while(|(one, other)| one == other).count();
            for (depth, section) in sections.iter().enumerate().skip(same) {
                lines.push(format!("{}{section}:", "  ".repeat(depth)));
            }
            let origin = if with_origins { format!("  # {}", one_line(key.origin)) } else { String::new() };
            lines.push(format!("{}{name}: {}{origin}", "  ".repeat(sections.len()), flow(&key.json)));
            open = sections;
        }
        lines.join("\n")
    }

    /// Nested as in a file.
    #[must_use]
    pub fn json(&self) -> Json {
        let mut root = Map::new();
        for key in self.each() {
            insert(&mut root, key.path, key.json);
        }
        Json::Object(root)
    }

    /// `{"server.port": {"value": 22180, "origin": "default"}}`
    #[must_use]
    pub fn json_with_origins(&self) -> Json {
        let keys = self.each().map(|key| {
            let told = serde_json::json!({ "value": key.json, "origin": key.origin.to_string() });
            (key.path.to_owned(), told)
        });
        Json::Object(keys.collect())
    }

    /// Those that differ from another's, secrets compared as they are.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let keys = self.described.iter().filter(|key| is_value(key) && self.stands_alone(key));
        let differs = |key: &&Described| {
            let raw = |all: &Self| all.tree.node(&key.path).map(raw);
            raw(self) != raw(other)
        };
        keys.filter(differs).map(|key| key.path.clone()).collect()
    }

    fn each(&self) -> impl Iterator<Item = Shown<'_>> {
        self.described.iter().filter(|key| is_value(key) && self.stands_alone(key)).filter_map(|key| {
            let node = self.tree.node(&key.path)?;
            let json = match &key.form {
                Form::Value(shape) => value(node, shape),
                Form::List(shape) => list(node, |item| value(item, shape)),
                Form::Sections(_) => list(node, |item| self.entry(item, &key.path)),
                Form::Section => return None,
            };
            Some(Shown { path: &key.path, json, origin: &node.origin })
        })
    }

    /// Not a part of a list's entry.
    fn stands_alone(&self, key: &Described) -> bool {
        let lists = self.described.iter().filter(|list| matches!(list.form, Form::Sections(_)));
        !lists
            .into_iter()
            .any(|list| key.path.strip_prefix(&list.path).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The keys that an entry of a list of sections has.
    fn entry(&self, node: &Node, path: &str) -> Json {
        let Value::Map(entries) = &node.value else { return Json::Null };
        let shown = entries.iter().filter_map(|(name, entry)| {
            let path = format!("{path}.{name}");
            let key = self.described.iter().find(|key| key.path == path)?;
            let json = match &key.form {
                Form::Value(shape) => value(&entry.node, shape),
                Form::List(shape) => list(&entry.node, |item| value(item, shape)),
                Form::Sections(_) => list(&entry.node, |item| self.entry(item, &path)),
                Form::Section => self.entry(&entry.node, &path),
            };
            Some((name.clone(), json))
        });
        Json::Object(shown.collect())
    }
}

fn is_value(key: &Described) -> bool {
    !matches!(key.form, Form::Section)
}

fn value(node: &Node, shape: &Shape) -> Json {
    match &node.value {
        Value::Text(text) => shape.json(text),
        _ => Json::Null,
    }
}

fn list(node: &Node, item: impl Fn(&Node) -> Json) -> Json {
    match &node.value {
        Value::List(items) => items.iter().map(item).collect(),
        _ => Json::Array(Vec::new()),
    }
}

/// As it was written, to be compared.
fn raw(node: &Node) -> Json {
    match &node.value {
        Value::Empty => Json::Null,
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(raw).collect(),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|(name, entry)| (name.clone(), raw(&entry.node))).collect())
        }
    }
}

fn insert(map: &mut Map<String, Json>, path: &str, json: Json) {
    match path.split_once('.') {
        None => drop(map.insert(path.to_owned(), json)),
        Some((section, rest)) => {
            let section = map.entry(section).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(section) = section {
                insert(section, rest, json);
            }
        }
    }
}

/// In one line: what JSON has in quotes goes without them where YAML does not ask for any.
fn flow(json: &Json) -> String {
    match json {
        Json::String(text) if is_plain(text) => text.clone(),
        Json::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Json::Object(entries) => {
            let entries = entries.iter().map(|(name, json)| format!("{name}: {}", flow(json)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        // JSON's numbers and quoted texts are YAML's.
        other => other.to_string(),
    }
}

fn is_plain(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_./+-".contains(&byte);
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'/')
        && text.bytes().all(fits)
        && text != "null"
}

/// A file's name may hold anything.
fn one_line(origin: &Origin) -> String {
    origin.to_string().replace(|c: char| c.is_control(), "?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, keys as all_keys};

    #[test]
    fn the_reference_can_be_read_and_has_every_key() {
        let defaults = effective_defaults();
        let values = keys::described();
        assert!(defaults.len() > 100 && values.len() > defaults.len());
        let mut report = crate::config::errors::Report::default();
        assert_eq!(keys::read(&reference::defaults(), &mut report), Config::default());
        report.finish(()).unwrap();
        for key in all_keys() {
            let section = matches!(values.iter().find(|one| one.path == key).unwrap().form, Form::Section);
            assert!(section || defaults.contains_key(&key), "{key}");
        }
    }

    #[test]
    fn differences_are_found_behind_what_hides_them() {
        let with = |value: &str| {
            let overrides = vec![format!("upstream.parent={value}")];
            effective(&Sources { overrides, ..Sources::default() }).unwrap()
        };
        let (one, other) = (with("http://a:b@p"), with("http://a:c@p"));
        assert_eq!(one.differences(&other), ["upstream.parent"]);
        assert_eq!(one.differences(&with("http://a:b@p")), Vec::<String>::new());
    }
}
