//! The Python scripts of `e2e/scripts`: what applications do that no ready-made program does.

use std::process::Command;

/// The path of a script.
pub fn path(name: &str) -> String {
    format!("{}/{name}", folder())
}

fn folder() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/scripts")
}

/// Lets a command's scripts import the modules there.
pub fn import(command: &mut Command) -> &mut Command {
    command.env("PYTHONPATH", folder()).env("PYTHONDONTWRITEBYTECODE", "1")
}

/// Runs a command that must succeed: what it printed, without the last newline.
#[track_caller]
pub fn stdout(command: &mut Command) -> String {
    let output = import(command).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}\n{errors}", output.status);
    text
}

/// The words before a script that is given as text.
pub fn python(script: &str) -> [&str; 3] {
    ["python3", "-c", script]
}
