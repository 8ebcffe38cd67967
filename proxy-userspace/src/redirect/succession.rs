//! One weir after another in the same cgroup: after a dead one, whose holder is still there, or beside a running one
//! whose place it takes. Then both have their own programs and maps, and neither knows the layout of the other's: the
//! new one's programs have nothing selected until the old one has told what it captured, and the old one's go on
//! keeping the records of the connections that they redirected until these end.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::PoisonError;

use proxy_common::{MAX_SIBLINGS, Siblings};

use super::hooks::RECORDERS;
use super::lock::InstanceLock;
use super::{HolderState, Listeners, Redirect, RedirectError, Rules, hold, load};
use crate::config::{self, FailMode};

impl Redirect {
    /// As [`Redirect::start`], where another weir captures, which hands its instance lock over. No rule holds until
    /// [`Redirect::install_rules`] is given what this gives.
    ///
    /// # Errors
    /// As [`Redirect::start`]; the other weir's programs are untouched.
    pub fn start_beside(
        capture: &config::Capture,
        listeners: &Listeners,
        lock: Option<OwnedFd>,
        siblings: &[u32],
    ) -> Result<(Self, Rules), RedirectError> {
        let rules = Rules::new(capture)?;
        let lock = |cgroup: &_| match lock {
            Some(lock) => InstanceLock::adopt(lock, cgroup),
            None => InstanceLock::acquire(cgroup),
        };
        let (mount, mut redirect) = Self::load(capture, listeners, lock)?;
        redirect.tell_siblings(siblings)?;
        load::attach(&redirect.ebpf, &mount, &redirect.cgroup, &mut redirect.links)?;
        Ok((redirect, rules))
    }

    /// Ends the holder that an earlier weir left in this cgroup, and with `fail: closed` starts one for this weir.
    /// To be called when what the earlier one captured is selected again: until then its programs refuse. Only the
    /// binary `weir` may call it: the holder is another run of this process's executable.
    ///
    /// # Errors
    /// `HolderStays`, `StillHeld` if the earlier one's programs can't be got rid of; `Holder` if the new one can't
    /// start.
    pub fn take_over(&mut self, state_dir: &Path) -> Result<(), RedirectError> {
        hold::retire(&hold::socket(state_dir, self.cgroup.id))?;
        let programs = self.programs_of_another_weir();
        if !programs.is_empty() {
            return Err(RedirectError::StillHeld { cgroup: self.cgroup.path.clone(), programs });
        }
        self.hold(state_dir)
    }

    /// With `fail: closed` starts a holder, in place of one at the same socket.
    ///
    /// # Errors
    /// `Holder` if it can't start.
    pub fn hold(&mut self, state_dir: &Path) -> Result<(), RedirectError> {
        self.state_dir = Some(state_dir.to_owned());
        if self.fail == FailMode::Closed {
            let holder = hold::Holder::start(&self.links, hold::socket(state_dir, self.cgroup.id));
            self.holder = Some(holder.map_err(|source| RedirectError::Holder { source })?);
        }
        Ok(())
    }

    /// A weir that was to take this one's place did not. If it has a holder already, that ends; and this one's gets its
    /// socket back.
    ///
    /// # Errors
    /// As [`Redirect::take_over`].
    pub fn stay(&mut self) -> Result<(), RedirectError> {
        let Some(state_dir) = self.state_dir.clone() else { return Ok(()) };
        if self.holder.is_none() {
            return Ok(());
        }
        // Whichever of the two it is that listens there now.
        hold::retire(&hold::socket(&state_dir, self.cgroup.id))?;
        self.holder = None;
        self.hold(&state_dir)
    }

    /// Leaves deciding to the weir that takes this one's place. What was redirected goes on being recorded until this is
    /// dropped.
    pub fn stop_redirecting(&mut self) {
        if let Some(holder) = self.holder.take() {
            holder.end_in_favour_of_another();
        }
        self.links.truncate(RECORDERS);
    }

    /// The process that keeps the programs attached if weir dies.
    pub fn holder(&self) -> Option<HolderState> {
        self.holder.as_ref().map(hold::Holder::state)
    }

    /// The instance lock, for the weir that takes this one's place.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn lock_descriptor(&self) -> io::Result<OwnedFd> {
        self.lock.descriptor()
    }

    /// Says which other processes are weirs: what these connect to is left alone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn tell_siblings(&self, processes: &[u32]) -> Result<(), RedirectError> {
        let mut siblings = [0; MAX_SIBLINGS];
        siblings.iter_mut().zip(processes).for_each(|(place, process)| *place = *process);
        let mut map = self.siblings.lock().unwrap_or_else(PoisonError::into_inner);
        map.set(0, siblings, 0).map_err(|source| RedirectError::Map { map: "SIBLINGS", source })
    }

    /// As [`Redirect::tell_siblings`] was told last.
    pub(super) fn siblings(&self) -> Siblings {
        let map = self.siblings.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(&0, 0).unwrap_or_default()
    }

    /// Connections that were redirected and have not been taken yet.
    pub fn unclaimed(&self) -> usize {
        self.claims.keys().filter(Result::is_ok).count()
    }
}
