//! `weir config check`

use clap::Subcommand;

use super::{ConfigArguments, Failed, MISUSED, say};
use crate::config::{Config, Sources};
use crate::policy::Policy;
use crate::tls::client::ClientTls;
use crate::tls::server::Acceptance;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Says whether the configuration is right; if not, what is wrong with which line.
    Check(ConfigArguments),
}

pub(super) fn run(command: &Command) -> Result<(), Failed> {
    let Command::Check(arguments) = command;
    let config = load(arguments)?;
    crate::config::warnings(&config).iter().try_for_each(|warning| say(&format!("warning: {warning}")))?;
    ClientTls::load(&config.upstream.tls)
        .map_err(|error| Failed::new(MISUSED, format!("upstream.tls: {error}")))?;
    Acceptance::load(&config.server.tls)
        .map_err(|error| Failed::new(MISUSED, format!("server.tls: {error}")))?;
    let policy = Policy::load(&config.security)
        .map_err(|error| Failed::new(MISUSED, format!("security.filtering: {error}")))?;
    match policy.filtering.counts() {
        (0, 0, _) => {}
        (blocked, allowed, left_out) => say(&format!(
            "security.filtering: {blocked} entries blocked, {allowed} allowed, {left_out} lines left out"
        ))?,
    }
    say("the configuration is right")
}

/// The configuration that these arguments, the files and the environment make.
pub(super) fn load(arguments: &ConfigArguments) -> Result<Config, Failed> {
    let sources = Sources::of_process(arguments.files.clone(), arguments.overrides.clone());
    load_sources(&sources)
}

pub(super) fn load_sources(sources: &Sources) -> Result<Config, Failed> {
    crate::config::load(sources)
        .map_err(|errors| Failed::new(MISUSED, format!("bad configuration:\n{errors}")))
}
