//! What can be told of a kind of value without reading one: for the JSON Schema and for `weir config show`.
//!
//! A shape may admit more than its kind, never less: what a value really has to be only the kind knows.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::kinds::{DURATIONS, Fault, SIZES};

/// A kind of value: it turns text into a checked value, or says what would be right.
pub(super) trait Kind<T> {
    fn parse(&self, text: &str) -> Result<T, Fault>;

    fn shape(&self) -> Shape;
}

/// A function that reads is a kind of which nothing more is known than that it is text.
impl<T, F: Fn(&str) -> Result<T, Fault>> Kind<T> for F {
    fn parse(&self, text: &str) -> Result<T, Fault> {
        self(text)
    }

    fn shape(&self) -> Shape {
        Shape::Text
    }
}

/// A function that reads, and the shape of what it takes.
pub(super) struct Shaped<F> {
    shape: Shape,
    read: F,
}

impl<T, F: Fn(&str) -> Result<T, Fault>> Kind<T> for Shaped<F> {
    fn parse(&self, text: &str) -> Result<T, Fault> {
        (self.read)(text)
    }

    fn shape(&self) -> Shape {
        self.shape.clone()
    }
}

pub(super) fn shaped<T, F: Fn(&str) -> Result<T, Fault>>(shape: Shape, read: F) -> Shaped<F> {
    Shaped { shape, read }
}

/// How values look in YAML.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Text,
    /// An ECMA-262 regular expression that the text fits.
    Pattern(&'static str),
    Integer(RangeInclusive<u64>),
    /// In bytes.
    Size(RangeInclusive<u64>),
    Duration,
    /// A port or a range of them.
    Ports,
    Words(Vec<&'static str>),
    Switch,
    /// A word, or another shape.
    Or(&'static str, Box<Self>),
    /// It holds a secret, and is not shown as it is.
    Secret(Hide, Box<Self>),
}

/// What of a value is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hide {
    All,
    /// Name and password before the `@` of a URL.
    UserInfo,
    /// The value of a field that is meant for few.
    FieldValue,
}

/// What stands for a secret.
const HIDDEN: &str = "***";

/// Fields whose values are credentials; so are those whose names say so.
const CREDENTIALS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];
const TELLING: [&str; 5] = ["token", "secret", "password", "api-key", "apikey"];

impl Hide {
    fn of(self, text: &str) -> String {
        match self {
            Self::All => HIDDEN.to_owned(),
            Self::UserInfo => match (text.find("://"), text.rfind('@')) {
                (Some(scheme), Some(at)) if scheme + 3 <= at => {
                    format!("{}{HIDDEN}{}", &text[..scheme + 3], &text[at..])
                }
                _ => text.to_owned(),
            },
            Self::FieldValue => {
                let name = text.split(':').next().unwrap_or_default();
                let lower = name.trim().to_ascii_lowercase();
                let is_secret = CREDENTIALS.contains(&lower.as_str())
                    || TELLING.iter().any(|telling| lower.contains(telling));
                if is_secret { format!("{name}: {HIDDEN}") } else { text.to_owned() }
            }
        }
    }
}

impl Shape {
    /// A text of this shape, as it may be shown to anybody.
    pub(super) fn shown(&self, text: &str) -> String {
        match self {
            Self::Secret(hide, _) if text != "none" => hide.of(text),
            Self::Or(_, shape) => shape.shown(text),
            _ => text.to_owned(),
        }
    }

    /// A text of this shape as a JSON value.
    pub(super) fn json(&self, text: &str) -> Value {
        match self {
            Self::Integer(_) | Self::Size(_) | Self::Ports => {
                text.parse::<u64>().map_or_else(|_| text.into(), Into::into)
            }
            Self::Switch => text.parse::<bool>().map_or_else(|_| text.into(), Into::into),
            Self::Or(_, shape) => shape.json(text),
            _ => self.shown(text).into(),
        }
    }

    /// As JSON Schema, for a document that was read from YAML 1.2.
    pub(super) fn schema(&self) -> Value {
        match self {
            // Scalars that YAML takes for numbers are text to weir.
            Self::Text => json!({ "type": ["string", "number", "boolean"] }),
            Self::Pattern(pattern) => json!({ "type": "string", "pattern": pattern }),
            Self::Integer(range) => {
                json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() })
            }
            Self::Size(range) => json!({ "anyOf": [
                { "type": "integer", "minimum": range.start(), "maximum": range.end() },
                { "type": "string", "pattern": with_unit(SIZES, "?") },
            ] }),
            Self::Duration => json!({ "type": "string", "pattern": with_unit(DURATIONS, "") }),
            Self::Ports => json!({ "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": u16::MAX },
                { "type": "string", "pattern": "^[0-9]{1,5} *(- *[0-9]{1,5})?$" },
            ] }),
            Self::Words(words) => {
                // `1.2` is a word here and a number to YAML.
                let numbers = words.iter().filter_map(|word| word.parse::<f64>().ok()).map(Value::from);
                let words = words.iter().map(|word| Value::from(*word));
                json!({ "enum": words.chain(numbers).collect::<Vec<_>>() })
            }
            Self::Switch => json!({ "type": "boolean" }),
            Self::Or(word, shape) => json!({ "anyOf": [{ "const": word }, shape.schema()] }),
            Self::Secret(_, shape) => shape.schema(),
        }
    }
}

/// A whole number and one of the units, in any case.
fn with_unit(units: &[(&str, u64)], or_none: &str) -> String {
    let any_case = |c: char| match c.is_ascii_alphabetic() {
        true => format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()),
        false => c.to_string(),
    };
    let units: Vec<String> = units.iter().map(|(unit, _)| unit.chars().map(any_case).collect()).collect();
    format!("^ *[0-9]+ *({}){or_none} *$", units.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(hide: Hide, text: &str, expected: &str) {
        assert_eq!(Shape::Secret(hide, Shape::Text.into()).shown(text), expected);
    }

    #[test]
    fn secrets_are_not_shown() {
        check(Hide::All, "$argon2id$v=19$abc", "***");
        check(Hide::UserInfo, "http://me:se@cret@proxy.example:1", "http://***@proxy.example:1");
        check(Hide::UserInfo, "http://proxy.example", "http://proxy.example");
        check(Hide::UserInfo, "none", "none");
        check(Hide::FieldValue, "Authorization: Bearer x", "Authorization: ***");
        check(Hide::FieldValue, "X-Api-Key:x", "X-Api-Key: ***");
        check(Hide::FieldValue, "DNT: 1", "DNT: 1");
    }
}
