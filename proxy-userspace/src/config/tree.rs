//! A configuration as written: values, each with its origin, merged from all sources.
//!
//! Knows nothing of keys and kinds; `section.rs` reads them from here.

use std::collections::BTreeMap;

use super::errors::{Origin, Report};

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A key without a value (`port:`), or `~`.
    Empty,
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

pub(super) type Map = BTreeMap<String, Entry>;

#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Where the key stands; its node says where the value does.
    pub(super) origin: Origin,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn empty() -> Self {
        Self { origin: Origin::Default, value: Value::Empty }
    }

    /// The value at the path, around it the maps that the path names.
    pub(super) fn at_path(path: &[&str], node: Self) -> Self {
        path.iter().rev().fold(node, |node, key| {
            let origin = node.origin.clone();
            let entry = Entry { origin: origin.clone(), node };
            Self { origin, value: Value::Map(Map::from([((*key).to_owned(), entry)])) }
        })
    }

    /// Lays `over` on this tree: maps merge, anything else replaces. `path` is for messages.
    pub(super) fn merge(&mut self, over: Self, path: &str, report: &mut Report) {
        match (&mut self.value, over.value) {
            // An overlay's empty section (`server:` with all its keys commented out) changes nothing.
            (Value::Map(_), Value::Empty) => {}
            (Value::Map(base), Value::Map(over)) => {
                for (key, entry) in over {
                    merge_entry(base, key, entry, path, report);
                }
            }
            (Value::Map(_), _) => {
                report.error(
                    &over.origin,
                    path,
                    format!("a value here, but keys below it at {}", self.origin),
                );
            }
            (Value::Text(_) | Value::List(_), Value::Map(_)) => {
                report.error(
                    &over.origin,
                    path,
                    format!("keys below it here, but a value at {}", self.origin),
                );
            }
            (_, value) => *self = Self { origin: over.origin, value },
        }
    }

    /// Where the value at a dotted path was given.
    pub(super) fn origin_of(&self, path: &str) -> Option<&Origin> {
        self.node(path).map(|node| &node.origin)
    }

    /// What is at a dotted path.
    pub(super) fn node(&self, path: &str) -> Option<&Self> {
        let mut node = self;
        for key in path.split('.') {
            let Value::Map(map) = &node.value else { return None };
            node = &map.get(key)?.node;
        }
        Some(node)
    }
}

fn merge_entry(base: &mut Map, key: String, over: Entry, path: &str, report: &mut Report) {
    let path = join(path, &key);
    match base.get_mut(&key) {
        Some(entry) => {
            entry.origin = over.origin;
            entry.node.merge(over.node, &path, report);
        }
        None => {
            base.insert(key, over);
        }
    }
}

/// `server` + `port` = `server.port`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
