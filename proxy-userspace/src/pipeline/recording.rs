//! A flow that records itself: however its way ends, early return or panic included, it is logged.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;

use crate::policy::auth::Identity;
use crate::route::Turn;
use crate::target::{Client, Target};
use crate::telemetry::flow::{Flow, Protocol};
use crate::telemetry::flows;

/// A flow under way. Boxed, as it outlives many small futures that hold it.
#[derive(Debug)]
pub(super) struct Recording {
    flow: Option<Box<Flow>>,
    progress: Rc<Progress>,
    identity: Option<Arc<Identity>>,
    /// Its place at a member of a group.
    turn: Option<Turn>,
}

/// Bytes of content that have passed so far; counted by whoever moves them.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub sent: Cell<u64>,
    pub received: Cell<u64>,
}

impl Recording {
    /// A flow that begins now.
    pub(super) fn begin(client: &Client, target: &Target, protocol: Protocol) -> Self {
        Self {
            flow: Some(Box::new(Flow::begin(client, target, protocol))),
            progress: Rc::default(),
            identity: None,
            turn: None,
        }
    }

    /// Notes who it is.
    pub(super) fn identify(&mut self, identity: Arc<Identity>) {
        self.user = Some(Arc::clone(&identity.name));
        self.identity = Some(identity);
    }

    /// Who it is, where that is known.
    pub(super) fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// Has the place end with the flow, or with the next one.
    pub(super) fn hold(&mut self, turn: Turn) {
        self.turn = Some(turn);
    }

    /// What is to be counted in.
    pub(super) fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.progress)
    }
}

impl Deref for Recording {
    type Target = Flow;

    fn deref(&self) -> &Flow {
        self.flow.as_deref().expect("the flow is taken only by drop")
    }
}

impl DerefMut for Recording {
    fn deref_mut(&mut self) -> &mut Flow {
        self.flow.as_deref_mut().expect("the flow is taken only by drop")
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(mut flow) = self.flow.take() {
            flow.sent += self.progress.sent.get();
            flow.received += self.progress.received.get();
            if let Some(context) = self.identity.as_ref().and_then(|identity| identity.context.as_ref()) {
                context.counters.count(flow.verdict.is_some(), flow.sent, flow.received);
            }
            flows::record(flow);
        }
    }
}
