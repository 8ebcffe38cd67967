//! What a configuration names on this host and `serve` can't begin without: files and users. Looked up here as there, but
//! nothing is made, opened for others or changed.

use std::os::unix::fs::PermissionsExt as _;

use crate::admin;
use crate::config::{CaptureMode, Config};
use crate::execute::Executor;
use crate::policy::Policy;
use crate::privilege;
use crate::redirect::Rules;
use crate::services;
use crate::tls::client::ClientTls;
use crate::tls::server::Acceptance;

/// Looks up all that the configuration names, for `weir config check`; gives what was found of the filtering lists:
/// entries blocked and allowed, and lines left out.
///
/// # Errors
/// Each thing that `serve` would refuse, with its key.
pub fn look_up(config: &Config) -> Result<(usize, usize, usize), Vec<String>> {
    let mut problems = Vec::new();
    let mut note = |key: &str, problem: Option<String>| {
        problems.extend(problem.map(|problem| format!("{key}{problem}")));
    };
    let told = |error: &dyn std::fmt::Display| error.to_string();
    note("upstream.tls: ", ClientTls::load(&config.upstream.tls).err().map(|error| told(&error)));
    note("server.tls: ", Acceptance::load(&config.server.tls).err().map(|error| told(&error)));
    // These name their keys themselves.
    note("", admin::check_token(&config.admin).err().map(|error| told(&error)));
    let user = config.server.user.as_deref().map_or(Ok(()), privilege::check_user);
    note("", user.err().map(|error| told(&error)));
    note("", Executor::check(&config.cli).err().map(|error| told(&error)));
    if config.capture.mode != CaptureMode::Off {
        note("", Rules::check(&config.capture).err().map(|error| told(&error)));
    }
    note("", services::configured(&config.services).err());
    let policy = Policy::load(&config.security);
    note("", policy.as_ref().err().map(|error| told(error)));
    match policy {
        Ok(policy) if problems.is_empty() => Ok(policy.filtering.counts()),
        _ => Err(problems),
    }
}

/// What `serve` does without, but somebody will miss.
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let commands = config.cli.allowed_commands.iter().filter(|_| config.cli.enabled);
    let missing = commands.filter(|command| {
        let about = std::fs::metadata(&command.path);
        !about.is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    });
    missing
        .map(|command| format!("cli.allowed_commands: {} is no program of this host", command.path.display()))
        .collect()
}
