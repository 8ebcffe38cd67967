//! A flow that records itself: however its way ends, early return or panic included, it is logged.

use std::ops::{Deref, DerefMut};

use crate::target::{Client, Target};
use crate::telemetry::flow::{Flow, Protocol};
use crate::telemetry::flows;

/// A flow under way. Boxed, as it outlives many small futures that hold it.
#[derive(Debug)]
pub(super) struct Recording(Option<Box<Flow>>);

impl Recording {
    /// A flow that begins now.
    pub(super) fn begin(client: &Client, target: &Target, protocol: Protocol) -> Self {
        Self(Some(Box::new(Flow::begin(client, target, protocol))))
    }
}

impl Deref for Recording {
    type Target = Flow;

    fn deref(&self) -> &Flow {
        self.0.as_deref().expect("the flow is taken only by drop")
    }
}

impl DerefMut for Recording {
    fn deref_mut(&mut self) -> &mut Flow {
        self.0.as_deref_mut().expect("the flow is taken only by drop")
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(flow) = self.0.take() {
            flows::record(*flow);
        }
    }
}
