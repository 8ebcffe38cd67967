//! `config/proxy.yaml`, which says of every key what it means, and has its default as the value.

use std::collections::BTreeMap;

use super::errors::{Origin, Report};
use super::tree::Node;
use super::yaml;

const TEXT: &str = include_str!("../../../config/proxy.yaml");

/// Every key with its default, as it is written.
pub(super) fn defaults() -> Node {
    let mut report = Report::default();
    // A test reads it; it can't be wrong.
    yaml::parse(TEXT, &|_, _| Origin::Default, &mut report).unwrap_or_else(Node::empty)
}

/// What is said of each key, without default and range.
pub(super) fn comments() -> BTreeMap<String, String> {
    let mut comments = BTreeMap::new();
    let (mut path, mut comment) = (Vec::<&str>::new(), Vec::<&str>::new());
    for line in TEXT.lines() {
        let trimmed = line.trim();
        if let Some(text) = trimmed.strip_prefix('#') {
            comment.push(text.trim());
            continue;
        }
        if let Some((key, _)) = trimmed.split_once(':') {
            path.truncate((line.len() - line.trim_start().len()) / INDENT);
            path.push(key);
            let said = comment.join(" ");
            comments
                .insert(path.join("."), said.split("Default: ").next().unwrap_or_default().trim().to_owned());
        }
        comment.clear();
    }
    comments
}

/// Blanks before a key of a section that is not there before the section's own.
const INDENT: usize = 2;
