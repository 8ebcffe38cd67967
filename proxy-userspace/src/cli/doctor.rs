//! `weir doctor`

use super::{ConfigArguments, FAILED, Failed, client, config, say};
use crate::config::{Capture, CaptureMode, Selector};
use crate::containers::{Engine, Which};
use crate::privilege;
use crate::redirect::support::{self, Check, Verdict};

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
    let mut checks = support::probe(&config.capture, &config.admin.state_dir);
    checks.extend(check_engines(&config.capture)?);
    checks.extend(config.server.user.as_deref().map(check_user));
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

/// The user that weir is to become.
fn check_user(user: &str) -> Check {
    let (verdict, detail) = match privilege::check_user(user) {
        Ok(()) => (Verdict::Good, format!("started by root, weir becomes {user} (server.user)")),
        Err(error) => (Verdict::Bad, error.to_string()),
    };
    Check { name: "user", verdict, detail }
}

/// The container engines that answer. One that does not is worth a word only if a target needs an engine.
fn check_engines(capture: &Capture) -> Result<Vec<Check>, Failed> {
    let is_needed = capture.targets.iter().any(Selector::needs_engine);
    let mut checks = Vec::new();
    for socket in &capture.engine_sockets {
        let engine = Engine::new(socket.clone());
        let (verdict, detail) = match client::block_on(async { Ok(engine.containers(Which::Running).await) })?
        {
            Ok(running) => (Verdict::Good, format!("{} runs {} containers", socket.display(), running.len())),
            Err(error) if is_needed => (Verdict::Limited, error.to_string()),
            Err(_) => continue,
        };
        checks.push(Check { name: "engine", verdict, detail });
    }
    Ok(checks)
}
