//! `cargo xtask tidy`: the rules of this workspace that neither rustc, rustfmt nor clippy checks.
//!
//! A rule is one function from the tree of sources to findings, one line in [`RULES`], and a test that
//! shows it failing. Rules read tokens, not types: a macro could hide from them, and none here tries.

mod licences;
mod orphans;
mod ranks;
mod source;
mod text;
mod unsafety;

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};

use source::Tree;

type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: &[(&str, Rule)] = &[
    ("every file lexes", source::unreadable),
    ("modules import downwards only", ranks::check),
    ("every file is part of a crate", orphans::check),
    ("files stay small", text::sizes),
    ("no leftovers", text::leftovers),
    ("no ignored tests", text::ignored_tests),
    ("root tests are targets", text::root_tests),
    ("no paths of one machine", text::local_paths),
    ("unsafe is listed and explained", unsafety::check),
];

/// What is wrong, and where; line 0 stands for the whole file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// Checks the workspace at `root`.
///
/// # Errors
/// What was found, a line each; or why the workspace could not be read.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let mut findings: Vec<(&str, Finding)> = Vec::new();
    for (rule, check) in RULES {
        findings.extend(check(&tree).into_iter().map(|finding| (*rule, finding)));
    }
    findings.extend(licences::check(root)?.into_iter().map(|finding| ("licences", finding)));
    if findings.is_empty() {
        println!("tidy: {} files, {} rules, nothing found", tree.files.len(), RULES.len() + 1);
        return Ok(());
    }
    findings.sort_by(|a, b| a.1.cmp(&b.1));
    for (rule, finding) in &findings {
        eprintln!("{finding} [{rule}]");
    }
    bail!("tidy: {} findings", findings.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a rule finds in these files, as it is printed.
    #[track_caller]
    pub(crate) fn check(rule: Rule, files: &[(&str, &str)], expected: &[&str]) {
        let found: Vec<String> = rule(&Tree::of(files)).iter().map(Finding::to_string).collect();
        assert_eq!(found, expected, "in {files:#?}");
    }

    #[test]
    fn broken_source_is_found() {
        check(source::unreadable, &[("a.rs", "fn main() { \"open")], &["a.rs: does not lex as Rust"]);
        check(source::unreadable, &[("a.md", "\"open"), ("a.rs", "fn main() {}")], &[]);
    }
}
