//! Whose desktop it is, and how programs are run there.

use std::env;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Uid, User, geteuid, getgroups, setegid, seteuid, setgroups};
use serde::{Deserialize, Serialize};

use super::command;

const BUS: &str = "DBUS_SESSION_BUS_ADDRESS";

/// Seat 0 is what most machines have; logind notes who sits there.
const SEAT: &str = "/run/systemd/seats/seat0";
const RUNTIME: &str = "/run/user";

/// Users below are the system's own, by convention.
const FIRST_PERSON: u32 = 1000;

/// A user's session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Session {
    /// None: this process's own user.
    user: Option<(u32, u32)>,
    pub(super) name: String,
    home: PathBuf,
    pub(super) config_home: PathBuf,
    /// Where its D-Bus is. None: there is none now.
    bus: Option<String>,
}

impl Session {
    /// Of the named user; else of this process's, or of whoever sits at this machine, if this process is root.
    ///
    /// # Errors
    /// There is no such user.
    pub(super) fn find(named: Option<&str>) -> Result<Self, String> {
        let user = match named {
            Some(name) => Some(by_name(name)?),
            None if geteuid().is_root() && env::var_os(BUS).is_none() => sitting(),
            None => None,
        };
        let session = match user.filter(|user| user.uid != geteuid()) {
            Some(user) => Self {
                config_home: user.dir.join(".config"),
                user: Some((user.uid.as_raw(), user.gid.as_raw())),
                name: user.name,
                home: user.dir,
                bus: None,
            },
            None => Self::own(),
        };
        Ok(session.with_bus(env::var(BUS).ok()))
    }

    fn own() -> Self {
        let user = User::from_uid(geteuid()).ok().flatten();
        let folder = |name: &str| env::var_os(name).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let home = folder("HOME").or_else(|| user.as_ref().map(|user| user.dir.clone()));
        let home = home.unwrap_or_else(|| "/".into());
        Self {
            user: None,
            name: user.map_or_else(|| geteuid().to_string(), |user| user.name),
            config_home: folder("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")),
            home,
            bus: None,
        }
    }

    /// As it was written down, with the bus that is there now.
    pub(super) fn again(self) -> Self {
        let present = self.bus.clone();
        self.with_bus(env::var(BUS).ok().or(present))
    }

    fn with_bus(self, known: Option<String>) -> Self {
        let (uid, own) = match self.user {
            Some((uid, _)) => (uid, false),
            None => (geteuid().as_raw(), true),
        };
        let usual = format!("unix:path={RUNTIME}/{uid}/bus");
        // Another user's is not this process's to use.
        let candidates = [self.bus.clone(), known.filter(|_| own), Some(usual)];
        let bus = candidates.into_iter().flatten().find(|address| answers(address));
        Self { bus, ..self }
    }

    pub(super) fn has_bus(&self) -> bool {
        self.bus.is_some()
    }

    /// A program, as that user and in that session. Without one, a session of its own for as long as it runs.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = match &self.bus {
            None if command::is_installed("dbus-run-session") => {
                let mut command = Command::new("dbus-run-session");
                command.args(["--", program]);
                command
            }
            _ => Command::new(program),
        };
        if let Some((uid, gid)) = self.user {
            // The standard library drops this process's supplementary groups as well.
            command.uid(uid).gid(gid).env("USER", &self.name).env("LOGNAME", &self.name);
            command.env("XDG_RUNTIME_DIR", format!("{RUNTIME}/{uid}"));
        }
        command.env("HOME", &self.home).env("XDG_CONFIG_HOME", &self.config_home).current_dir("/");
        match &self.bus {
            Some(bus) => command.env(BUS, bus),
            None => command.env_remove(BUS).env_remove("XDG_RUNTIME_DIR"),
        };
        command
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// Does something with that user's rights and no others. This process has one thread.
    pub(super) fn as_user<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some((uid, gid)) = self.user else { return work() };
        let groups = getgroups()?;
        let (own, own_group) = (geteuid(), nix::unistd::getegid());
        setgroups(&[Gid::from_raw(gid)])?;
        setegid(Gid::from_raw(gid))?;
        seteuid(Uid::from_raw(uid))?;
        let done = work();
        let back = seteuid(own).and_then(|()| setegid(own_group)).and_then(|()| setgroups(&groups));
        if back.is_err() {
            // Whatever it did from here on, it would do as somebody else.
            std::process::abort();
        }
        done
    }
}

fn by_name(name: &str) -> Result<User, String> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    found
        .ok()
        .flatten()
        .ok_or_else(|| format!("system_proxy.user: there is no user `{name}` on this machine"))
}

/// Whoever has started this by sudo, sits at the first seat, or is the only person with a session.
fn sitting() -> Option<User> {
    let number = |text: &str| text.trim().parse().ok().filter(|uid| *uid >= FIRST_PERSON);
    let by_sudo = env::var("SUDO_UID").ok().and_then(|uid| number(&uid));
    let at_seat = || {
        let seat = fs::read_to_string(SEAT).unwrap_or_default();
        seat.lines().find_map(|line| number(line.strip_prefix("ACTIVE_UID=")?))
    };
    let only = || {
        let folders = fs::read_dir(RUNTIME).into_iter().flatten().flatten();
        let mut people = folders.filter(|folder| folder.path().join("bus").exists());
        let first = people.find_map(|folder| number(&folder.file_name().to_string_lossy()))?;
        people.all(|folder| number(&folder.file_name().to_string_lossy()).is_none()).then_some(first)
    };
    let uid = by_sudo.or_else(at_seat).or_else(only)?;
    User::from_uid(Uid::from_raw(uid)).ok().flatten()
}

/// Whether somebody listens at this address of D-Bus. Of kinds other than these nothing is known before they are used.
fn answers(address: &str) -> bool {
    address.split(';').any(|one| {
        let mut keys = one.strip_prefix("unix:").unwrap_or_default().split(',');
        keys.any(|key| match key.split_once('=') {
            Some(("path", path)) => UnixStream::connect(path).is_ok(),
            Some(("abstract", name)) => {
                let address = SocketAddr::from_abstract_name(name);
                address.and_then(|address| UnixStream::connect_addr(&address)).is_ok()
            }
            _ => false,
        })
    })
}
