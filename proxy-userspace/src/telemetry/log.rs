//! Diagnostics: to standard error, as text or JSON. Finished flows go to standard output (see `flows`).

use std::io::IsTerminal;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Logging};

/// Lines that may wait for standard error to take them. More are lost: nobody who logs waits for a reader.
const QUEUE: usize = 8192;

/// Starts logging for this process, until the guard is dropped; that writes what is still waiting.
///
/// # Errors
/// The text of what is wrong with `logging.level`, or that logging was started before.
pub fn start(logging: &Logging) -> Result<WorkerGuard, String> {
    let filter = EnvFilter::builder()
        .parse(&logging.level)
        .map_err(|error| format!("logging.level `{}`: {error}", logging.level))?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        .lossy(true)
        .thread_name("weir-log")
        .finish(std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match logging.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map(|()| guard).map_err(|error| format!("logging: {error}"))
}
