//! `weir serve`

use super::{ConfigArguments, FAILED, Failed, config};
use crate::config::Sources;
use crate::telemetry::log;

pub(super) fn run(arguments: &ConfigArguments) -> Result<(), Failed> {
    let sources = Sources::of_process(arguments.files.clone(), arguments.overrides.clone());
    let config = config::load_sources(&sources)?;
    let _writing = log::start(&config.logging).map_err(|error| Failed::new(FAILED, error))?;
    crate::config::warnings(&config).iter().for_each(|warning| tracing::warn!("{warning}"));
    crate::app::serve(config, sources).map_err(|error| Failed::new(FAILED, error.to_string()))
}
