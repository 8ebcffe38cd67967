//! `weir config`

use clap::Subcommand;

use super::{ConfigArguments, Failed, MISUSED, say};
use crate::app::check;
use crate::config::{Config, Sources};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Says whether the configuration is right; if not, what is wrong with which line.
    Check(ConfigArguments),
    /// Reads a password from standard input, and prints its hash for security.auth.users.
    HashPassword,
}

pub(super) fn run(command: &Command) -> Result<(), Failed> {
    let arguments = match command {
        Command::Check(arguments) => arguments,
        Command::HashPassword => return hash_password(),
    };
    let config = load(arguments)?;
    let warnings = [crate::config::warnings(&config), check::warnings(&config)].concat();
    warnings.iter().try_for_each(|warning| say(&format!("warning: {warning}")))?;
    match check::look_up(&config).map_err(|problems| Failed::new(MISUSED, problems.join("\n")))? {
        (0, 0, _) => {}
        (blocked, allowed, left_out) => say(&format!(
            "security.filtering: {blocked} entries blocked, {allowed} allowed, {left_out} lines left out"
        ))?,
    }
    say("the configuration is right")
}

fn hash_password() -> Result<(), Failed> {
    let mut password = String::new();
    std::io::stdin()
        .read_line(&mut password)
        .map_err(|error| Failed::new(MISUSED, format!("standard input: {error}")))?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failed::new(MISUSED, "write the password to standard input, in one line"));
    }
    say(&crate::policy::auth::hash_password(password).map_err(|error| Failed::new(MISUSED, error))?)
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
