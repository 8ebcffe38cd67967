//! Diagnostics: to standard error, as text or JSON. Finished flows go to standard output (see `flows`).

use std::io::IsTerminal;
use std::sync::OnceLock;

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
    let (started, change): (_, Change) = match logging.format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            (builder.try_init(), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            (builder.try_init(), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
    };
    started.map_err(|error| format!("logging: {error}"))?;
    // There is one subscriber a process, so this is the first.
    let _ = CHANGE.set(change);
    Ok(guard)
}

/// Puts another filter in force; whether that was possible.
type Change = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

static CHANGE: OnceLock<Change> = OnceLock::new();

/// What is logged from now on. A level that is none was refused with the configuration.
pub fn set_level(level: &str) {
    if let (Some(change), Ok(filter)) = (CHANGE.get(), EnvFilter::builder().parse(level))
        && !change(filter)
    {
        tracing::warn!("logging.level stays as it was: nothing is logged any more");
    }
}
