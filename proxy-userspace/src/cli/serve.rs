//! `weir serve`

use super::{ConfigArguments, FAILED, Failed, config};
use crate::config::Sources;
use crate::telemetry::log;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Takes the place of the weir that starts this one. For weir itself to say.
    #[arg(long, hide = true)]
    take_over: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let Arguments { config: ConfigArguments { files, overrides }, take_over } = arguments;
    let sources = Sources::of_process(files.clone(), overrides.clone());
    let tell_failure = |failed: &Failed| {
        if *take_over {
            crate::app::handover::tell_early_failure(&failed.message);
        }
    };
    let loaded = config::load_sources(&sources).inspect_err(tell_failure)?;
    let config = &loaded.config;
    crate::app::prepare_system_proxy(config, *take_over);
    let given_up = crate::app::give_up_privileges(config);
    given_up.map_err(|error| Failed::new(FAILED, error.to_string())).inspect_err(tell_failure)?;
    let _writing = log::start(&config.logging).map_err(|error| Failed::new(FAILED, error))?;
    crate::config::warnings(config).iter().for_each(|warning| tracing::warn!("{warning}"));
    crate::app::serve(loaded, sources, *take_over).map_err(|error| Failed::new(FAILED, error.to_string()))
}
