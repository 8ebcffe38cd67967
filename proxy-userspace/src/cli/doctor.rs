//! `weir doctor`

use super::{ConfigArguments, FAILED, Failed, config, say};
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
    let checks = support::probe(&config.capture);
    if arguments.json {
        let checks = serde_json::to_string_pretty(&checks);
        return say(&checks.map_err(|error| Failed::new(FAILED, error))?);
    }
    for check in &checks {
        let mark = match check.verdict {
            Verdict::Good => "ok  ",
            Verdict::Limited => "warn",
            Verdict::Bad => "BAD ",
        };
        say(&format!("{mark} {:<12} {}", check.name, check.detail))?;
    }
    let captures = !checks.iter().any(|check| check.verdict == Verdict::Bad);
    say(match captures {
        true => "weir can capture on this host",
        false => "weir can't capture on this host; the explicit proxy works all the same",
    })
}
