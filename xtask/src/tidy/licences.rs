//! Every dependency may be used under a licence that deny.toml allows.
//!
//! `cargo deny check` looks at more (advisories, duplicates, sources); this needs nothing but cargo.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Finding;

/// What weir runs on; other platforms' dependencies are neither fetched nor shipped.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let deny = std::fs::read_to_string(root.join("deny.toml")).context("can't read deny.toml")?;
    let allowed = allowed(&deny);
    ensure!(!allowed.is_empty(), "deny.toml has no `allow = [` list of licences");
    let output = crate::cargo("metadata")
        .args(["--format-version=1", "--locked", "--filter-platform", PLATFORM])
        .output()
        .context("can't run cargo metadata")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata failed: {}", stderr.trim());
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    Ok(packages
        .iter()
        .filter_map(|package| judge(package["name"].as_str()?, package["license"].as_str(), &allowed))
        .collect())
}

/// The strings of `allow = [ … ]`.
fn allowed(deny: &str) -> Vec<&str> {
    let list = deny.lines().skip_while(|line| line.trim() != "allow = [").skip(1);
    list.map(str::trim)
        .take_while(|line| *line != "]")
        .filter_map(|line| line.strip_prefix('"')?.split('"').next())
        .collect()
}

fn judge(package: &str, licence: Option<&str>, allowed: &[&str]) -> Option<Finding> {
    let message = match licence {
        None => format!("{package} names no licence"),
        Some(licence) if !satisfied(licence, allowed) => {
            format!("{package} is under {licence}, which deny.toml does not allow")
        }
        Some(_) => return None,
    };
    Some(Finding { path: "Cargo.lock".to_owned(), line: 0, message })
}

/// Whether an SPDX expression can be met; `/` is what crates wrote for OR before SPDX.
fn satisfied(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any(&mut words, allowed);
    met && words.peek().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut met = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    match words.next() {
        Some("(") => {
            let met = any(words, allowed);
            met & (words.next() == Some(")"))
        }
        Some(licence) => {
            // An exception only adds permissions.
            if words.next_if_eq(&"WITH").is_some() {
                words.next();
            }
            allowed.contains(&licence)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("MIT/Apache-2.0", true),
            ("(GPL-3.0 OR MIT) AND Zlib", true),
            ("(GPL-3.0 OR MIT) AND BSL-1.0", false),
            ("MIT AND GPL-3.0", false),
            ("Apache-2.0 WITH LLVM-exception", false),
            ("Zlib WITH LLVM-exception OR GPL-3.0", true),
            ("", false),
            ("(MIT", false),
            ("MIT)", false),
            ("MIT GPL-3.0", false),
        ] {
            assert_eq!(satisfied(expression, &["MIT", "Zlib"]), expected, "{expression}");
        }
    }

    #[test]
    fn the_list_is_read() {
        let deny =
            "[licenses]\nallow = [\n    \"MIT\", # short\n    \"Zlib\",\n]\nx = [\n    \"GPL-3.0\",\n]\n";
        assert_eq!(allowed(deny), ["MIT", "Zlib"]);
    }

    #[test]
    fn findings_name_the_package() {
        let message = |licence| judge("p", licence, &["MIT"]).map(|finding| finding.to_string());
        assert_eq!(message(Some("MIT")), None);
        assert_eq!(message(None).unwrap(), "Cargo.lock: p names no licence");
        assert_eq!(
            message(Some("GPL-3.0")).unwrap(),
            "Cargo.lock: p is under GPL-3.0, which deny.toml does not allow"
        );
    }
}
