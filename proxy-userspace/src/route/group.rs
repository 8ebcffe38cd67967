//! A group of backends: who of its members gets a request, and who waits for one.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::affinity::{self, Affinity};
use super::balance::{self, Balance, Candidate};
use super::budget::Budget;
use super::health::Fitness;
use super::member::{Member, State};
use crate::config::{Backend, BackendGroup, CheckKind};
use crate::http::authority::Scheme;
use crate::http::headers::Headers;

/// A group, as all workers see it.
#[derive(Debug)]
pub struct Group {
    pub settings: Arc<BackendGroup>,
    members: Box<[Arc<Member>]>,
    balance: Box<dyn Balance>,
    queue: Arc<Queue>,
    budget: Arc<Budget>,
}

/// Requests that wait for a member. It outlives a reload: who waits is not forgotten.
#[derive(Debug, Default)]
struct Queue {
    freed: Notify,
    waiting: AtomicUsize,
}

/// Why nobody gets a request. It was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMember {
    #[error("no member of backend {0} can be used now; `weir backends` tells why")]
    Unavailable(Arc<str>),
    #[error("too many requests wait for backend {0} already (its `queue`); try again later")]
    QueueFull(Arc<str>),
    #[error("backend {0} was too busy for too long (its `queue_timeout`); try again later")]
    TimedOut(Arc<str>),
}

/// Members that were asked already, by their places.
pub type Tried = SmallVec<[usize; 4]>;

/// A request's place at a member, which ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    group: Arc<Group>,
    index: usize,
    /// It is the one by which an open breaker is tried.
    on_trial: Cell<bool>,
}

/// Who is to have a request, and whether as a trial.
#[derive(Debug, Clone, Copy)]
struct Taken {
    index: usize,
    on_trial: bool,
}

enum Choice {
    Taken(Taken),
    /// All that could be used have as many requests as they may have.
    Full,
    Nobody,
}

impl Group {
    /// `before` is the group of that name until now: members stay who they are.
    pub(super) fn new(settings: &Arc<BackendGroup>, before: Option<&Arc<Self>>) -> Arc<Self> {
        if let Some(before) = before.filter(|before| before.settings == *settings) {
            return Arc::clone(before);
        }
        let member = |now: &crate::config::Member| {
            let known = before.and_then(|before| {
                let of = before.settings.members.iter().zip(&before.members);
                let mut of = of.filter(|(was, _)| was.name == now.name && was.server == now.server);
                of.next()
            });
            match known {
                Some((was, member)) => {
                    member.follow(was, now);
                    Arc::clone(member)
                }
                None => {
                    let member = Member::new(now);
                    // One that comes while others serve has its share grow, as one that comes back.
                    if before.is_some() {
                        member.come_back();
                    }
                    Arc::new(member)
                }
            }
        };
        let retries = &settings.health.retries;
        let members: Box<[_]> = settings.members.iter().map(member).collect();
        if settings.health.check.kind == CheckKind::Off {
            members.iter().for_each(|member| member.health.unchecked());
        }
        Arc::new(Self {
            members,
            balance: balance::of(settings),
            queue: before.map(|before| Arc::clone(&before.queue)).unwrap_or_default(),
            budget: before
                .map_or_else(|| Arc::new(Budget::new(retries)), |before| Arc::clone(&before.budget)),
            settings: Arc::clone(settings),
        })
    }

    #[must_use]
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.waiting.load(Relaxed)
    }

    /// What binds a request to one of the members.
    #[must_use]
    pub fn affinity(&self, headers: &Headers, client: IpAddr) -> Affinity {
        Affinity::of(&self.settings, headers, client)
    }

    /// A member for a request, which is none of those tried if there are others. Waits for it if all are busy.
    ///
    /// # Errors
    /// [`NoMember`].
    pub async fn take(self: &Arc<Self>, affinity: Affinity, tried: &Tried) -> Result<Turn, NoMember> {
        match self.try_take(affinity, tried) {
            Choice::Taken(turn) => Ok(self.turn(turn)),
            Choice::Nobody => Err(NoMember::Unavailable(Arc::clone(&self.settings.name))),
            Choice::Full => Box::pin(self.wait(affinity, tried)).await,
        }
    }

    async fn wait(self: &Arc<Self>, affinity: Affinity, tried: &Tried) -> Result<Turn, NoMember> {
        let name = || Arc::clone(&self.settings.name);
        let bounds = &self.settings.bounds;
        let _waiting =
            Waiting::begin(&self.queue, bounds.queue).ok_or_else(|| NoMember::QueueFull(name()))?;
        let deadline = Instant::now() + bounds.queue_timeout;
        loop {
            let mut freed = std::pin::pin!(self.queue.freed.notified());
            // From here on nothing is missed.
            freed.as_mut().enable();
            match self.try_take(affinity, tried) {
                Choice::Taken(taken) => return Ok(self.turn(taken)),
                Choice::Nobody => return Err(NoMember::Unavailable(name())),
                Choice::Full => {}
            }
            timeout_at(deadline, freed).await.map_err(|_| NoMember::TimedOut(name()))?;
        }
    }

    fn try_take(&self, affinity: Affinity, tried: &Tried) -> Choice {
        let most = self.settings.bounds.max_requests;
        // Somebody else may take the last place at whoever was chosen; each time, one more is full.
        for _ in 0..=self.members.len() {
            let choice = self.choose(affinity, tried);
            match choice {
                Choice::Taken(taken) if !self.begin(taken, most) => {}
                choice => return choice,
            }
        }
        Choice::Full
    }

    fn begin(&self, Taken { index, on_trial }: Taken, most: usize) -> bool {
        let member = &self.members[index];
        if on_trial && !member.health.begin_trial() {
            return false;
        }
        let begun = member.begin(most);
        if on_trial && !begun {
            member.health.end_trial();
        }
        begun
    }

    fn turn(self: &Arc<Self>, Taken { index, on_trial }: Taken) -> Turn {
        Turn { group: Arc::clone(self), index, on_trial: Cell::new(on_trial) }
    }

    fn choose(&self, affinity: Affinity, tried: &Tried) -> Choice {
        let mut candidates: SmallVec<[Candidate; 16]> = SmallVec::new();
        let (most, slow_start) = (self.settings.bounds.max_requests, self.settings.slow_start);
        let (mut available, mut full) = (0, 0);
        for (index, member) in self.members.iter().enumerate().filter(|(_, member)| is_usable(member)) {
            available += 1;
            let active = member.active();
            if most > 0 && active >= most {
                full += 1;
            } else if !tried.contains(&index) {
                let weight = member.share(slow_start);
                candidates.push(Candidate { index, id: member.id, weight, active });
            }
        }
        let Some(first) = candidates.first() else {
            // Those that were tried are better than nobody.
            return match (tried.is_empty(), available, full) {
                (_, 0, _) => Choice::Nobody,
                (_, available, full) if available == full => Choice::Full,
                (false, ..) => self.choose(affinity, &Tried::new()),
                (true, ..) => Choice::Nobody,
            };
        };
        let kept = affinity.member.and_then(|id| candidates.iter().find(|candidate| candidate.id == id));
        let index = match kept {
            Some(candidate) => candidate.index,
            None if candidates.len() == 1 => first.index,
            None => candidates[self.balance.choose(&candidates, affinity.key)].index,
        };
        Choice::Taken(Taken { index, on_trial: self.members[index].state() == State::OnTrial })
    }
}

impl Group {
    /// One more request: a part of another retry.
    pub fn count_request(&self) {
        self.budget.deposit(&self.settings.health.retries);
    }

    /// Takes a retry out of the budget, if there is one.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        self.budget.withdraw(&self.settings.health.retries)
    }

    /// Retries, and those for which the budget had nothing left.
    #[must_use]
    pub fn retries(&self) -> (u64, u64) {
        (self.budget.spent.load(Relaxed), self.budget.denied.load(Relaxed))
    }

    /// Whether somebody else than these could be asked.
    #[must_use]
    pub fn has_others(&self, tried: &[usize]) -> bool {
        self.members.iter().enumerate().any(|(index, member)| is_usable(member) && !tried.contains(&index))
    }

    /// Notes what a check has found: nothing, if all is well. Whether the member is up or down by that, if that is news.
    pub fn note_check(&self, member: &Member, complaint: Option<&str>) -> Option<bool> {
        let check = &self.settings.health.check;
        member.check_in(check.interval);
        let news = member.health.checked(check, complaint.map(Into::into));
        if news == Some(true) {
            member.come_back();
            self.look_again();
        }
        news
    }

    /// Has those who wait see what has changed.
    pub fn look_again(&self) {
        self.queue.freed.notify_waiters();
    }

    /// A member that fails may be ejected as long as enough others are left.
    fn can_spare_one(&self) -> bool {
        let out = self.members.iter().filter(|member| member.health.is_ejected()).count();
        (out + 1) * 100 <= self.members.len() * self.settings.health.outliers.max_share as usize
    }
}

fn is_usable(member: &Member) -> bool {
    matches!(member.state(), State::Up | State::OnTrial)
}

impl Turn {
    /// Tells how the request has ended, for those that come.
    pub fn report(&self, failed: bool) {
        let (health, settings) = (&self.member().health, &self.group.settings.health);
        let on_trial = self.on_trial.take();
        let (backend, member) = (&*self.group.settings.name, &*self.member().name);
        if !failed {
            if health.succeeded(&settings.breaker, on_trial) {
                self.member().come_back();
                tracing::info!(backend, member, "its breaker is closed again");
            }
            return;
        }
        let limits = (&settings.outliers, &settings.breaker);
        match health.failed(limits, on_trial, || self.group.can_spare_one()) {
            Fitness::Ejected => tracing::warn!(backend, member, "ejected: its requests fail in a row"),
            Fitness::Open if !on_trial => {
                tracing::warn!(backend, member, "its breaker is open: too many of its requests fail");
            }
            Fitness::Open | Fitness::Fit | Fitness::Down | Fitness::OnTrial => {}
        }
    }

    #[must_use]
    pub fn member(&self) -> &Member {
        &self.group.members[self.index]
    }

    #[must_use]
    pub fn server(&self) -> &Arc<Backend> {
        &self.member().server
    }

    /// Its place in the group.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The Set-Cookie by which its client comes back here; None if it has that already, or is not to.
    #[must_use]
    pub fn set_cookie(&self, affinity: Affinity, scheme: Scheme) -> Option<String> {
        let name = self.group.settings.sticky_cookie.as_ref()?;
        let id = self.member().id;
        (affinity.member != Some(id)).then(|| affinity::set_cookie(name, id, scheme))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.on_trial.get() {
            self.member().health.end_trial();
        }
        self.member().end();
        let queue = &self.group.queue;
        if queue.waiting.load(SeqCst) > 0 {
            queue.freed.notify_one();
        }
    }
}

/// A place in the queue, while it lives.
struct Waiting<'a>(&'a Queue);

impl<'a> Waiting<'a> {
    fn begin(queue: &'a Queue, most: usize) -> Option<Self> {
        let place = Self(queue);
        (queue.waiting.fetch_add(1, SeqCst) < most).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
