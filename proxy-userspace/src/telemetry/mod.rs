//! What weir says about itself: logs, flows, metrics.

mod counter;
pub mod flow;
pub mod flows;
pub mod histogram;
pub mod log;
pub mod metrics;
pub mod redact;
