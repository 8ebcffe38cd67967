//! A weir that has taken over when its test took no note of it any more.

use std::path::Path;

use nix::unistd::Pid;
use serde_json::Value;

/// The process that the state file in a weir's folder names, if it is one of that folder's, and not known.
pub fn unnoted(folder: &Path, known: &[Pid]) -> Option<Pid> {
    let text = std::fs::read_to_string(folder.join("state/state.json")).ok()?;
    let pid = serde_json::from_str::<Value>(&text).ok()?["pid"].as_i64()?;
    let pid = Pid::from_raw(i32::try_from(pid).ok()?);
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let is_of_folder = String::from_utf8_lossy(&arguments).contains(&*folder.to_string_lossy());
    let is_successor = String::from_utf8_lossy(&arguments).contains("--take-over");
    (is_of_folder && is_successor && !known.contains(&pid)).then_some(pid)
}
