//! `security.header_rules`: fields that are added to messages, set, or removed.

use super::kinds::{Fault, choice, quoted, word};
use super::patterns::{HostPattern, PathPattern, host_pattern, path_pattern};
use super::section::Section;
use super::shape::{Hide, Shape, shaped};

/// One rule. All that match are applied, in their order: first what is removed, then what is set, then what is added.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderRule {
    pub name: String,
    pub direction: Direction,
    /// Default all.
    pub hosts: Vec<HostPattern>,
    /// Default all.
    pub paths: Vec<PathPattern>,
    /// Names, in lower case.
    pub remove: Vec<String>,
    /// In place of all fields of that name.
    pub set: Vec<Field>,
    /// Beside those that there are.
    pub add: Vec<Field>,
}

/// Which messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Request,
    Response,
}

/// A field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub value: String,
}

/// Fields by which messages are framed, routed and kept apart: those are weir's own affair.
const OWN: [&str; 16] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "cache-status",
    "content-encoding",
    "content-range",
];

pub(super) fn read(s: &mut Section<'_, '_>) -> Vec<HeaderRule> {
    let mut rules = s.sections("header_rules", rule);
    for (index, rule) in rules.iter_mut().enumerate().filter(|(_, rule)| rule.name.is_empty()) {
        rule.name = format!("rule-{}", index + 1);
    }
    rules
}

fn rule(s: &mut Section<'_, '_>) -> HeaderRule {
    const DIRECTIONS: &[(&str, Direction)] =
        &[("request", Direction::Request), ("response", Direction::Response)];
    let rule = HeaderRule {
        name: s.read("name", String::new(), word()),
        // What stands in is of no account: that it is missing has been reported.
        direction: s.required("direction", choice(DIRECTIONS)).unwrap_or(Direction::Request),
        hosts: s.list("hosts", Vec::new(), host_pattern),
        paths: s.list("paths", Vec::new(), path_pattern),
        remove: s.list("remove", Vec::new(), name),
        set: s.list("set", Vec::new(), shaped(secret(), field)),
        add: s.list("add", Vec::new(), shaped(secret(), field)),
    };
    if rule.remove.is_empty() && rule.set.is_empty() && rule.add.is_empty() {
        s.error("it removes, sets and adds nothing");
    }
    rule
}

/// What is set may be a credential.
fn secret() -> Shape {
    Shape::Secret(Hide::FieldValue, Shape::Text.into())
}

fn name(text: &str) -> Result<String, Fault> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(fits) {
        return Err(format!("{} is not the name of a field", quoted(text)).into());
    }
    let lower = text.to_ascii_lowercase();
    if OWN.contains(&lower.as_str()) {
        return Err(
            format!("{} says how the message is passed on, which is for weir to say", quoted(text)).into()
        );
    }
    Ok(lower)
}

/// `Name: value`
fn field(text: &str) -> Result<Field, Fault> {
    let (field, value) =
        text.split_once(':').ok_or_else(|| Fault::from(format!("{} is not `Name: value`", quoted(text))))?;
    name(field)?;
    let value = value.trim();
    if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
        return Err(format!("the value of {} is not one line of ASCII", quoted(field)).into());
    }
    Ok(Field { name: field.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load_files;

    #[test]
    fn rules() {
        for (rule, expected) in [
            ("{set: ['A: b']}", "no `direction`, which it needs"),
            ("{direction: request}", "it removes, sets and adds nothing"),
            ("{direction: request, remove: [Host]}", "`Host` says how the message is passed on"),
            (
                "{direction: request, set: ['Content-Length: 1']}",
                "`Content-Length` says how the message is passed on",
            ),
            ("{direction: request, set: [x]}", "`x` is not `Name: value`"),
            ("{direction: request, add: ['a b: c']}", "`a b` is not the name of a field"),
            ("{direction: both, remove: [a]}", "`both` is not one of request, response"),
        ] {
            let yaml = format!("security: {{header_rules: [{rule}]}}");
            let errors = load_files(&[yaml.as_bytes()], &[], &[]).unwrap_err();
            assert!(errors.contains(expected), "{rule}: {errors}");
        }
    }
}
