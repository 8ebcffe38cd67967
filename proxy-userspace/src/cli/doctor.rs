//! `weir doctor`

use super::{ConfigArguments, FAILED, Failed, config, say};
use crate::config::CaptureMode;
use crate::redirect::support::{self, Verdict};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Prints the checks as JSON.
    #[arg(long)]
    json: bool,
}

/// Fails only if something that was asked for can't work.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let config = config::load(&arguments.config)?;
    let checks = support::probe(&config.capture, &config.admin.state_dir);
    if arguments.json {
        let checks = serde_json::to_string_pretty(&checks);
        return say(&checks.map_err(|error| Failed::new(FAILED, error.to_string()))?);
    }
    for check in &checks {
        let mark = match check.verdict {
            Verdict::Good => "ok  ",
            Verdict::Limited => "warn",
            Verdict::Bad => "BAD ",
        };
        say(&format!("{mark} {:<16} {}", check.name, check.detail))?;
    }
    let captures = !checks.iter().any(|check| check.verdict == Verdict::Bad);
    match captures {
        true => say("weir can capture on this host"),
        false if config.capture.mode == CaptureMode::Required => {
            Err(Failed::new(FAILED, "weir can't capture on this host, and capture.mode is `required`"))
        }
        false => say("weir can't capture on this host; the explicit proxy works all the same"),
    }
}
