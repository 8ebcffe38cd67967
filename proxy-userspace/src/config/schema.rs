//! The JSON Schema (2020-12) of a configuration file, made from the keys as they are read and from the reference's words.
//!
//! It admits what any one key can be; what keys forbid one another (`clashes`), and some kinds of text, only weir knows.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::section::MAX_LIST;
use super::shape::Shape;
use super::show::effective_defaults;
use super::{keys, reference};

/// A key, as [`super::section::Section`] was asked for it.
#[derive(Debug, Clone)]
pub(super) struct Described {
    /// Entries of lists have the path of their list.
    pub(super) path: String,
    pub(super) form: Form,
    pub(super) is_required: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Form {
    Section,
    /// A list of up to so many sections.
    Sections(usize),
    Value(Shape),
    List(Shape),
}

/// The schema of a configuration file, overlays included: no key at the top has to be there.
#[must_use]
pub fn schema() -> Value {
    let described = keys::described();
    let words = Words { comments: reference::comments(), defaults: effective_defaults() };
    let (mut root, _) = section("", &described, &words);
    root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    root.insert("title".into(), "weir".into());
    root.insert("description".into(), "A configuration file of weir, read as YAML 1.2.".into());
    Value::Object(root)
}

/// What the schema says to people.
struct Words {
    comments: BTreeMap<String, String>,
    /// Of the keys that have one.
    defaults: BTreeMap<String, Value>,
}

/// The object of a section, and whether something below it has to be there.
fn section(path: &str, described: &[Described], words: &Words) -> (Map<String, Value>, bool) {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in described.iter().filter(|key| parent(&key.path) == path) {
        let name = key.path.rsplit('.').next().unwrap_or_default();
        let mut is_required = key.is_required;
        let mut schema = match &key.form {
            Form::Value(shape) => as_object(shape.schema()),
            Form::List(shape) => list(&shape.schema(), MAX_LIST),
            Form::Section => {
                let (object, needs) = section(&key.path, described, words);
                is_required |= needs;
                object
            }
            Form::Sections(most) => list(&Value::Object(section(&key.path, described, words).0), *most),
        };
        if let Some(comment) = words.comments.get(&key.path).filter(|comment| !comment.is_empty()) {
            schema.insert("description".into(), comment.as_str().into());
        }
        if let Some(default) = words.defaults.get(&key.path) {
            schema.insert("default".into(), default.clone());
        }
        if is_required {
            required.push(Value::from(name));
        }
        properties.insert(name.to_owned(), Value::Object(schema));
    }
    let needs = !required.is_empty();
    let mut object = Map::new();
    // A section whose keys are all commented out is empty.
    object.insert("type".into(), if needs { json!("object") } else { json!(["object", "null"]) });
    object.insert("properties".into(), Value::Object(properties));
    object.insert("additionalProperties".into(), false.into());
    if needs {
        object.insert("required".into(), required.into());
    }
    (object, needs)
}

fn list(items: &Value, most: usize) -> Map<String, Value> {
    as_object(json!({ "type": "array", "items": items, "maxItems": most }))
}

fn as_object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}
