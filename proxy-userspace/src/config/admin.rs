//! `admin`.

use std::net::IpAddr;
use std::path::PathBuf;

/// `admin`: the control plane's listeners.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Default 127.0.0.1; anything but a loopback address is refused.
    pub host: IpAddr,
    /// Default 22140; 0 takes any free one.
    pub port: u16,
    /// Unix socket. Default `<state_dir>/admin.sock`.
    pub socket: Option<PathBuf>,
    /// File with a secret; whoever has it may change things over TCP, too. Default none.
    pub token_file: Option<PathBuf>,
    /// Read the configuration again when one of its files changes. Default on.
    pub reload_on_change: bool,
    /// Folder for the state file and the socket. Default /run/weir; a folder of the user's own unless root.
    pub state_dir: PathBuf,
}

impl Admin {
    /// Where the Unix socket goes: `socket`, or its default within `state_dir`.
    pub fn socket_path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.state_dir.join("admin.sock"))
    }
}
