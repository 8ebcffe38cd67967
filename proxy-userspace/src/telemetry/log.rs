//! Diagnostics: to standard error, as text or JSON. Finished flows go to standard output (see `flows`).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Logging};

/// Starts logging for this process.
///
/// # Errors
/// The text of what is wrong with `logging.level`, or that logging was started before.
pub fn start(logging: &Logging) -> Result<(), String> {
    let filter = EnvFilter::builder()
        .parse(&logging.level)
        .map_err(|error| format!("logging.level `{}`: {error}", logging.level))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match logging.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| format!("logging: {error}"))
}
