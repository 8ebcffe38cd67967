//! A weir that takes connections and answers none, because somebody has stopped it (SIGSTOP, a debugger).

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// How often it is looked. The first look comes after as long: one that runs has answered by then.
const LOOK: Duration = Duration::from_millis(250);

/// Ready when a weir whose state file is in one of these folders is seen to be stopped; gives its process.
pub(super) async fn noticed(folders: &[&Path]) -> u32 {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Some(pid) = folders.iter().find_map(|folder| stopped_in(folder)) {
            return pid;
        }
    }
}

/// What there is to be said, and done.
pub(super) fn tell(pid: u32) -> String {
    format!(
        "weir (process {pid}) is stopped and answers nothing: new connections go direct, or are refused with \
         `capture.fail: closed`; `kill -CONT {pid}` has it go on"
    )
}

fn stopped_in(folder: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(folder.join("state.json")).ok()?;
    let state: Value = serde_json::from_str(&text).ok()?;
    let pid = u32::try_from(state["pid"].as_u64()?).ok()?;
    // proc_pid_stat(5): the name, in brackets, may hold anything.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    matches!(rest.trim_start().chars().next(), Some('T' | 't')).then_some(pid)
}
