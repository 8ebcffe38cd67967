//! `security.body_rules`: text that is replaced in responses.

use super::compression::{MediaPattern, media_pattern};
use super::kinds::{Fault, word};
use super::patterns::{HostPattern, PathPattern, host_pattern, path_pattern};
use super::section::Section;

/// One rule. All that match are applied, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct BodyRule {
    pub name: String,
    /// Default all.
    pub hosts: Vec<HostPattern>,
    /// Default all.
    pub paths: Vec<PathPattern>,
    /// Default text in all its forms.
    pub types: Vec<MediaPattern>,
    pub find: String,
    pub with: String,
}

/// The longest text that is looked for, or put in its place, in bytes.
const MAX_TEXT: usize = 1024;

pub(super) fn read(s: &mut Section<'_, '_>) -> Vec<BodyRule> {
    let mut rules = s.sections("body_rules", rule);
    for (index, rule) in rules.iter_mut().enumerate().filter(|(_, rule)| rule.name.is_empty()) {
        rule.name = format!("rule-{}", index + 1);
    }
    rules
}

fn rule(s: &mut Section<'_, '_>) -> BodyRule {
    let rule = BodyRule {
        name: s.read("name", String::new(), word()),
        hosts: s.list("hosts", Vec::new(), host_pattern),
        paths: s.list("paths", Vec::new(), path_pattern),
        types: s.list("types", super::compression::text_types(), media_pattern),
        find: s.required("find", text).unwrap_or_default(),
        with: s.read("with", String::new(), text),
    };
    if rule.find.is_empty() {
        s.error("`find` is empty: there is nothing to look for");
    }
    rule
}

fn text(text: &str) -> Result<String, Fault> {
    match text.len() {
        ..=MAX_TEXT => Ok(text.to_owned()),
        length => Err(format!("{length} bytes are more than {MAX_TEXT}").into()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load_files;

    #[test]
    fn rules() {
        for (rule, expected) in [
            ("{with: x}", "no `find`, which it needs"),
            ("{find: '', with: x}", "there is nothing to look for"),
            ("{find: x, types: [text]}", "`text` is no media type"),
        ] {
            let yaml = format!("security: {{body_rules: [{rule}]}}");
            let errors = load_files(&[yaml.as_bytes()], &[], &[]).unwrap_err();
            assert!(errors.contains(expected), "{rule}: {errors}");
        }
        load_files(&[b"security: {body_rules: [{find: http://a.test, with: https://b.test}]}"], &[], &[])
            .unwrap();
    }
}
