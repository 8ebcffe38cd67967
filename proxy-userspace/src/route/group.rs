//! A group of backends: who of its members gets a request, and who waits for one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::affinity::{self, Affinity};
use super::balance::{self, Balance, Candidate};
use super::member::{Member, State};
use crate::config::{Backend, BackendGroup};
use crate::http::authority::Scheme;
use crate::http::headers::Headers;

/// A group, as all workers see it.
#[derive(Debug)]
pub struct Group {
    pub settings: Arc<BackendGroup>,
    members: Box<[Arc<Member>]>,
    balance: Box<dyn Balance>,
    queue: Arc<Queue>,
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
}

enum Choice {
    Taken(usize),
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
                None => Arc::new(Member::new(now)),
            }
        };
        Arc::new(Self {
            members: settings.members.iter().map(member).collect(),
            balance: balance::of(settings),
            queue: before.map(|before| Arc::clone(&before.queue)).unwrap_or_default(),
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
            Choice::Taken(index) => Ok(Turn { group: Arc::clone(self), index }),
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
                Choice::Taken(index) => return Ok(Turn { group: Arc::clone(self), index }),
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
                Choice::Taken(index) if !self.members[index].begin(most) => {}
                choice => return choice,
            }
        }
        Choice::Full
    }

    fn choose(&self, affinity: Affinity, tried: &Tried) -> Choice {
        let mut candidates: SmallVec<[Candidate; 16]> = SmallVec::new();
        let (most, slow_start) = (self.settings.bounds.max_requests, self.settings.slow_start);
        let (mut available, mut full) = (0, 0);
        for (index, member) in
            self.members.iter().enumerate().filter(|(_, member)| member.state() == State::Up)
        {
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
        Choice::Taken(match kept {
            Some(candidate) => candidate.index,
            None if candidates.len() == 1 => first.index,
            None => candidates[self.balance.choose(&candidates, affinity.key)].index,
        })
    }
}

impl Turn {
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
        self.member().end();
        let queue = &self.group.queue;
        if queue.waiting.load(Relaxed) > 0 {
            queue.freed.notify_one();
        }
    }
}

/// A place in the queue, while it lives.
struct Waiting<'a>(&'a Queue);

impl<'a> Waiting<'a> {
    fn begin(queue: &'a Queue, most: usize) -> Option<Self> {
        let place = Self(queue);
        (queue.waiting.fetch_add(1, Relaxed) < most).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
