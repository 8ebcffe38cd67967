//! Hot upgrade: another weir takes this one's place. The running one starts it (`weir upgrade`, SIGUSR2) as its child,
//! with its own arguments and one end of a socket pair as standard input, and then:
//!
//! ```text
//! old → new   offer      the explicit listeners, the admin API's, the locks, earlier weirs' processes
//! new → old   ready      everything is started, its programs are attached beside the old ones; nothing is selected
//! old → new   state      targets, captured containers, names of addresses, added services
//! new → old   taken      all of that is selected, its holder holds
//! old → new   released   its programs don't redirect any more, and it accepts nothing at the explicit listeners
//! ```
//!
//! Until `taken` nothing of the old weir is changed: if the new one fails, dies or takes too long, the old one goes on.
//! From then on the new one is weir, and the old one finishes what it has: for that it keeps its transparent listeners,
//! its DNS sockets, its maps and the programs that keep records. So no map goes over, and two versions whose maps differ
//! can follow one another; only these messages have a version.

mod giving;
mod starting;
mod taking;

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::privilege::{Confinement, descriptors};
use crate::redirect::KnownNames;

pub(super) use giving::{Given, Giver};
pub use taking::tell_early_failure;
pub(super) use taking::{TakeError, Taking, succeed, tell_failure};

/// The form of the messages. Another one is refused.
const PROTOCOL: u32 = 1;

/// How long one of the two may take for its next message: a million rules are read and written meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of the running weir. The descriptors come in this order: the admin API's TCP and Unix listener, the locks of the attach
/// cgroup and of the cache's folder if there are any, the way to the assistant if there is one, the predecessors' processes, the explicit listeners.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    protocol: u32,
    version: String,
    pid: u32,
    admin: SocketAddr,
    admin_socket: PathBuf,
    state_dir: PathBuf,
    captures: bool,
    has_cache_lock: bool,
    /// The explicit proxy does not listen.
    #[serde(default)]
    stopped: bool,
    /// Its process, if there is one.
    assistant: Option<u32>,
    predecessors: Vec<u32>,
    /// How the one that takes over is confined, as it was started by this one.
    #[serde(default)]
    confinement: Confinement,
}

/// What was selected at run time, and learned.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// `weir capture add`
    targets: Vec<String>,
    /// Apps that were added: name, URL, framework. An earlier version tells of none.
    #[serde(default)]
    services: Vec<(String, String, Option<String>)>,
    captured: Vec<CapturedContainer>,
    names: Vec<KnownNames>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CapturedContainer {
    cgroup: PathBuf,
    selector: String,
    id: String,
    name: String,
    image: String,
}

/// The new weir's.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
enum Answer {
    Ready,
    Taken(Kept),
    Failed { reason: String },
}

/// What of the old weir's lives on with the new one. The rest the old one takes away.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Kept {
    explicit: bool,
    admin_socket: bool,
    state_dir: bool,
}

/// The old weir's last word.
#[derive(Debug, Serialize, Deserialize)]
struct Released {}

fn say(stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    descriptors::send(stream, &serde_json::to_vec(message)?, &[])
}

fn hear<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    let (message, _) = descriptors::receive(stream)?;
    Ok(serde_json::from_slice(&message)?)
}
