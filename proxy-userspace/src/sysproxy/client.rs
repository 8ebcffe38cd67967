//! weir's way to the guardian: it is started when it is needed, and missed when it is gone.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::guardian::{Answer, Request};
use super::{Configured, Refused, Restored, Settings};
use crate::privilege::descriptors;

/// How long an answer may take: some programs of the system are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A guardian that runs.
#[derive(Debug)]
pub struct Guardian {
    stream: UnixStream,
    /// None: an earlier weir has started it.
    child: Option<Child>,
}

impl Guardian {
    /// Starts one, with the rights that this process has now.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(settings: &Settings) -> io::Result<Self> {
        let (stream, its_end) = UnixStream::pair()?;
        // It says on weir's standard error what it did when weir was gone.
        let child = Command::new("/proc/self/exe")
            .arg0("weir")
            .arg("guard")
            .current_dir("/")
            .stdin(OwnedFd::from(its_end))
            .stdout(Stdio::null())
            .spawn()?;
        descriptors::send(&stream, &serde_json::to_vec(settings)?, &[])?;
        Self::of(stream, Some(child))
    }

    /// That of the weir whose place this one takes.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn adopt(stream: UnixStream) -> io::Result<Self> {
        Self::of(stream, None)
    }

    fn of(stream: UnixStream, child: Option<Child>) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, child })
    }

    fn ask(&self, request: &Request) -> io::Result<(Answer, Option<OwnedFd>)> {
        descriptors::send(&self.stream, &serde_json::to_vec(request)?, &[])?;
        let (answer, given) = descriptors::receive(&self.stream)?;
        Ok((serde_json::from_slice(&answer)?, given.into_iter().next()))
    }

    fn is_gone(&self) -> bool {
        let mut watched = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        // It says nothing unasked: what can be read is its end.
        poll(&mut watched, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // If it has ended, nobody else waits for it.
        let _ = self.child.as_mut().map(Child::try_wait);
    }
}

/// What weir knows of the system's proxy, and does about it.
#[derive(Debug)]
pub struct Client {
    /// None: nothing is to be changed (`system_proxy.configure: never`).
    settings: Option<Settings>,
    /// Whether this process has the rights that a guardian would need.
    may_start: bool,
    /// One caller at a time.
    guardian: Mutex<Option<Guardian>>,
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone)]
pub struct State {
    /// What was set by this weir, or by the one before.
    pub configured: Option<Configured>,
    /// What was found when it was given back last.
    pub warnings: Vec<String>,
    /// weir is stopping, or another one has taken its place.
    is_over: bool,
}

impl Client {
    #[must_use]
    pub fn new(settings: Option<Settings>, may_start: bool, guardian: Option<Guardian>) -> Self {
        Self { settings, may_start, guardian: Mutex::new(guardian), state: Mutex::default() }
    }

    /// What is set now.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn state_to_change(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the system use the proxy. Blocks.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed.
    pub fn configure(&self, proxy: SocketAddr, interface: Option<String>) -> Result<Configured, Refused> {
        let (proxy, mut guardian) = (super::reached_at(proxy), self.guardian());
        if self.state().is_over {
            return Err(Refused::Failed("weir is stopping".to_owned()));
        }
        let guardian = self.begun(&mut guardian)?;
        match guardian.ask(&Request::Configure { proxy, interface }) {
            Ok((Answer::Configured(configured), _)) => {
                let mut state = self.state_to_change();
                (state.configured, state.warnings) = (Some(configured.clone()), Vec::new());
                Ok(configured)
            }
            answer => Err(refused(answer)),
        }
    }

    /// Gives back what there was before. Blocks.
    ///
    /// # Errors
    /// [`Refused`]; what could not be given back is tried again with the next call, and when weir is gone.
    pub fn unconfigure(&self) -> Result<Restored, Refused> {
        let guardian = self.guardian();
        let Some(guardian) = guardian.as_ref().filter(|_| self.state().configured.is_some()) else {
            return Err(Refused::NotOurs);
        };
        match guardian.ask(&Request::Unconfigure) {
            Ok((Answer::Restored(restored), _)) => {
                let mut state = self.state_to_change();
                (state.configured, state.warnings) = (None, restored.warnings.clone());
                Ok(restored)
            }
            answer => Err(refused(answer)),
        }
    }

    /// Nothing is changed any more; what is set is given back. Blocks.
    pub fn end(&self) -> Option<Result<Restored, Refused>> {
        self.state_to_change().is_over = true;
        let restored = self.state().configured.is_some().then(|| self.unconfigure());
        // It ends, and tries again what has failed.
        *self.guardian() = None;
        restored
    }

    /// Leaves it to the weir that has taken this one's place.
    pub fn leave(&self) {
        self.state_to_change().is_over = true;
        *self.guardian() = None;
    }

    /// A way to the guardian for the weir that takes over. Blocks.
    #[must_use]
    pub fn another(&self) -> Option<UnixStream> {
        let guardian = self.guardian();
        match guardian.as_ref()?.ask(&Request::Another) {
            Ok((Answer::Another, Some(way))) => Some(way.into()),
            _ => None,
        }
    }

    /// Learns what the weir before this one has set. Blocks.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn inherit(&self) -> Result<(), Refused> {
        let guardian = self.guardian();
        let Some(guardian) = guardian.as_ref() else { return Ok(()) };
        match guardian.ask(&Request::State) {
            Ok((Answer::State(configured), _)) => self.state_to_change().configured = configured,
            answer => return Err(refused(answer)),
        }
        Ok(())
    }

    /// If the guardian is gone while it is needed: starts another, which takes over what it has left. Blocks.
    ///
    /// # Errors
    /// There is none, and nobody will give the settings back if weir is killed.
    pub fn look_after(&self) -> Result<bool, String> {
        let mut guardian = self.guardian();
        let is_needed = self.state().configured.is_some();
        if !is_needed || guardian.as_ref().is_some_and(|guardian| !guardian.is_gone()) {
            return Ok(false);
        }
        *guardian = None;
        let begun = self.begun(&mut guardian).map_err(|refused| refused.to_string())?;
        match begun.ask(&Request::Adopt) {
            Ok((Answer::State(Some(_)), _)) => Ok(true),
            Ok((Answer::State(None), _)) => {
                self.state_to_change().configured = None;
                Err("somebody else has given them back already".to_owned())
            }
            answer => Err(refused(answer).to_string()),
        }
    }

    fn guardian(&self) -> MutexGuard<'_, Option<Guardian>> {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guardian; one that is started now, if there is none.
    fn begun<'g>(&self, guardian: &'g mut Option<Guardian>) -> Result<&'g Guardian, Refused> {
        let Some(settings) = &self.settings else {
            let why = "system_proxy.configure is `never`: weir does not change the system's settings";
            return Err(Refused::Failed(why.to_owned()));
        };
        if guardian.as_ref().is_some_and(Guardian::is_gone) {
            *guardian = None;
        }
        match guardian {
            Some(guardian) => Ok(guardian),
            None if !self.may_start => Err(Refused::Failed(
                "with server.user, what changes the system's settings is started with weir: name the backends in \
                 system_proxy.backends, or set system_proxy.configure to on_start"
                    .to_owned(),
            )),
            None => {
                let started = Guardian::start(settings);
                let started = started.map_err(|error| {
                    Refused::Failed(format!("the process that restores the settings can't be started: {error}"))
                })?;
                Ok(guardian.insert(started))
            }
        }
    }
}

fn refused(answer: io::Result<(Answer, Option<OwnedFd>)>) -> Refused {
    match answer {
        Ok((Answer::Refused(refused), _)) => refused,
        Ok(_) => Refused::Failed("the guardian gave another answer than was asked for".to_owned()),
        Err(error) => Refused::Failed(format!("the process that restores the settings is gone: {error}")),
    }
}
