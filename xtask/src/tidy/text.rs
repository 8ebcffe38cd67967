//! Rules that look at one file at a time.

use super::Finding;
use super::source::Tree;

/// Lines of a Rust file. More is two rooms.
const MAX_LINES: usize = 400;

/// The core of the kernel half, which decides and records: it has to be read in one sitting. What stands in files of
/// its own beside it (rules, UDP) is read by itself, and asked by the core at one place each.
const KERNEL_HALF: &str = "proxy-ebpf/src/";
const MAX_KERNEL_LINES: usize = 900;
const BESIDE_THE_CORE: &[&str] = &[
    "proxy-ebpf/src/dns.rs",
    "proxy-ebpf/src/events.rs",
    "proxy-ebpf/src/listeners.rs",
    "proxy-ebpf/src/local.rs",
    "proxy-ebpf/src/others.rs",
    "proxy-ebpf/src/rules.rs",
    "proxy-ebpf/src/targets.rs",
    "proxy-ebpf/src/udp.rs",
];

const LEFTOVERS: &[&str] = &["todo", "unimplemented", "dbg"];

/// Home folders; written so that this file is free of them.
const LOCAL_PATHS: &[&str] = &[concat!("/ro", "ot/"), concat!("/ho", "me/")];

pub(super) fn sizes(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut kernel_lines = 0;
    for file in tree.rust() {
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            let message = format!("{lines} lines; split it, {MAX_LINES} is the most");
            findings.push(file.finding(0, message));
        }
        if file.path.starts_with(KERNEL_HALF) && !BESIDE_THE_CORE.contains(&file.path.as_str()) {
            kernel_lines += lines;
        }
    }
    if kernel_lines >= MAX_KERNEL_LINES {
        let message =
            format!("{kernel_lines} lines in the kernel half's core; keep it under {MAX_KERNEL_LINES}");
        findings.push(Finding { path: KERNEL_HALF.to_owned(), line: 0, message });
    }
    findings
}

pub(super) fn leftovers(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for name in LEFTOVERS {
            for index in file.find(&[name, "!"]) {
                findings.push(file.finding(file.tokens[index].line, format!("{name}! left in the code")));
            }
        }
    }
    findings
}

/// A test that can't run here fails and says what is missing: `#[ignore]` would look green.
pub(super) fn ignored_tests(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for index in file.find(&["#", "["]) {
            let attribute = file.tokens[index + 2..].iter().take_while(|token| token.text != "]");
            if attribute.clone().any(|token| token.text == "ignore") {
                let line = file.tokens[index].line;
                findings.push(file.finding(line, "an ignored test; make it run, or take it out"));
            }
        }
    }
    findings
}

/// `cargo xtask test` runs the targets that require this feature; a test inside another would never run.
pub(super) fn root_tests(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for index in file.find(&["feature", "=", "\"root-tests\""]) {
            let message = "a test gated by root-tests inside another target; give it a [[test]] with \
                           required-features = [\"root-tests\"]";
            findings.push(file.finding(file.tokens[index].line, message));
        }
    }
    findings
}

pub(super) fn local_paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        for (index, line) in file.text.lines().enumerate() {
            for path in LOCAL_PATHS.iter().filter(|path| line.contains(**path)) {
                findings.push(file.finding(index + 1, format!("{path} is a path of one machine")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn long_files() {
        let long = "\n".repeat(401);
        check(sizes, &[("a.rs", &long)], &["a.rs: 401 lines; split it, 400 is the most"]);
        check(sizes, &[("a.rs", &long[1..]), ("a.md", &long)], &[]);
    }

    #[test]
    fn a_long_kernel_half() {
        let third = "\n".repeat(300);
        let names = ["proxy-ebpf/src/attempt.rs", "proxy-ebpf/src/main.rs", "proxy-ebpf/src/maps.rs"];
        let files = names.map(|name| (name, third.as_str()));
        let found = ["proxy-ebpf/src/: 900 lines in the kernel half's core; keep it under 900"];
        check(sizes, &files, &found);
        check(sizes, &[files[0], files[1], (names[2], &third[1..])], &[]);
        check(sizes, &[files[0], files[1], ("proxy-ebpf/src/rules.rs", &third)], &[]);
    }

    #[test]
    fn leftover_macros() {
        check(leftovers, &[("a.rs", "fn f() {\n    todo!()\n}")], &["a.rs:2: todo! left in the code"]);
        check(leftovers, &[("a.rs", "fn f() { g(dbg!(1)) }")], &["a.rs:1: dbg! left in the code"]);
        check(leftovers, &[("a.rs", "// todo!()\nconst T: &str = \"todo!()\";")], &[]);
    }

    #[test]
    fn ignored() {
        let found = ["a.rs:2: an ignored test; make it run, or take it out"];
        check(ignored_tests, &[("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn t() {}")], &found);
        check(ignored_tests, &[("a.rs", "\n#[cfg_attr(not(unix), ignore)]\nfn t() {}")], &found);
        check(ignored_tests, &[("a.rs", "#[test]\nfn ignore() {}")], &[]);
    }

    #[test]
    fn gated_tests() {
        check(
            root_tests,
            &[("a.rs", "#[cfg(feature = \"root-tests\")]\nmod tests {}")],
            &["a.rs:1: a test gated by root-tests inside another target; give it a [[test]] with \
               required-features = [\"root-tests\"]"],
        );
        check(root_tests, &[("Cargo.toml", "required-features = [\"root-tests\"]")], &[]);
    }

    #[test]
    fn home_folders() {
        let path = LOCAL_PATHS[0];
        let text = format!("first\nsecond {path}src\n");
        check(local_paths, &[("a.md", &text)], &[&format!("a.md:2: {path} is a path of one machine")]);
        check(local_paths, &[("a.md", "under the root / of it")], &[]);
    }
}
