//! A flow that records itself: however its way ends, early return or panic included, it is logged.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use crate::target::{Client, Target};
use crate::telemetry::flow::{Flow, Protocol};
use crate::telemetry::flows;

/// A flow under way. Boxed, as it outlives many small futures that hold it.
#[derive(Debug)]
pub(super) struct Recording {
    flow: Option<Box<Flow>>,
    progress: Rc<Progress>,
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
        Self { flow: Some(Box::new(Flow::begin(client, target, protocol))), progress: Rc::default() }
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
            flows::record(*flow);
        }
    }
}
