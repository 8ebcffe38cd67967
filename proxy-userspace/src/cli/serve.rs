//! `weir serve`

use super::{ConfigArguments, FAILED, Failed, config};
use crate::telemetry::log;

pub(super) fn run(arguments: &ConfigArguments) -> Result<(), Failed> {
    let config = config::load(arguments)?;
    let _writing = log::start(&config.logging).map_err(|error| Failed::new(FAILED, error))?;
    crate::config::warnings(&config).iter().for_each(|warning| tracing::warn!("{warning}"));
    crate::app::serve(config).map_err(|error| Failed::new(FAILED, error.to_string()))
}
