//! The kernel half's decisions, one by one: a ring buffer that it fills while somebody follows. Nothing is to depend on
//! their being complete: what finds no room is counted and lost.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use aya::maps::{MapData, RingBuf};
use proxy_common::{Counter, Event, OUTCOME_DENIED, OUTCOME_REDIRECTED};
use serde::Serialize;

use super::original::{printable, socket_addr};
use super::rules::Deciding;
use super::{Redirect, load, sys};

/// Bytes of events that may wait to be read; a power of two.
pub(super) const EVENT_BYTES: u32 = 1 << 18;

/// A decision.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// `direct`, `redirect` or `deny`.
    pub outcome: &'static str,
    /// The counter that it was counted by.
    pub reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    pub destination: SocketAddr,
    pub pid: u32,
    pub comm: String,
    pub uid: u32,
    pub cgroup: u64,
    /// Its network namespace's cookie.
    pub netns: u64,
}

/// The reader's end.
pub struct Decisions {
    ring: RingBuf<MapData>,
    deciding: Deciding,
}

impl Decisions {
    pub(super) fn new(ring: RingBuf<MapData>, deciding: Deciding) -> Self {
        Self { ring, deciding }
    }

    /// The next one that waits.
    pub fn take(&mut self) -> Option<Decision> {
        loop {
            let event = sys::pod::<Event>(&self.ring.next()?);
            if let Some(event) = event {
                return Some(self.decision(&event));
            }
        }
    }

    fn decision(&self, event: &Event) -> Decision {
        let reason = Counter::ALL.get(event.reason as usize).map_or("unknown", |counter| counter.name());
        let name = event.comm.0.split(|byte| *byte == 0).next().unwrap_or_default();
        let rule = self.deciding.rule(event.rule);
        Decision {
            outcome: match event.outcome {
                OUTCOME_REDIRECTED => "redirect",
                OUTCOME_DENIED => "deny",
                _ => "direct",
            },
            reason,
            rule: rule.map(|rule| Arc::clone(rule.name())),
            protocol: if event.udp == 0 { "tcp" } else { "udp" },
            destination: socket_addr(&event.destination),
            pid: event.pid,
            comm: printable(name),
            uid: event.uid,
            cgroup: event.cgroup,
            netns: event.netns,
        }
    }
}

impl Redirect {
    /// The reader's end of the decisions; for one reader.
    pub fn decisions(&mut self) -> Option<Decisions> {
        self.decisions.take()
    }

    /// Has each decision told from now on, or not any more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn tell_decisions(&mut self, follow: bool) -> io::Result<()> {
        self.followed.set(0, u32::from(follow), 0).map_err(load::io_error)
    }
}
