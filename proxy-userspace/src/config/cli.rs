//! `cli`: the commands that may be run over the admin API.

use std::path::PathBuf;
use std::time::Duration;

use super::kinds::{Fault, GIB, KIB, auto_or, duration, number, optional, path, quoted, size, switch, word};
use super::section::Section;

/// `cli`.
#[derive(Debug, Clone, PartialEq)]
pub struct Cli {
    /// Default off.
    pub enabled: bool,
    /// Commands at one time; one more → 429. Default 4.
    pub max_concurrent: usize,
    /// How long a command may run. Default 5min.
    pub process_timeout: Duration,
    /// What a command may write to standard output and standard error together, in bytes. Default 1GiB.
    pub max_output: u64,
    /// Who runs them. None: weir's own user, or `nobody` where that is root. Default none.
    pub user: Option<String>,
    /// Nothing else is run. Default none.
    pub allowed_commands: Vec<AllowedCommand>,
}

impl Default for Cli {
    fn default() -> Self {
        Self {
            enabled: false,
            max_concurrent: 4,
            process_timeout: Duration::from_secs(5 * 60),
            max_output: GIB,
            user: None,
            allowed_commands: Vec::new(),
        }
    }
}

/// An entry of `cli.allowed_commands`: a program, and the arguments that it may be given.
#[derive(Debug, Clone, PartialEq)]
pub struct AllowedCommand {
    pub path: PathBuf,
    /// One for each argument.
    pub args: Vec<ArgumentPattern>,
    /// Environment variables that the caller may set.
    pub env: Vec<String>,
}

impl AllowedCommand {
    /// Whether the caller means this program: by its path, or by its file name alone.
    #[must_use]
    pub fn is_named(&self, command: &str) -> bool {
        self.path.as_os_str() == command || self.path.file_name().is_some_and(|name| name == command)
    }

    #[must_use]
    pub fn takes(&self, arguments: &[String]) -> bool {
        let mut arguments = arguments.iter();
        for pattern in &self.args {
            match pattern {
                ArgumentPattern::Rest => return true,
                ArgumentPattern::One(pattern) => match arguments.next() {
                    Some(argument) if fits(pattern, argument) => {}
                    _ => return false,
                },
            }
        }
        arguments.next().is_none()
    }
}

/// A pattern for arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgumentPattern {
    /// One argument, in which `*` stands for any characters. A pattern that begins with `*` fits none that begins with
    /// `-`: where a value belongs, nobody is to give an option. One with a `/` fits none with `..` between slashes.
    One(String),
    /// `**`: all further arguments, whatever they are.
    Rest,
}

fn fits(pattern: &str, argument: &str) -> bool {
    if pattern.starts_with('*') && argument.starts_with('-') {
        return false;
    }
    if pattern.contains('/') && !pattern.contains("..") && argument.split('/').any(|part| part == "..") {
        return false;
    }
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == argument };
    let Some(mut left) = argument.strip_prefix(first) else { return false };
    let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    // Leftmost matches leave the most for what follows.
    for part in between.split('*') {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

pub(super) fn cli(s: &mut Section<'_, '_>) -> Cli {
    let d = Cli::default();
    let timeouts = Duration::from_millis(10)..=Duration::from_secs(86_400);
    Cli {
        enabled: s.read("enabled", d.enabled, switch()),
        max_concurrent: s.read("max_concurrent", d.max_concurrent, number(1..=256)),
        process_timeout: s.read("process_timeout", d.process_timeout, duration(timeouts)),
        max_output: s.read("max_output", d.max_output, size(KIB..=1024 * GIB)),
        user: s.read("user", d.user, auto_or(|| None, optional(word()))),
        allowed_commands: s.sections("allowed_commands", allowed_command).into_iter().flatten().collect(),
    }
}

fn allowed_command(s: &mut Section<'_, '_>) -> Option<AllowedCommand> {
    let path = s.required("path", path());
    let args = s.list("args", Vec::new(), argument_pattern);
    let env = s.list("env", Vec::new(), variable);
    if args.iter().rev().skip(1).any(|pattern| *pattern == ArgumentPattern::Rest) {
        s.error("`**` stands for all further arguments: nothing can come after it");
    }
    Some(AllowedCommand { path: path?, args, env })
}

fn argument_pattern(text: &str) -> Result<ArgumentPattern, Fault> {
    match text {
        "**" => Ok(ArgumentPattern::Rest),
        _ if text.contains('\0') => Err("an argument can't hold a NUL".to_owned().into()),
        _ => Ok(ArgumentPattern::One(text.to_owned())),
    }
}

/// Variables by which the dynamic linker runs other code than the command's.
const LINKER_PREFIX: &str = "LD_";

fn variable(text: &str) -> Result<String, Fault> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if text.is_empty() || !text.bytes().all(fits) || text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("{} is not the name of an environment variable", quoted(text)).into());
    }
    if text.starts_with(LINKER_PREFIX) {
        return Err(format!("{} would let the caller run any code; leave it out", quoted(text)).into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(args: &[&str]) -> AllowedCommand {
        let args = args.iter().map(|text| argument_pattern(text).unwrap()).collect();
        AllowedCommand { path: "/usr/bin/python3".into(), args, env: Vec::new() }
    }

    #[track_caller]
    fn check(patterns: &[&str], arguments: &[&str], expected: bool) {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(allowed(patterns).takes(&arguments), expected, "{patterns:?} {arguments:?}");
    }

    #[test]
    fn arguments_fit_one_by_one() {
        check(&[], &[], true);
        check(&[], &["x"], false);
        check(&["-c", "*"], &["-c", "print(1)"], true);
        check(&["-c", "*"], &["-c"], false);
        check(&["-c", "*"], &["-c", "a", "b"], false);
        check(&["a*b*c"], &["abc"], true);
        check(&["a*b*c"], &["a--b-b-c"], true);
        check(&["a*b*c"], &["acb"], false);
        check(&["a*a"], &["a"], false);
        check(&["/srv/*.py"], &["/srv/x/y.py"], true);
        check(&["run", "**"], &["run"], true);
        check(&["run", "**"], &["run", "-x", "y"], true);
        check(&["*"], &[""], true);
        check(&["*"], &["*"], true);
    }

    #[test]
    fn a_value_is_no_option() {
        check(&["*"], &["--exec=sh"], false);
        check(&["-*"], &["--exec=sh"], true);
        check(&["*x"], &["-x"], false);
    }

    #[test]
    fn a_path_does_not_leave_its_folder() {
        check(&["/srv/*.py"], &["/srv/x/../../etc/x.py"], false);
        check(&["/srv/*"], &["/srv/.."], false);
        check(&["/srv/*"], &["/srv/..x"], true);
        check(&["--file=/srv/*"], &["--file=/srv/a/../b"], false);
    }

    #[test]
    fn a_command_is_named_by_its_path_or_its_file_name() {
        for (command, expected) in [
            ("/usr/bin/python3", true),
            ("python3", true),
            ("bin/python3", false),
            ("./python3", false),
            ("/usr/bin/python3/", false),
            ("/usr//bin/python3", false),
            ("", false),
        ] {
            assert_eq!(allowed(&[]).is_named(command), expected, "{command}");
        }
    }
}
