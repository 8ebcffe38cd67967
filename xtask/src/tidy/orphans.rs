//! A Rust file that no target and no `mod` names is never compiled: a filter, a store or a test that
//! looks present and is not.

use std::collections::HashSet;

use super::Finding;
use super::source::{SourceFile, Tree};

/// Folders of a package in which cargo finds targets by itself.
const DISCOVERED: &[&str] = &["benches", "examples", "src/bin", "tests"];
const ROOTS: &[&str] = &["build.rs", "src/lib.rs", "src/main.rs"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let roots = roots(tree);
    let declared: HashSet<String> = tree.rust().flat_map(|file| declared_by(file, &roots)).collect();
    tree.rust()
        .filter(|file| !roots.contains(&file.path) && !declared.contains(&module_path(&file.path)))
        .map(|file| {
            let message = "belongs to no crate: no `mod` declares it, and no target of a Cargo.toml names it";
            file.finding(0, message)
        })
        .collect()
}

/// The files that targets begin with.
fn roots(tree: &Tree) -> HashSet<String> {
    let mut roots = HashSet::new();
    for manifest in tree.files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        if !manifest.text.lines().any(|line| line.trim() == "[package]") {
            continue;
        }
        let package = manifest.path.trim_end_matches("Cargo.toml");
        roots.extend(ROOTS.iter().map(|root| format!("{package}{root}")));
        roots.extend(named_paths(&manifest.text).map(|path| format!("{package}{path}")));
        for file in tree.rust() {
            let folder = file.path.strip_prefix(package).and_then(|path| path.rsplit_once('/'));
            if folder.is_some_and(|(folder, _)| DISCOVERED.contains(&folder)) {
                roots.insert(file.path.clone());
            }
        }
    }
    roots
}

/// `x.rs` of each line `path = "x.rs"`.
fn named_paths(manifest: &str) -> impl Iterator<Item = &str> {
    manifest.lines().filter_map(|line| {
        let value = line.trim().strip_prefix("path")?.trim_start().strip_prefix('=')?.trim();
        value.strip_prefix('"')?.strip_suffix('"').filter(|path| path.ends_with(".rs"))
    })
}

/// What the `mod x;` lines of a file name, as module paths.
fn declared_by(file: &SourceFile, roots: &HashSet<String>) -> Vec<String> {
    let folder = match file.path.rsplit_once('/') {
        Some((folder, "mod.rs")) => folder.to_owned(),
        Some((folder, _)) if roots.contains(&file.path) => folder.to_owned(),
        _ => module_path(&file.path),
    };
    file.find(&["mod"])
        .filter(|index| file.tokens.get(index + 2).is_some_and(|token| token.text == ";"))
        .map(|index| format!("{folder}/{}", file.tokens[index + 1].text))
        .collect()
}

/// `a/b` of `a/b.rs` and of `a/b/mod.rs`.
fn module_path(path: &str) -> String {
    let stem = path.trim_end_matches(".rs");
    stem.strip_suffix("/mod").unwrap_or(stem).to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    const PACKAGE: &str = "[package]\nname = \"p\"\n[[test]]\npath = \"e2e/capture.rs\"\n";

    #[test]
    fn declared_files_belong() {
        let files = [
            ("Cargo.toml", "[workspace]\n"),
            ("p/Cargo.toml", PACKAGE),
            ("p/src/lib.rs", "pub mod a;\nmod b;"),
            ("p/src/a.rs", "mod c;"),
            ("p/src/a/c.rs", ""),
            ("p/src/b/mod.rs", "mod d;"),
            ("p/src/b/d.rs", ""),
            ("p/e2e/capture.rs", "mod peers;"),
            ("p/e2e/peers.rs", ""),
            ("p/benches/relay.rs", ""),
        ];
        check(super::check, &files, &[]);
    }

    #[test]
    fn orphans_are_found() {
        let files = [
            ("Cargo.toml", "[workspace]\n"),
            ("p/Cargo.toml", PACKAGE),
            ("p/src/lib.rs", "// mod gone;\nmod inline { }"),
            ("p/src/gone.rs", ""),
            ("p/src/inline.rs", ""),
            ("p/e2e/unregistered.rs", ""),
            ("tests/a.rs", ""),
        ];
        let orphan = "belongs to no crate: no `mod` declares it, and no target of a Cargo.toml names it";
        let expected: Vec<String> =
            ["p/src/gone.rs", "p/src/inline.rs", "p/e2e/unregistered.rs", "tests/a.rs"]
                .map(|path| format!("{path}: {orphan}"))
                .into();
        check(super::check, &files, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
