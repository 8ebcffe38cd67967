//! Dependencies between the top-level modules of proxy-userspace point down only.

use super::Finding;
use super::source::{SourceFile, Tree};

const SOURCES: &str = "proxy-userspace/src/";

/// From the top down. A module may import those of lower ranks; those beside it only by [`BESIDE`].
const RANKS: &[&[&str]] = &[
    &["main", "cli"],
    &["app"],
    &["admin", "front"],
    &["capture"],
    &["pipeline", "running"],
    &["services"],
    &[
        "policy",
        "filters",
        "cache",
        "route",
        "upstream",
        "relay",
        "sysproxy",
        "registry",
        "containers",
        "execute",
    ],
    &["dns"],
    &["net", "tls", "redirect"],
    &["telemetry"],
    &["target"],
    &["http", "netns"],
    &["privilege"],
    &["config"],
    &["authority"],
];

/// (who, whom) of the same rank.
const BESIDE: &[(&str, &str)] = &[("main", "cli")];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let Some(inner) = file.path.strip_prefix(SOURCES) else { continue };
        let module = inner.split(['/', '.']).next().unwrap_or_default();
        if module == "lib" {
            continue;
        }
        let Some(rank) = rank(module) else {
            findings
                .push(file.finding(0, format!("module {module} has no rank; give it one in tidy/ranks.rs")));
            continue;
        };
        for (other, line) in imports(file, depth(inner)) {
            if other == module || BESIDE.contains(&(module, other.as_str())) {
                continue;
            }
            // What is no module is an item of lib.rs: every module may use it.
            let Some(other_rank) = self::rank(&other) else { continue };
            let why = match rank.cmp(&other_rank) {
                std::cmp::Ordering::Less => continue,
                std::cmp::Ordering::Equal => "stands beside it",
                std::cmp::Ordering::Greater => "stands above it",
            };
            findings.push(file.finding(
                line,
                format!("{module} imports {other}, which {why}; move what both need down, or pass it in"),
            ));
        }
    }
    findings
}

/// Counted from the top.
fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|rank| rank.contains(&module))
}

/// How many modules lie between a file's items and the crate: 1 for front.rs and front/mod.rs.
fn depth(inner: &str) -> usize {
    let stem = inner.trim_end_matches(".rs").trim_end_matches("/mod");
    stem.split('/').count()
}

/// Top-level modules named by `crate::…`, `weir::…`, or `super::…` that reaches the crate, with their lines.
fn imports(file: &SourceFile, depth: usize) -> Vec<(String, usize)> {
    let text = |index: usize| file.tokens.get(index).map_or("", |token| token.text.as_str());
    let mut imports = Vec::new();
    // For each open brace: whether it is that of an inline module.
    let mut braces = Vec::new();
    let mut index = 0;
    while index < file.tokens.len() {
        match text(index) {
            "{" => braces.push(index >= 2 && text(index - 2) == "mod"),
            "}" => drop(braces.pop()),
            "crate" | "weir" | "super" if text(index + 1) == ":" && text(index + 2) == ":" => {
                let inline = braces.iter().filter(|module| **module).count();
                let mut ups = if text(index) == "super" { 1 } else { depth + inline };
                index += 3;
                while text(index) == "super" && text(index + 1) == ":" {
                    (ups, index) = (ups + 1, index + 3);
                }
                if ups == depth + inline {
                    first_names(file, index, &mut imports);
                }
                continue;
            }
            _ => {}
        }
        index += 1;
    }
    imports
}

/// The names that a path goes on with at `index`: one, or those of a `{a, b::c}` group.
fn first_names(file: &SourceFile, index: usize, names: &mut Vec<(String, usize)>) {
    let Some(first) = file.tokens.get(index) else { return };
    if first.text != "{" {
        names.push((first.text.clone(), first.line));
        return;
    }
    let mut open = 0;
    let mut expected = false;
    for token in &file.tokens[index..] {
        match token.text.as_str() {
            "{" => (open, expected) = (open + 1, open == 0),
            "}" if open == 1 => return,
            "}" => open -= 1,
            "," => expected = open == 1,
            name if expected => {
                names.push((name.to_owned(), token.line));
                expected = false;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check as check_rule;

    #[track_caller]
    fn check(path: &str, text: &str, expected: &[&str]) {
        check_rule(super::check, &[(&format!("proxy-userspace/src/{path}"), text)], expected);
    }

    #[test]
    fn downwards_is_fine() {
        check("front/explicit.rs", "use crate::{net::Listener, pipeline, target::{self, Target}};", &[]);
        check("main.rs", "fn main() { weir::app::run() }", &[]);
        check(
            "relay/mod.rs",
            "use super::config;\nmod tests { use super::*; use crate::config::Relay; }",
            &[],
        );
        check(
            "relay/pipe.rs",
            "use super::net_pipe;\n// use crate::front\nconst S: &str = \"crate::front\";",
            &[],
        );
    }

    #[test]
    fn upwards_is_not() {
        let up = |line, a, b| {
            format!(
                "proxy-userspace/src/relay/pipe.rs:{line}: {a} imports {b}, which stands above it; \
                 move what both need down, or pass it in"
            )
        };
        check("relay/pipe.rs", "\nuse crate::pipeline::Flow;", &[&up(2, "relay", "pipeline")]);
        check("relay/pipe.rs", "use super::super::front::X;", &[&up(1, "relay", "front")]);
        check("relay/pipe.rs", "use super::front::X;", &[]);
        check("relay/pipe.rs", "mod t { use super::super::super::front; }", &[&up(1, "relay", "front")]);
        check(
            "relay/pipe.rs",
            "use crate::{config::{Relay, a::app}, app};\nfn f() { crate::admin::g() }",
            &[&up(1, "relay", "app"), &up(2, "relay", "admin")],
        );
    }

    #[test]
    fn the_middle_keeps_apart() {
        check(
            "relay.rs",
            "use crate::cache::Store;",
            &["proxy-userspace/src/relay.rs:1: relay imports cache, which stands beside it; \
               move what both need down, or pass it in"],
        );
    }

    #[test]
    fn a_new_module_needs_a_rank() {
        check(
            "misc/mod.rs",
            "",
            &["proxy-userspace/src/misc/mod.rs: module misc has no rank; give it one in tidy/ranks.rs"],
        );
    }
}
