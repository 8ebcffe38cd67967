//! What is told to a supervisor that wants to know (sd_notify(3)): when weir serves, and which process it is.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// weir serves, in this process.
pub(super) fn tell_ready() {
    tell(&format!("READY=1\nMAINPID={}", std::process::id()));
}

/// Another process is weir from now on.
pub(super) fn tell_main_process(pid: u32) {
    tell(&format!("MAINPID={pid}"));
}

/// weir is about to stop.
pub(super) fn tell_stopping() {
    tell("STOPPING=1");
}

fn tell(state: &str) {
    if let Some(path) = env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(path.as_bytes(), state)
    {
        tracing::warn!(%error, "the supervisor at NOTIFY_SOCKET can't be told");
    }
}

fn send(path: &[u8], state: &str) -> io::Result<()> {
    let address = match path {
        // An abstract socket (unix(7)).
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}
