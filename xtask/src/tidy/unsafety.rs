//! `unsafe` stays in the files listed here, and each use of it says why it is sound.

use super::Finding;
use super::source::{SourceFile, Tree};

/// Files, or folders ending in `/`.
const UNSAFE: &[&str] = &[
    "proxy-common/src/",
    "proxy-ebpf/src/",
    "proxy-userspace/src/cache/pages/mapping.rs",
    "proxy-userspace/src/netns/sys.rs",
    "proxy-userspace/src/privilege/descriptors.rs",
    "proxy-userspace/src/redirect/sys.rs",
    "proxy-userspace/tests/redirect/foreign.rs",
];

/// Lines of code that may stand between the comment and the keyword: the head of one statement.
const MAX_DISTANCE: usize = 3;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let listed = UNSAFE.iter().any(|path| file.path.starts_with(path));
        for index in file.find(&["unsafe"]) {
            let line = file.tokens[index].line;
            let next = file.tokens.get(index + 1).map_or("", |token| token.text.as_str());
            // `#[unsafe(no_mangle)]` and the like.
            if next == "(" {
                continue;
            }
            if !listed {
                let message = "unsafe in a file that is not listed for it in tidy/unsafety.rs";
                findings.push(file.finding(line, message));
            }
            if matches!(next, "{" | "impl") && !explained(file, line) {
                findings.push(file.finding(line, "unsafe without a `// SAFETY:` comment above it"));
            }
        }
    }
    findings
}

/// Whether a SAFETY comment stands at the line or shortly above, comment lines not counted.
fn explained(file: &SourceFile, line: usize) -> bool {
    let above: Vec<&str> = file.text.lines().take(line).collect();
    let mut distance = 0;
    for text in above.iter().rev() {
        if text.contains("SAFETY:") {
            return true;
        }
        distance += usize::from(!text.trim_start().starts_with("//"));
        if distance > MAX_DISTANCE {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::tests::check as check_rule;

    #[track_caller]
    fn check(path: &str, text: &str, expected: &[&str]) {
        check_rule(super::check, &[(path, text)], expected);
    }

    #[test]
    fn unsafe_in_its_place() {
        let explained = "fn f() {\n// SAFETY: it is,\n// really.\nlet a =\nunsafe { g() };\n}";
        check("proxy-ebpf/src/main.rs", explained, &[]);
        check("proxy-ebpf/src/main.rs", "#[unsafe(no_mangle)]\nfn f() {}", &[]);
        check("app.rs", "#![forbid(unsafe_code)]\n// unsafe\nconst U: &str = \"unsafe\";", &[]);
    }

    #[test]
    fn unsafe_elsewhere() {
        check(
            "app.rs",
            "// SAFETY: it is.\nfn f() { unsafe { g() } }",
            &["app.rs:2: unsafe in a file that is not listed for it in tidy/unsafety.rs"],
        );
    }

    #[test]
    fn unsafe_unexplained() {
        let found =
            |line| [format!("proxy-ebpf/src/a.rs:{line}: unsafe without a `// SAFETY:` comment above it")];
        let far = "// SAFETY: too far.\nfn a() {}\nfn b() {}\nfn c() {}\nfn d() { unsafe { g() } }";
        check("proxy-ebpf/src/a.rs", far, &found(5).each_ref().map(String::as_str));
        check("proxy-ebpf/src/a.rs", "unsafe impl Pod for A {}", &found(1).each_ref().map(String::as_str));
    }
}
