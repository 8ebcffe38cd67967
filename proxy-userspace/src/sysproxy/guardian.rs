//! `weir guard`, a process that weir starts itself: it changes the system's settings when weir asks for it, and gives them
//! back when weir asks for that, or is gone. It has a session of its own, one thread and nothing else to do, and whatever
//! rights weir had when it was started. It ends when nobody is left who could ask.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{dup2_stdin, setsid};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::keeper::Keeper;
use super::{Configured, Refused, Restored, Settings};
use crate::privilege::descriptors;
use crate::redirect::hold;

/// What is asked of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Configure {
        proxy: SocketAddr,
        interface: Option<String>,
    },
    Unconfigure,
    /// What is set.
    State,
    /// The same, after it has taken over what an earlier guardian has left.
    Adopt,
    /// Another way to ask, for the weir that takes over.
    Another,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Configured(Configured),
    Restored(Restored),
    State(Option<Configured>),
    Another,
    Refused(Refused),
}

/// Ways to ask that may be open at one time: each weir that takes over has one.
const MOST_CLIENTS: usize = 16;

/// How long a message may take to come to its end.
const PATIENCE: Duration = Duration::from_secs(5);

/// When weir is gone and something can't be given back: how often and how long it is tried again. The next start goes on.
const AGAIN: Duration = Duration::from_millis(500);
const UNTIL: Duration = Duration::from_secs(120);

/// Ends with the last weir that asks, after it has given back what there was.
///
/// # Errors
/// It was not started by weir.
pub fn guard() -> io::Result<()> {
    // What ends weir from a terminal, or all of its process group or control group, must not end this one before.
    setsid()?;
    // What this process has inherited it would keep open.
    hold::close_inherited()?;
    // Not blocked and not ignored: that the programs which it starts would inherit.
    let noted = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&noted))?;
    }
    // For ps; nothing depends on it.
    let _ = fs::write("/proc/self/comm", "weir-guard");
    let first = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    dup2_stdin(fs::File::open("/dev/null")?)?;
    let (settings, _) = descriptors::receive(&first)?;
    let settings: Settings = serde_json::from_slice(&settings)?;
    let mut guarding = Guarding { keeper: Keeper::new(settings), clients: vec![first] };
    while !guarding.clients.is_empty() {
        guarding.turn()?;
    }
    guarding.give_back();
    Ok(())
}

struct Guarding {
    keeper: Keeper,
    clients: Vec<UnixStream>,
}

impl Guarding {
    /// Waits for requests, and answers them.
    fn turn(&mut self) -> io::Result<()> {
        let ready: Vec<bool> = {
            let mut watched: Vec<PollFd<'_>> =
                self.clients.iter().map(|client| PollFd::new(client.as_fd(), PollFlags::POLLIN)).collect();
            match poll(&mut watched, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => return Ok(()),
                polled => drop(polled?),
            }
            watched.iter().map(|client| client.any() == Some(true)).collect()
        };
        let clients = std::mem::take(&mut self.clients);
        let open = clients.len();
        for (client, is_ready) in clients.into_iter().zip(ready) {
            // One that is gone, or does not speak as weir does, is left.
            if !is_ready || self.answer(&client, open).is_ok() {
                self.clients.push(client);
            }
        }
        Ok(())
    }

    fn answer(&mut self, client: &UnixStream, open: usize) -> io::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        client.set_write_timeout(Some(PATIENCE))?;
        let (request, _) = descriptors::receive(client)?;
        let (answer, given) = self.serve(serde_json::from_slice(&request)?, open)?;
        let given = given.as_ref().map(|given| given.as_fd());
        descriptors::send(client, &serde_json::to_vec(&answer)?, given.as_slice())
    }

    fn serve(&mut self, request: Request, open: usize) -> io::Result<(Answer, Option<OwnedFd>)> {
        let answer = match request {
            Request::Configure { proxy, interface } => {
                self.keeper.configure(proxy, interface.as_deref()).map(Answer::Configured)
            }
            Request::Unconfigure => self.keeper.unconfigure().map(Answer::Restored),
            Request::State => Ok(Answer::State(self.keeper.configured())),
            Request::Adopt => self.keeper.adopt().map(|()| Answer::State(self.keeper.configured())),
            Request::Another if open + self.clients.len() < MOST_CLIENTS => {
                let (ours, theirs) = UnixStream::pair()?;
                self.clients.push(ours);
                return Ok((Answer::Another, Some(theirs.into())));
            }
            Request::Another => Err(Refused::Failed("too many weirs ask already".to_owned())),
        };
        Ok((answer.unwrap_or_else(Answer::Refused), None))
    }

    /// weir is gone: whatever it has left is given back.
    fn give_back(&mut self) {
        let begun = Instant::now();
        while self.keeper.is_configured() {
            match self.keeper.unconfigure() {
                Ok(restored) => {
                    eprintln!("weir: it ended, and the system's proxy settings are again what they were");
                    restored.warnings.iter().for_each(|warning| eprintln!("weir: {warning}"));
                }
                Err(why) if begun.elapsed() > UNTIL => {
                    eprintln!(
                        "weir: the system's proxy settings can't be restored: {why}; try `weir restore`"
                    );
                    return;
                }
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }
}
