//! Runs the commands of `cli.allowed_commands` for callers of the admin API.
//!
//! There is no shell, no path search and no inherited environment: a caller chooses among the listed programs and gives
//! them arguments that fit their patterns. A command ends with all that it has started, when it ends by itself, when its
//! time is over, when its caller goes, and when weir dies.

mod output;
mod process;
pub mod supervisor;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::{User, geteuid};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub use output::{End, Event, Stream, Text, Unfinished};

use crate::config;
use crate::netns::keep_descriptors;

/// What a command finds in PATH.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// This very program, whatever has become of its file.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The user that a weir of root runs commands as, unless it is told another.
const NOBODY: &str = "nobody";

/// Runs commands.
pub struct Executor {
    config: config::Cli,
    user: RunAs,
    places: Arc<Semaphore>,
    counts: Arc<Counts>,
}

/// What goes on when another configuration holds.
#[derive(Debug, Default)]
struct Counts {
    started: AtomicU64,
    refused: AtomicU64,
    /// The places of executors that were here before, and how many each had.
    earlier: Mutex<Vec<(Arc<Semaphore>, usize)>>,
}

/// A command to run.
#[derive(Debug, Default)]
pub struct Wanted {
    /// A path that is listed, or the file name of one.
    pub command: String,
    pub args: Vec<String>,
    pub stdin: Option<String>,
    pub env: BTreeMap<String, String>,
    /// No longer than `cli.process_timeout`.
    pub timeout: Option<Duration>,
}

/// Why a command was not started.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Malformed(String),
    #[error("`{0}` is not among cli.allowed_commands")]
    NotListed(String),
    #[error("cli.allowed_commands does not allow {path} these arguments", path = .0.display())]
    Arguments(PathBuf),
    #[error("cli.allowed_commands does not let a caller set {0} for this command")]
    Variable(String),
    #[error("{0} commands run already, as many as cli.max_concurrent allows")]
    Busy(usize),
    #[error("{path} can't be started: {error}", path = .path.display())]
    Start { path: PathBuf, error: std::io::Error },
}

/// `cli.user` can't run anything.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("cli.user: there is no user `{0}` here")]
    Unknown(String),
    #[error("cli.user: only root can run commands as `{0}`; leave it out to run them as weir's own user")]
    NotAllowed(String),
}

/// Whom a command runs as.
struct RunAs {
    /// None: this process's own user.
    other: Option<(u32, u32)>,
    name: String,
    home: PathBuf,
}

impl Executor {
    /// None where `cli.enabled` is off.
    ///
    /// # Errors
    /// [`UserError`]
    pub fn new(config: &config::Cli) -> Result<Option<Self>, UserError> {
        if !config.enabled {
            return Ok(None);
        }
        keep_descriptors();
        Ok(Some(Self {
            user: RunAs::find(config.user.as_deref())?,
            places: Arc::new(Semaphore::new(config.max_concurrent)),
            config: config.clone(),
            counts: Arc::default(),
        }))
    }

    /// It in the place of an earlier one, whose commands go on to their end and are counted here. They take none of its
    /// places.
    #[must_use]
    pub fn after(mut self, last: &Self) -> Self {
        self.counts = Arc::clone(&last.counts);
        let mut earlier = self.counts.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        earlier.retain(|(places, most)| places.available_permits() < *most);
        earlier.push((Arc::clone(&last.places), last.config.max_concurrent));
        drop(earlier);
        self
    }

    /// Whether there would be somebody to run commands as.
    ///
    /// # Errors
    /// [`UserError`]
    pub fn check(config: &config::Cli) -> Result<(), UserError> {
        if config.enabled { RunAs::find(config.user.as_deref()).map(drop) } else { Ok(()) }
    }

    /// Commands that were started, those that were refused, and those that run.
    pub fn counts(&self) -> (u64, u64, usize) {
        let running = |places: &Semaphore, most: usize| most.saturating_sub(places.available_permits());
        let earlier = self.counts.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier: usize = earlier.iter().map(|(places, most)| running(places, *most)).sum();
        let running = running(&self.places, self.config.max_concurrent) + earlier;
        (self.counts.started.load(Ordering::Relaxed), self.counts.refused.load(Ordering::Relaxed), running)
    }

    /// Starts a command. What it writes is read only as fast as the receiver takes it; once that is dropped, the
    /// command ends.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was started then.
    pub fn start(&self, wanted: Wanted) -> Result<mpsc::Receiver<Event>, Refusal> {
        let result = self.try_start(wanted);
        let count = if result.is_ok() { &self.counts.started } else { &self.counts.refused };
        count.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn try_start(&self, wanted: Wanted) -> Result<mpsc::Receiver<Event>, Refusal> {
        let path = self.allowed(&wanted)?;
        let place = self.place()?;
        let mut command = self.user.command(&path);
        command.args(&wanted.args).envs(&wanted.env);
        let input = wanted.stdin.map(String::into_bytes);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let limit = self.config.process_timeout;
        let limits = process::Limits {
            time: wanted.timeout.map_or(limit, |asked| asked.min(limit)),
            output: self.config.max_output,
        };
        tracing::info!(command = %path.display(), user = %self.user.name, "runs a command for a caller of the admin API");
        process::start(command, input, limits, place).map_err(|error| Refusal::Start { path, error })
    }

    /// The program that is meant, if it and all that it is given are allowed.
    fn allowed(&self, wanted: &Wanted) -> Result<PathBuf, Refusal> {
        let texts = wanted.args.iter().chain(wanted.env.values()).chain([&wanted.command]);
        if texts.into_iter().any(|text| CString::new(text.as_str()).is_err()) {
            return Err(Refusal::Malformed("a command and what it is given can't hold a NUL".to_owned()));
        }
        let mut last = Refusal::NotListed(shown(&wanted.command));
        for allowed in self.config.allowed_commands.iter().filter(|allowed| allowed.is_named(&wanted.command))
        {
            if !allowed.takes(&wanted.args) {
                last = Refusal::Arguments(allowed.path.clone());
                continue;
            }
            match wanted.env.keys().find(|name| !allowed.env.contains(name)) {
                Some(name) => last = Refusal::Variable(shown(name)),
                None => return Ok(allowed.path.clone()),
            }
        }
        Err(last)
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::Busy(self.config.max_concurrent))
    }
}

impl RunAs {
    fn find(name: Option<&str>) -> Result<Self, UserError> {
        let own = geteuid();
        let name = match name {
            Some(name) => name,
            None if own.is_root() => NOBODY,
            None => return Ok(Self::own(User::from_uid(own).ok().flatten())),
        };
        let user = User::from_name(name).ok().flatten().ok_or_else(|| UserError::Unknown(name.to_owned()))?;
        if user.uid == own {
            return Ok(Self::own(Some(user)));
        }
        if !own.is_root() {
            return Err(UserError::NotAllowed(name.to_owned()));
        }
        Ok(Self { other: Some((user.uid.as_raw(), user.gid.as_raw())), name: user.name, home: user.dir })
    }

    fn own(user: Option<User>) -> Self {
        let (name, home) = user.map_or_else(Default::default, |user| (user.name, user.dir));
        Self { other: None, name, home }
    }

    /// A command of this user's, below a supervisor, with no more of an environment than a program expects.
    fn command(&self, path: &Path) -> Command {
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0("weir").arg("supervise");
        if let Some((user, group)) = self.other {
            command.args(["--user", &user.to_string(), "--group", &group.to_string()]);
        }
        command
            .arg("--")
            .arg(path)
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .env("HOME", &self.home);
        command.env("USER", &self.name).env("LOGNAME", &self.name).current_dir("/");
        command
    }
}

/// A caller's text as it goes into a message: one line that ends somewhere.
fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    text.chars().take(LONGEST).flat_map(char::escape_debug).collect()
}
