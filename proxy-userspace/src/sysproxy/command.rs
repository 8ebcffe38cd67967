//! A program of the system, run to its end within a time.

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);

const LOOK: Duration = Duration::from_millis(1);

/// What it has written to standard output.
///
/// # Errors
/// Its own message, with its name.
pub(super) fn run(mut command: Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("LC_ALL", "C");
    let mut child = command.spawn().map_err(|error| format!("{name} can't be started: {error}"))?;
    let deadline = Instant::now() + PATIENCE;
    // What it writes fits into a pipe; one that writes more is ended like one that does not end.
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{name} did not end within {} s", PATIENCE.as_secs()));
            }
        }
    };
    let said = child.stdout.take().map_or_else(Vec::new, |output| written(output.into()));
    let said = String::from_utf8(said).map_err(|_| format!("{name} wrote what is not UTF-8"))?;
    let complaint = child.stderr.take().map_or_else(Vec::new, |errors| written(errors.into()));
    let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
    // gsettings says so and ends well when there is nobody to write.
    if status.success() && !complaint.contains("failed to commit changes") {
        return Ok(said);
    }
    Err(if complaint.is_empty() {
        format!("{name} ended with {status}")
    } else {
        format!("{name}: {complaint}")
    })
}

/// What is in a pipe. Its end is not waited for: a service that the program has started may have it open, too.
fn written(pipe: OwnedFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    if fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok() {
        // An error is the end of what there is.
        let _ = fs::File::from(pipe).read_to_end(&mut bytes);
    }
    bytes
}

/// Whether there is such a program.
pub(super) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/bin", "/usr/local/bin", "/bin"].map(Into::into));
    folders.into_iter().any(|folder| folder.join(program).is_file())
}
